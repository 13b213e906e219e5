"""Superset for one person on one machine: its own data in a SQLite file below SUPERSET_HOME."""

import os

SECRET_KEY = os.environ.get("SUPERSET_SECRET_KEY", "only for trying it out on this machine")
SQLALCHEMY_DATABASE_URI = f"sqlite:///{os.path.join(os.environ['SUPERSET_HOME'], 'superset.db')}"
# The script talks to the API without a browser.
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
