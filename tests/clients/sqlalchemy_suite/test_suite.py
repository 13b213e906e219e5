"""The tests that SQLAlchemy has for dialects of others."""

from sqlalchemy.testing.suite import *  # noqa: F403
