"""psycopg2: the simple protocol, with values written into the statement, and COPY by files."""

import datetime
import decimal
import io
import math
import threading
import uuid

import psycopg2
import psycopg2.errors
import psycopg2.extras

from expect import FIRST_ROW, SPAN, TOKEN, UTC, equal, raises, run

psycopg2.extras.register_uuid()


def connect(**settings):
    connection = psycopg2.connect("", **settings)
    connection.autocommit = True
    return connection


def ask(connection, sql, values=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def every_type():
    connection = connect()
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute("SELECT * FROM every_type WHERE id = 1")
        row = cursor.fetchone()
        row["f_bytea"] = bytes(row["f_bytea"])
        equal(row.pop("f_interval"), SPAN, "f_interval")
        for name, value in FIRST_ROW.items():
            equal(row[name], value, name)
        cursor.execute("SELECT f_float4, f_float8, f_ints FROM every_type WHERE id = 3")
        row = cursor.fetchone()
        assert math.isnan(row["f_float4"]) and row["f_float8"] == math.inf and row["f_ints"] == [], row


def every_type_as_parameter():
    values = dict(FIRST_ROW, id=20, f_interval=SPAN, f_json=psycopg2.extras.Json({"b": 1}), f_jsonb=psycopg2.extras.Json([1]),
                  f_bytea=psycopg2.Binary(b"\x00\xff\x10"))
    # psycopg2 writes lists as ARRAY[…] of what their elements look like.
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO every_type ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})", list(values.values()))
        equal(cursor.rowcount, 1, "rowcount")
        cursor.execute("SELECT f_uuid, f_uuids, f_jsonb, f_bytea, f_interval, f_texts, f_numerics FROM every_type WHERE id = 20")
        uuid_, uuids, jsonb, bytes_, span, texts, numerics = cursor.fetchone()
        equal((uuid_, uuids, jsonb, bytes(bytes_), span), (TOKEN, [TOKEN], [1], b"\x00\xff\x10", SPAN), "read back")
        equal((texts, numerics), (FIRST_ROW["f_texts"], FIRST_ROW["f_numerics"]), "arrays")
        cursor.execute("DELETE FROM every_type WHERE id = %s", [20])


def values_in_statements():
    connection = connect()
    equal(ask(connection, "SELECT %s, %s, %s, %s", [math.nan, -math.inf, None, True])[0][1:], (-math.inf, None, True), "floats")
    equal(ask(connection, "SELECT name FROM customers WHERE joined > %s", [datetime.datetime(2024, 1, 1, tzinfo=UTC)]), [("Ada",)], "time")
    equal(ask(connection, "SELECT count(*) FROM orders WHERE order_id IN %s", [("o1", "o2")]), [(2,)], "IN")
    equal(ask(connection, "SELECT count(*) FROM orders WHERE order_id = ANY(%s)", [["o1", "o2"]]), [(2,)], "ANY")
    equal(ask(connection, "SELECT count(*) FROM customers WHERE token = %s", [TOKEN]), [(1,)], "uuid")
    equal(ask(connection, "SELECT %s::jsonb ->> 'a'", [psycopg2.extras.Json({"a": "it's"})]), [("it's",)], "json")


def many_values():
    connection = connect()
    with connection.cursor() as cursor:
        rows = [(90 + n, f"item {n}", n) for n in range(300)]
        psycopg2.extras.execute_values(cursor, "INSERT INTO stock VALUES %s", rows, page_size=100)
        got = psycopg2.extras.execute_values(cursor, "INSERT INTO stock VALUES %s RETURNING item", rows[:2], fetch=True)
        equal(got, [("item 0",), ("item 1",)], "RETURNING")
        psycopg2.extras.execute_batch(cursor, "DELETE FROM stock WHERE shop = %s", [(90 + n,) for n in range(300)])
        cursor.execute("SELECT count(*) FROM stock WHERE shop >= 90")
        equal(cursor.fetchone(), (0,), "deleted")


def transactions():
    connection = psycopg2.connect("")
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO stock VALUES (81, 'nut', 1)")
        raises(psycopg2.errors.DivisionByZero, "22012", lambda: cursor.execute("SELECT 1 / 0"))
        raises(psycopg2.errors.InFailedSqlTransaction, "25P02", lambda: cursor.execute("SELECT 1"))
        connection.rollback()
        cursor.execute("SELECT count(*) FROM stock WHERE shop = 81")
        equal(cursor.fetchone(), (0,), "rolled back")
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        connection.set_session(isolation_level=level, readonly=False)
        equal(ask(connection, "SELECT 1"), [(1,)], level)
        connection.rollback()
    connection.set_session(readonly=True)
    raises(psycopg2.errors.ReadOnlySqlTransaction, "25006", lambda: ask(connection, "DELETE FROM stock"))
    connection.close()


def copying():
    connection = connect()
    with connection.cursor() as cursor:
        cursor.copy_expert("COPY stock FROM STDIN", io.StringIO("71\ta\t1\n71\tb\\tc\t2\n"))
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM stock WHERE shop = 71 ORDER BY item) TO STDOUT", out)
        equal(out.getvalue(), "71\ta\t1\n71\tb\\tc\t2\n", "text")
        out = io.StringIO()
        cursor.copy_to(out, "stock", columns=("item", "pieces"))
        assert "pear\t3\n" in out.getvalue(), out.getvalue()
        cursor.copy_from(io.StringIO("72\tx\t5\n"), "stock")
        equal(cursor.rowcount, 1, "rowcount")
        raises(psycopg2.errors.InvalidTextRepresentation, "22P02",
               lambda: cursor.copy_expert("COPY stock FROM STDIN", io.StringIO("seven\ta\t1\n")))
        cursor.execute("DELETE FROM stock WHERE shop IN (71, 72)")


def named_cursors():
    connection = psycopg2.connect("")
    with connection.cursor(name="numbers") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT n FROM generate_series(1, %s) AS g(n)", [100])
        equal(cursor.fetchmany(2), [(1,), (2,)], "fetchmany")
        cursor.scroll(8)
        equal(sum(row[0] for row in cursor), sum(range(11, 101)), "the rest")
    connection.close()


def notices():
    connection = connect()
    ask_nothing = connection.cursor()
    ask_nothing.execute("DROP VIEW IF EXISTS nowhere")
    assert connection.notices and "does not exist, skipping" in connection.notices[0], connection.notices


def cancelling():
    connection = connect()
    threading.Timer(0.3, connection.cancel).start()
    raises(psycopg2.errors.QueryCanceled, "57014", lambda: ask(connection, "SELECT pg_sleep(30)"))
    raises(psycopg2.errors.QueryCanceled, "57014", lambda: ask(connect(options="-c statement_timeout=200"), "SELECT pg_sleep(30)"))


run([every_type, every_type_as_parameter, values_in_statements, many_values, transactions, copying, named_cursors, notices, cancelling])
