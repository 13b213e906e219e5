"""SQLAlchemy's plugin, and the list of what Tidegate lacks: lacking.txt.

A test of the list must fail, all others must pass, and each line must have a test; so the list is true. A line is a class, a test
(with all of its parameters), or one with its parameters; lines with `#` say why.
"""

import collections
import os
import pathlib

import pytest
from sqlalchemy import event, pool

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.dialects.postgresql import provision as of_postgresql  # noqa: E402, F401
from sqlalchemy.testing import config as testing, provision  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.plugin.pytestplugin import pytest_collection_modifyitems as expand  # noqa: E402

# SQLAlchemy's own would make extensions, which no test of the suite uses.
provision.post_configure_engine.for_db("postgresql")(lambda url, engine, ident: None)


@event.listens_for(pool.Pool, "checkin")
def flush(connection, _):
    """A session waits for what it has written itself; who reads what another session wrote has it wait for that: FLUSH."""
    if connection is not None and "Tidegate" in connection.info.parameter_status("server_version"):
        before, connection.autocommit = connection.autocommit, True
        connection.cursor().execute("FLUSH")
        connection.autocommit = before


LIST = pathlib.Path(__file__).with_name("lacking.txt")


def lacking():
    """Lines of the list, each with its reason."""
    reason, lines = None, {}
    for line in LIST.read_text().splitlines():
        if line.startswith("#"):
            reason = line.strip("# ")
        elif line:
            lines[line] = reason
    return lines


def names(item):
    """What a line that speaks of the test may be."""
    of_class = getattr(item.cls, "_sa_orig_cls_name", item.cls.__name__)
    return of_class, f"{of_class}::{item.originalname}", f"{of_class}::{item.name}"


def pytest_collection_modifyitems(session, config, items):
    expand(session, config, items)
    if os.environ.get("LACKING") == "nothing":
        return
    lines, used = lacking(), set()
    for item in items:
        for line in set(names(item)) & lines.keys():
            used.add(line)
            item.add_marker(pytest.mark.xfail(reason=lines[line], strict=True))
    whole = not config.option.keyword and config.args == [str(config.rootpath)]
    if whole and lines.keys() - used:
        raise pytest.UsageError(f"lacking.txt names tests that do not exist: {sorted(lines.keys() - used)}")


failed = collections.Counter()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    failed[item.cls] += call.excinfo is not None
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """What a class leaves behind whose tests fail must not disturb the next one."""
    yield
    if failed.pop(item.cls, 0) and (nextitem is None or nextitem.cls is not item.cls):
        provision.drop_all_schema_objects(testing, testing.db)
