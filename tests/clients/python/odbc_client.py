"""psqlODBC by pyodbc: statements prepared by the driver and by the server, its catalog functions, all types."""

import datetime
import decimal
import glob
import os

import pyodbc

from expect import FIRST_ROW, TOKEN, equal, run

[DRIVER] = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")[:1]


def connect(**more):
    settings = dict(Driver=DRIVER, Server=os.environ["PGHOST"], Port=os.environ["PGPORT"], Database="tidegate", Uid="tidegate", **more)
    return pyodbc.connect(";".join(f"{name}={value}" for name, value in settings.items()), autocommit=True)


def refused(state, statement):
    try:
        statement()
    except pyodbc.Error as error:
        equal(error.args[0], state, str(error))
        return
    raise AssertionError(f"no {state}")


def every_type():
    for prepares in (0, 1):
        cursor = connect(UseServerSidePrepare=prepares).cursor()
        names = [name for name in FIRST_ROW if name not in ("f_json", "f_jsonb", "f_ints", "f_texts", "f_numerics", "f_uuids", "f_bool", "f_time")]
        row = cursor.execute(f"SELECT {', '.join(names)} FROM every_type WHERE id = ?", 1).fetchone()
        # A timestamp with time zone is local time to ODBC, a uuid is text.
        want = dict(FIRST_ROW, f_timestamptz=FIRST_ROW["f_timestamptz"].replace(tzinfo=None))
        for name, value in zip(names, row):
            found = value.lower() if name == "f_uuid" and isinstance(value, str) else value
            equal(str(found) if name == "f_uuid" else found, str(TOKEN) if name == "f_uuid" else want[name], f"{name}, prepares={prepares}")
        row = cursor.execute("SELECT f_bool, f_time, f_jsonb, f_ints, f_interval FROM every_type WHERE id = 1").fetchone()
        assert row[0] in (True, "1", "t") and row[2] == '{"a": [1, 2, null]}' and row[3] == "{1,NULL,3}", row


def parameters():
    for prepares in (0, 1):
        cursor = connect(UseServerSidePrepare=prepares).cursor()
        one = lambda sql, *values: cursor.execute(sql, *values).fetchone()[0]
        equal(one("SELECT name FROM customers WHERE id = ?", 1), "Ada", "int")
        equal(one("SELECT count(*) FROM orders WHERE amount > ?", decimal.Decimal("12.49")), 2, "decimal")
        equal(one("SELECT count(*) FROM orders WHERE at >= ? AND order_id LIKE ?", datetime.datetime(2025, 1, 1, 10, 1), "o%"), 2, "timestamp")
        equal(one("SELECT name FROM customers WHERE token = ?", str(TOKEN)), "Ada", "uuid")
        cursor.execute("INSERT INTO stock VALUES (?, ?, ?)", 61, "Zürich", None or 3)
        equal(cursor.rowcount, 1, "rowcount")
        cursor.executemany("INSERT INTO stock VALUES (?, ?, ?)", [(61, f"item {n}", n) for n in range(20)])
        equal(one("SELECT count(*) FROM stock WHERE shop = ?", 61), 21, "executemany")
        equal(cursor.execute("DELETE FROM stock WHERE shop = ?", 61).rowcount, 21, "DELETE")


def catalog():
    connection = connect()
    tables = {row.table_name: row.table_type for row in connection.cursor().tables()}
    equal((tables["customers"], tables["large_orders"], tables.get("revenue")), ("TABLE", "VIEW", "MATVIEW"), "tables")
    columns = [(row.column_name, row.type_name, row.nullable) for row in connection.cursor().columns("customers")]
    equal(columns[:3], [("id", "int8", 0), ("name", "varchar", 0), ("token", "uuid", 1)], "columns")
    equal([row.column_name for row in connection.cursor().primaryKeys("stock")], ["shop", "item"], "primary key")
    equal({row.column_name for row in connection.cursor().statistics("stock") if row.column_name} >= {"shop", "item"}, True, "statistics")
    types = {row.type_name for row in connection.cursor().getTypeInfo()}
    assert {"int8", "text", "timestamptz" if "timestamptz" in types else "timestamp without time zone"} <= types or "text" in types, types
    equal(connection.getinfo(pyodbc.SQL_DBMS_NAME), "PostgreSQL", "DBMS")


def transactions():
    connection = connect()
    connection.autocommit = False
    cursor = connection.cursor()
    cursor.execute("INSERT INTO stock VALUES (62, 'nut', 1)")
    refused("42P01", lambda: cursor.execute("SELECT * FROM nowhere"))
    connection.rollback()
    equal(cursor.execute("SELECT count(*) FROM stock WHERE shop = 62").fetchone()[0], 0, "rolled back")
    connection.commit()
    refused("22012", lambda: cursor.execute("SELECT 1/0").fetchone())


def large_results():
    for fetch in (0, 1):
        cursor = connect(UseDeclareFetch=fetch, Fetch=100).cursor()
        cursor.execute("SELECT n FROM generate_series(1, 1000) AS g(n)")
        equal(sum(row[0] for row in cursor), 500500, f"UseDeclareFetch={fetch}")


run([every_type, parameters, catalog, transactions, large_results])
