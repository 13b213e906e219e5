"""ADBC: everything in binary by COPY, results and loads as Arrow."""

import datetime
import decimal
import os

import adbc_driver_postgresql.dbapi
import pyarrow

from expect import UTC, equal, run

URI = f"postgresql://tidegate@{os.environ['PGHOST']}:{os.environ['PGPORT']}/tidegate"


def connect():
    return adbc_driver_postgresql.dbapi.connect(URI)


def ask(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def every_type():
    with connect() as connection:
        names = ("id, f_bool, f_int2, f_int4, f_int8, f_float4, f_float8, f_text, f_varchar, f_bytea, f_date, f_time, f_timestamp, "
                 "f_timestamptz, f_ints, f_texts, f_numeric")
        [row, nothing] = ask(connection, f"SELECT {names} FROM every_type WHERE id < 3 ORDER BY id").to_pylist()
        equal((row["f_bool"], row["f_int2"], row["f_int8"], row["f_float8"]), (True, -32768, -9223372036854775808, -2.25), "numbers")
        equal((row["f_text"], row["f_bytea"], row["f_date"]), ("Zürich 'n' \"more\"", b"\x00\xff\x10", datetime.date(2024, 2, 29)), "text")
        equal((row["f_time"], row["f_timestamp"]), (datetime.time(23, 59, 59, 999999), datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)), "times")
        equal(row["f_timestamptz"], datetime.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=UTC), "timestamptz")
        equal((row["f_ints"], row["f_texts"]), ([1, None, 3], ["a", "b,c", 'd"e', ""]), "arrays")
        equal(str(row["f_numeric"]), "1234567890123456.7891", "numeric")
        equal(set(nothing.values()), {2, None}, "NULLs")


def parameters():
    with connect() as connection:
        equal(ask(connection, "SELECT name FROM customers WHERE id = $1", [1]).to_pylist(), [{"name": "Ada"}], "int")
        equal(ask(connection, "SELECT order_id FROM orders WHERE order_id = $1 AND customer_id > $2", ["o1", 0]).num_rows, 1, "two")


def ingest():
    with connect() as connection:
        table = pyarrow.table({"id": pyarrow.array(range(1000), pyarrow.int64()), "name": [f"n{n}" for n in range(1000)],
                               "x": pyarrow.array([n / 4 for n in range(1000)]),
                               "at": pyarrow.array([datetime.datetime(2025, 1, 1)] * 1000, pyarrow.timestamp("us"))})
        connection.cursor().execute("DROP TABLE IF EXISTS from_arrow")
        connection.commit()
        connection.cursor().execute("CREATE TABLE from_arrow (id BIGINT PRIMARY KEY, name TEXT, x DOUBLE PRECISION, at TIMESTAMP)")
        connection.commit()
        with connection.cursor() as cursor:
            equal(cursor.adbc_ingest("from_arrow", table, mode="append"), 1000, "rows")
        connection.commit()
        back = ask(connection, "SELECT * FROM from_arrow ORDER BY id")
        equal(back.to_pydict(), table.to_pydict(), "read back")
        connection.commit()
        connection.cursor().execute("DROP TABLE from_arrow")
        connection.commit()


def catalog():
    with connect() as connection:
        objects = connection.adbc_get_objects(depth="all", table_name_filter="customers").read_all().to_pylist()
        tables = [t for c in objects for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]
        equal([(t["table_name"], t["table_type"]) for t in tables], [("customers", "table")], "objects")
        names = {c["column_name"] for c in tables[0]["table_columns"]}
        equal(names, {"id", "name", "token", "details", "joined"}, "columns")
        equal(connection.adbc_get_table_schema("stock").names, ["shop", "item", "pieces"], "schema")
        assert "view" in connection.adbc_get_table_types(), connection.adbc_get_table_types()


def transactions():
    with connect() as connection:
        connection.cursor().execute("INSERT INTO stock VALUES (51, 'nut', 1)")
        connection.rollback()
        equal(ask(connection, "SELECT count(*) AS n FROM stock WHERE shop = 51").to_pylist(), [{"n": 0}], "rolled back")
        try:
            ask(connection, "SELECT * FROM nowhere")
            raise AssertionError("no error")
        except adbc_driver_postgresql.dbapi.ProgrammingError as error:
            equal(error.sqlstate, "42P01", str(error))
        connection.rollback()


run([every_type, parameters, ingest, catalog, transactions])
