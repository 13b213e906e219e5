"""psycopg 3: the extended protocol, text and binary both ways, pipelines, COPY, server-side cursors."""

import datetime
import decimal
import math
import threading
import time

import psycopg
from psycopg.types.json import Json, Jsonb

from expect import FIRST_ROW, SPAN, TOKEN, UTC, equal, raises, run


def connect(**settings):
    return psycopg.connect("", autocommit=True, **settings)


def every_type_in_text_and_binary():
    with connect() as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary, row_factory=psycopg.rows.dict_row)
            row = cursor.execute("SELECT * FROM every_type WHERE id = 1").fetchone()
            equal(row.pop("f_interval"), SPAN, "f_interval")
            for name, value in FIRST_ROW.items():
                equal(row[name], value, f"{name}, binary={binary}")
            row = cursor.execute("SELECT * FROM every_type WHERE id = 2").fetchone()
            equal([value for name, value in row.items() if name != "id"], [None] * 22, "NULLs")
            row = cursor.execute("SELECT * FROM every_type WHERE id = 3").fetchone()
            assert math.isnan(row["f_float4"]) and row["f_float8"] == math.inf, row
            equal((row["f_ints"], row["f_texts"], row["f_uuids"]), ([], [], []), "empty arrays")
            equal(row["f_date"], datetime.date(1, 1, 1), "the first day")


def every_type_as_parameter():
    values = dict(FIRST_ROW, id=10, f_interval=SPAN, f_json=Json({"b": 1}), f_jsonb=Jsonb([1, {"c": None}]))
    names = list(values)
    with connect() as connection:
        for id_, mark in ((10, "%s"), (11, "%b"), (12, "%t")):
            values["id"] = id_
            marks = ", ".join([mark] * len(names))
            # The text form of some types has no Python value of its own: those stay as psycopg chooses.
            connection.execute("DELETE FROM every_type WHERE id = %s", [id_])
            connection.execute(f"INSERT INTO every_type ({', '.join(names)}) VALUES ({marks})", list(values.values()))
            row = connection.execute(f"SELECT {', '.join(names)} FROM every_type WHERE id = {mark}", [id_]).fetchone()
            want = dict(values, f_json={"b": 1}, f_jsonb=[1, {"c": None}])
            equal(dict(zip(names, row)), want, mark)
        connection.execute("DELETE FROM every_type WHERE id = ANY(%s)", [[10, 11, 12]])
        equal(connection.execute("SELECT count(*) FROM every_type WHERE id >= 10").fetchone(), (0,), "after DELETE")


def floats_that_are_no_numbers():
    with connect() as connection:
        for mark in ("%s", "%b"):
            row = connection.execute(f"SELECT {mark}::float8, {mark}::float8, {mark}::float4", [math.nan, -math.inf, 0.1]).fetchone()
            assert math.isnan(row[0]) and row[1] == -math.inf and abs(row[2] - 0.1) < 1e-7, row


def parameters_of_unknown_type():
    with connect() as connection:
        one = lambda sql, *values: connection.execute(sql, values).fetchone()
        equal(one("SELECT %s", "text"), ("text",), "a lone parameter")
        equal(one("SELECT %s + 1", 41), (42,), "int")
        equal(one("SELECT %s || 'b'", "a"), ("ab",), "||")
        equal(one("SELECT %s::date + 1", datetime.date(2024, 2, 28)), (datetime.date(2024, 2, 29),), "date + int")
        equal(one("SELECT name FROM customers WHERE id = %s", 1), ("Ada",), "int2 against int8")
        equal(one("SELECT name FROM customers WHERE token = %s", TOKEN), ("Ada",), "uuid")
        equal(one("SELECT count(*) FROM orders WHERE at >= %s", datetime.datetime(2025, 1, 1, 10, 1)), (2,), "timestamp")
        equal(one("SELECT count(*) FROM orders WHERE amount = %s", decimal.Decimal("12.5")), (1,), "numeric")
        equal(one("SELECT count(*) FROM orders WHERE order_id = ANY(%s)", ["o1", "o3"]), (2,), "ANY of texts")
        equal(one("SELECT count(*) FROM customers WHERE joined < %s", datetime.datetime(2025, 1, 1, tzinfo=UTC)), (1,), "timestamptz")
        equal(one("SELECT count(*) FROM orders LIMIT %s OFFSET %s", 1, 0), (3,), "LIMIT")
        equal(one("SELECT coalesce(%s, 'x'), %s::text IS NULL", None, None), ("x", True), "NULL")
        raises(psycopg.errors.IndeterminateDatatype, "42P18", lambda: one("SELECT %s IS NULL", None))
        equal(one("SELECT count(*) FROM orders WHERE at BETWEEN %s AND %s - INTERVAL '1 minute'",
                  datetime.datetime(2025, 1, 1), datetime.datetime(2025, 1, 1, 10, 7)), (3,), "BETWEEN")
        equal(one("SELECT CASE WHEN %s THEN 'yes' ELSE 'no' END", True), ("yes",), "bool")
        equal(one("SELECT to_timestamp(%s)::timestamptz", 39.25), (datetime.datetime(1970, 1, 1, 0, 0, 39, 250000, tzinfo=UTC),), "to_timestamp")
        equal(one("SELECT details->>'vip', details->'tags'->>0 FROM customers WHERE id = %s", 1), ("true", "a"), "->>")
        raises(psycopg.errors.InvalidTextRepresentation, "22P02", lambda: one("SELECT %s::int", "x"))


def what_columns_are():
    with connect() as connection:
        cursor = connection.execute("SELECT name, token, details, joined, id, amount FROM customers JOIN orders ON id = customer_id")
        found = [(column.name, column.type_code, column.precision, column.scale, column.internal_size) for column in cursor.description]
        equal(found, [("name", 1043, None, None, None), ("token", 2950, None, None, 16), ("details", 3802, None, None, None),
                      ("joined", 1184, None, None, 8), ("id", 20, None, None, 8), ("amount", 1700, 10, 2, None)], "description")
        equal(cursor.description[0].display_size, 40, "varchar(40)")
        result = cursor.pgresult
        table = connection.execute("SELECT 'customers'::regclass::oid::int8").fetchone()[0]
        equal((result.ftable(0), result.ftablecol(0), result.ftable(4), result.ftablecol(4)), (table, 2, table, 1), "origins")
        result = connection.execute("SELECT id + 1, 'x' FROM customers").pgresult
        equal((result.ftable(0), result.ftablecol(0)), (0, 0), "an expression comes from no table")


def prepared_statements():
    with connect(prepare_threshold=0) as connection:
        for id_ in (1, 2, 1, 2):
            name = connection.execute("SELECT name FROM customers WHERE id = %s", [id_], prepare=True).fetchone()
            equal(name, ("Ada" if id_ == 1 else "Grace",), "prepared")
        connection.execute("DEALLOCATE ALL")
        equal(connection.execute("SELECT name FROM customers WHERE id = %s", [1]).fetchone(), ("Ada",), "after DEALLOCATE ALL")
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s + 0", [n]) for n in range(50)]
        equal([cursor.fetchone()[0] for cursor in cursors], list(range(50)), "pipeline")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO stock VALUES (%s, %s, %s)", [(9, f"item {n}", n) for n in range(20)])
            equal(cursor.rowcount, 20, "rowcount of executemany")
            cursor.executemany("DELETE FROM stock WHERE shop = %s AND item = %s RETURNING pieces",
                               [(9, f"item {n}") for n in range(20)], returning=True)
            pieces = [cursor.fetchone()[0]]
            while cursor.nextset():
                pieces.append(cursor.fetchone()[0])
            equal(pieces, list(range(20)), "DELETE … RETURNING")


def returning():
    with connect() as connection:
        one = lambda sql, *values: connection.execute(sql, values).fetchall()
        equal(one("INSERT INTO stock VALUES (%s, %s, %s) RETURNING shop, item, pieces + 1 AS more", 7, "fig", 1), [(7, "fig", 2)], "INSERT")
        equal(one("UPDATE stock SET pieces = pieces + %s WHERE shop = 7 RETURNING *", 4), [(7, "fig", 5)], "UPDATE")
        equal(one("UPDATE stock SET pieces = 1 WHERE shop = 77 RETURNING item"), [], "UPDATE of nothing")
        equal(one("DELETE FROM stock WHERE shop = 7 RETURNING item AS gone"), [("fig",)], "DELETE")
        equal(connection.execute("SELECT count(*) FROM stock").fetchone(), (3,), "rows left")


def transactions():
    with psycopg.connect("") as connection:
        connection.execute("INSERT INTO stock VALUES (8, 'nut', 1)")
        equal(connection.execute("SELECT pieces FROM stock WHERE shop = 8").fetchone(), (1,), "own write")
        raises(psycopg.errors.DivisionByZero, "22012", lambda: connection.execute("SELECT 1 / 0").fetchone())
        raises(psycopg.errors.InFailedSqlTransaction, "25P02", lambda: connection.execute("SELECT 1"))
        connection.rollback()
        equal(connection.execute("SELECT count(*) FROM stock WHERE shop = 8").fetchone(), (0,), "rolled back")
        connection.commit()
        with connection.transaction():
            connection.execute("INSERT INTO stock VALUES (8, 'nut', 1)")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO stock VALUES (8, 'kept not', 1)")
                    raise psycopg.Rollback()
            except psycopg.Rollback:
                pass
        equal(connection.execute("SELECT item FROM stock WHERE shop = 8").fetchall(), [("nut",)], "savepoint")
        connection.execute("DELETE FROM stock WHERE shop = 8")
        connection.commit()
        connection.read_only = True
        raises(psycopg.errors.ReadOnlySqlTransaction, "25006", lambda: connection.execute("DELETE FROM stock"))
        connection.rollback()
        connection.read_only = None
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("SELECT 1")
        connection.commit()


def settings_of_a_transaction():
    with psycopg.connect("") as connection:
        show = lambda: connection.execute("SHOW statement_timeout").fetchone()[0]
        connection.execute("SET LOCAL statement_timeout = '5s'")
        equal(show(), "5s", "within")
        connection.commit()
        equal(show(), "0", "SET LOCAL ends with its transaction")
        connection.execute("SET statement_timeout = '7s'")
        connection.rollback()
        equal(show(), "0", "SET is undone by ROLLBACK")
        connection.execute("SELECT set_config('my.user', 'ada', true)")
        equal(connection.execute("SELECT current_setting('my.user')").fetchone(), ("ada",), "set_config, local")
        connection.commit()
        equal(connection.execute("SELECT current_setting('my.user', true)").fetchone()[0] or None, None, "after the transaction")


def errors():
    with connect() as connection:
        do = lambda sql: lambda: connection.execute(sql)
        error = raises(psycopg.errors.UndefinedTable, "42P01", do("SELECT * FROM nowhere"))
        raises(psycopg.errors.UndefinedColumn, "42703", do("SELECT nothing FROM customers"))
        raises(psycopg.errors.UndefinedFunction, "42883", do("SELECT nothing(1)"))
        error = raises(psycopg.errors.SyntaxError, "42601", do("SELECT 1 FORM customers WHERE"))
        assert error.diag.statement_position, "no position"
        raises(psycopg.errors.NotNullViolation, "23502", do("INSERT INTO customers (id) VALUES (5)"))
        raises(psycopg.errors.DuplicateTable, "42P07", do("CREATE TABLE customers (id INT PRIMARY KEY)"))
        raises(psycopg.errors.InvalidTextRepresentation, "22P02", do("SELECT 'x'::int"))
        raises(psycopg.errors.NumericValueOutOfRange, "22003", do("SELECT 99999999999::int"))


def notices():
    with connect() as connection:
        heard = []
        connection.add_notice_handler(lambda diagnostic: heard.append((diagnostic.severity, diagnostic.message_primary)))
        connection.execute("DROP TABLE IF EXISTS nowhere")
        equal(heard, [("NOTICE", 'table "nowhere" does not exist, skipping')], "notices")


def copy_in_and_out():
    with connect() as connection:
        connection.execute("CREATE TABLE copied (id BIGINT PRIMARY KEY, word TEXT, amount NUMERIC(10,2), at TIMESTAMPTZ, tags TEXT[])")
        at = datetime.datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=UTC)
        rows = [(n, f"tab\t{n}" if n % 2 else None, decimal.Decimal(n) / 4, at, ["a", None]) for n in range(1000)]
        cursor = connection.cursor()
        for options in ("", " (FORMAT BINARY)"):
            connection.execute("DELETE FROM copied")
            with cursor.copy(f"COPY copied FROM STDIN{options}") as copy:
                copy.set_types(["int8", "text", "numeric", "timestamptz", "text[]"])
                for row in rows:
                    copy.write_row(row)
            equal(cursor.rowcount, 1000, "rows in")
            with cursor.copy(f"COPY (SELECT * FROM copied ORDER BY id) TO STDOUT{options}") as copy:
                copy.set_types(["int8", "text", "numeric", "timestamptz", "text[]"])
                equal(list(copy.rows()), rows, f"COPY{options}")
        with cursor.copy("COPY copied TO STDOUT (FORMAT CSV, HEADER)") as copy:
            text = b"".join(copy)
        equal(text.count(b"\n"), 1001, "lines of CSV")
        try:
            with cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write("1\tx\n")
            raise AssertionError("a short line was taken")
        except psycopg.errors.BadCopyFileFormat as error:
            equal(error.sqlstate, "22P04", "short line")
        try:
            with cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write_row(rows[0])
                raise KeyError("mine")
        except KeyError:
            pass
        equal(connection.execute("SELECT count(*) FROM copied").fetchone(), (1000,), "an aborted COPY leaves nothing")
        connection.execute("DROP TABLE copied")


def cursors_on_the_server():
    with psycopg.connect("") as connection:
        with connection.cursor(name="numbers") as cursor:
            cursor.execute("SELECT n FROM generate_series(1, %s) AS g(n)", [1000])
            cursor.itersize = 100
            equal(cursor.fetchone(), (1,), "first")
            equal(cursor.fetchmany(3), [(2,), (3,), (4,)], "fetchmany")
            cursor.scroll(5)
            equal(cursor.fetchone(), (10,), "scroll")
            equal(sum(row[0] for row in cursor), sum(range(11, 1001)), "the rest")
        with connection.cursor(name="held", withhold=True, binary=True) as cursor:
            cursor.execute("SELECT amount, at FROM orders ORDER BY order_id")
            connection.commit()
            equal(cursor.fetchone(), (decimal.Decimal("12.50"), datetime.datetime(2025, 1, 1, 10, 0, 1)), "WITH HOLD")
        connection.rollback()
        with connection.cursor(name="lost") as cursor:
            cursor.execute("SELECT 1")
            connection.commit()
            raises(psycopg.errors.InvalidCursorName, "34000", cursor.fetchone)
        connection.rollback()


LONG = "SELECT count(*) FROM generate_series(1, 1000000000000) AS g(n) WHERE n % 7 = 0"


def cancelling():
    with connect() as connection:
        for sql in ("SELECT pg_sleep(30)", LONG):
            timer = threading.Timer(0.3, connection.cancel)
            timer.start()
            begun = time.monotonic()
            raises(psycopg.errors.QueryCanceled, "57014", lambda: connection.execute(sql))
            assert time.monotonic() - begun < 5, "the cancel came late"
        equal(connection.execute("SELECT 1").fetchone(), (1,), "afterwards")


def statement_timeout():
    with connect(options="-c statement_timeout=300") as connection:
        for sql in ("SELECT pg_sleep(30)", LONG):
            begun = time.monotonic()
            error = raises(psycopg.errors.QueryCanceled, "57014", lambda: connection.execute(sql))
            assert "statement timeout" in str(error) and time.monotonic() - begun < 5, error
        connection.execute("RESET statement_timeout")
        equal(connection.execute("SHOW statement_timeout").fetchone(), ("300ms",), "RESET goes back to what the client started with")


def idle_in_transaction_session_timeout():
    with psycopg.connect("") as connection:
        connection.execute("SET idle_in_transaction_session_timeout = 200")
        connection.commit()
        time.sleep(0.6)
        equal(connection.execute("SELECT 1").fetchone(), (1,), "an idle session outside a transaction stays")
        time.sleep(0.6)
        raises(psycopg.errors.IdleInTransactionSessionTimeout, "25P03", lambda: connection.execute("SELECT 1"))


def a_view_follows():
    with connect() as connection:
        connection.execute("DROP STREAM IF EXISTS readings CASCADE")
        connection.execute("CREATE STREAM readings (sensor INT, value NUMERIC(10,2), token UUID, at TIMESTAMP, WATERMARK FOR at)")
        connection.execute("CREATE MATERIALIZED VIEW means AS SELECT sensor, count(*) AS n, avg(value) AS mean, max(token) AS token, "
                           "max(at) AS latest FROM readings GROUP BY sensor")
        at = datetime.datetime(2025, 1, 1, 11)
        for value in ("1.75", "2.25"):
            connection.execute("INSERT INTO readings VALUES (%s, %s, %s, %s)", (7, decimal.Decimal(value), TOKEN, at))
        found = connection.execute("SELECT n, mean, token, latest FROM means WHERE sensor = %s", [7]).fetchone()
        equal(found, (2, decimal.Decimal(2), TOKEN, at), "a view sees what its session has written")
        place = connection.execute("INSERT INTO readings (sensor, at) VALUES (%s, %s) RETURNING _commit, sensor", (8, at)).fetchone()
        assert place[0] > 0 and place[1] == 8, place
        connection.execute("DROP STREAM readings CASCADE")


def who_is_there():
    with connect(application_name="psycopg 3 & co") as connection:
        row = connection.execute("SELECT pid, usename, application_name, state, query, backend_type FROM pg_stat_activity "
                                 "WHERE pid = pg_backend_pid()").fetchone()
        equal(row[1:4] + row[5:], ("tidegate", "psycopg 3 & co", "active", "client backend"), "pg_stat_activity")
        assert row[0] == connection.info.backend_pid and "pg_stat_activity" in row[4], row
        equal(connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone(), (False,), "pg_stat_ssl")
        with connect(application_name="the other") as other:
            found = connection.execute("SELECT pid, state FROM pg_stat_activity WHERE application_name = 'the other'").fetchall()
            equal(found, [(other.info.backend_pid, "idle")], "another session")
            equal(connection.execute("SELECT pg_terminate_backend(%s)", [other.info.backend_pid]).fetchone(), (True,), "terminate")
            raises(psycopg.errors.AdminShutdown, "57P01", lambda: (time.sleep(0.2), other.execute("SELECT 1")))


run([every_type_in_text_and_binary, every_type_as_parameter, floats_that_are_no_numbers, parameters_of_unknown_type, what_columns_are,
     prepared_statements, returning, transactions, settings_of_a_transaction, errors, notices, copy_in_and_out, cursors_on_the_server,
     cancelling, statement_timeout, idle_in_transaction_session_timeout, a_view_follows, who_is_there])
