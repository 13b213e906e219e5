"""pandas: read_sql over SQLAlchemy and over a connection, and to_sql into a stream."""

import datetime
import decimal

import pandas
import psycopg
import sqlalchemy as sa

from expect import equal, run

ENGINE = sa.create_engine("postgresql+psycopg://")


def read_sql():
    frame = pandas.read_sql("SELECT * FROM orders WHERE order_id LIKE 'o%%' ORDER BY order_id", ENGINE)
    equal(list(frame.columns), ["order_id", "customer_id", "amount", "at"], "columns")
    equal((len(frame), frame["customer_id"].dtype.kind, frame["at"].dtype.kind), (3, "i", "M"), "types")
    equal(frame["amount"].sum(), 119.75, "sum")
    one = pandas.read_sql(sa.text("SELECT total FROM revenue WHERE customer_id = :id"), ENGINE, params={"id": 2})
    equal(float(one["total"][0]), 100.0, "a parameter")


def read_sql_table():
    frame = pandas.read_sql_table("revenue", ENGINE, columns=["customer_id", "orders"])
    equal(int(frame.loc[frame.customer_id == 1, "orders"].iloc[0]), 2, "a materialized view")
    equal(len(pandas.read_sql_table("customers", ENGINE, index_col="id")), 2, "a table")


def read_in_chunks():
    with ENGINE.connect().execution_options(stream_results=True) as connection:
        chunks = pandas.read_sql("SELECT n, n * 0.5 AS half FROM generate_series(1, 5000) AS g(n)", connection, chunksize=1000)
        equal([len(chunk) for chunk in chunks], [1000] * 5, "chunks")


def to_sql():
    with ENGINE.connect() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS from_pandas"))
        connection.execute(sa.text("CREATE STREAM IF NOT EXISTS frames (name TEXT, n BIGINT, x DOUBLE PRECISION, at TIMESTAMP)"))
        connection.commit()
    frame = pandas.DataFrame({"name": ["a", "b", None], "n": [1, 2, 3], "x": [0.5, float("inf"), None],
                              "at": [datetime.datetime(2025, 1, 1)] * 3})
    frame.to_sql("frames", ENGINE, if_exists="append", index=False)
    frame.to_sql("from_pandas", ENGINE, if_exists="replace", index=False, method="multi")
    back = pandas.read_sql_table("from_pandas", ENGINE)
    equal(back["n"].tolist(), [1, 2, 3], "a table of its own")
    equal(pandas.read_sql("SELECT count(*) AS n FROM frames", ENGINE)["n"][0], 3, "rows of the stream")


def over_a_plain_connection():
    import warnings

    warnings.simplefilter("ignore")
    with psycopg.connect("") as connection:
        frame = pandas.read_sql("SELECT customer_id, total FROM revenue WHERE customer_id < %s ORDER BY 1", connection, params=[3])
        equal(frame["total"].tolist(), [decimal.Decimal("19.75"), decimal.Decimal("100.00")], "DBAPI")


run([read_sql, read_sql_table, read_in_chunks, to_sql, over_a_plain_connection])
