"""What the Python clients share: comparing, and running tests one after the other so that one failure does not hide the next."""

import datetime
import decimal
import sys
import traceback
import uuid

TOKEN = uuid.UUID("6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f")
UTC = datetime.timezone.utc

#: The first row of every_type as Python has it, but for the interval, which each driver has its own way with.
FIRST_ROW = {
    "id": 1,
    "f_bool": True,
    "f_int2": -32768,
    "f_int4": 2147483647,
    "f_int8": -9223372036854775808,
    "f_float4": 1.5,
    "f_float8": -2.25,
    "f_numeric": decimal.Decimal("1234567890123456.7891"),
    "f_text": "Zürich 'n' \"more\"",
    "f_varchar": "twenty",
    "f_bytea": b"\x00\xff\x10",
    "f_date": datetime.date(2024, 2, 29),
    "f_time": datetime.time(23, 59, 59, 999999),
    "f_timestamp": datetime.datetime(2024, 2, 29, 12, 34, 56, 789012),
    "f_timestamptz": datetime.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=UTC),
    "f_uuid": TOKEN,
    "f_json": {"a": [1, 2, None]},
    "f_jsonb": {"a": [1, 2, None]},
    "f_ints": [1, None, 3],
    "f_texts": ["a", "b,c", 'd"e', ""],
    "f_numerics": [decimal.Decimal("1.25"), decimal.Decimal("2.50")],
    "f_uuids": [TOKEN],
}

#: 1 year 2 months 3 days 04:05:06.789 as drivers give it that count 365 days a year and 30 a month.
SPAN = datetime.timedelta(days=365 + 2 * 30 + 3, hours=4, minutes=5, seconds=6, milliseconds=789)


def equal(actual, expected, what=""):
    # A driver may have a UUID of its own; bytes that are none, or 1 for True, are mistakes.
    if actual != expected or not isinstance(actual, type(expected)) and isinstance(expected, (bool, str, bytes, uuid.UUID)):
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def raises(kind, state, run):
    """`run` fails with this exception, of this SQLSTATE."""
    try:
        run()
    except kind as error:
        found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        equal(found, state, f"SQLSTATE of '{error}'")
        return error
    raise AssertionError(f"no {kind.__name__} with {state}")


def run(tests):
    """Runs tests by name, or those that the command line names; ends the process."""
    failed = 0
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        try:
            test()
            print(f"  ok      {test.__name__}")
        except Exception:
            failed += 1
            kind, error, trace = sys.exc_info()
            # The client's own lines: not those of the driver, nor these here.
            lines = [f"line {frame.lineno}: {frame.line}" for frame in traceback.extract_tb(trace) if frame.filename == sys.argv[0]]
            print("\n            ".join([f"  FAILED  {test.__name__}", *lines, f"{kind.__name__}: {error}".strip()]))
    sys.exit(1 if failed else 0)
