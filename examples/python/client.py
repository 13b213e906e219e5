#!/usr/bin/env python3
"""A client in Python: any Postgres driver will do, here psycopg 3.

    pip install 'psycopg[binary]'
    cargo run --release                          # the server, in another terminal
    examples/python/client.py

It makes a stream and a view, inserts with parameters and with COPY, reads, and follows the view's changes in two ways: through
a cursor, and through COPY. Another address: examples/python/client.py "host=... port=... user=... dbname=..."
"""

import datetime
import sys
import threading
import time

import psycopg

SETUP = [
    "DROP MATERIALIZED VIEW IF EXISTS sales",
    "DROP STREAM IF EXISTS receipts",
    """CREATE STREAM receipts (shop TEXT, amount DOUBLE PRECISION, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' SECOND)
         PARTITION BY (shop) INTO 2 PARTITIONS""",
    """CREATE MATERIALIZED VIEW sales AS
         SELECT window_start, shop, COUNT(*) AS receipts, SUM(amount) AS total
         FROM TABLE(TUMBLE(TABLE receipts, DESCRIPTOR(at), INTERVAL '1' MINUTE))
         GROUP BY window_start, window_end, shop""",
]


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def insert_and_read(connection: psycopg.Connection) -> None:
    # The answer comes when the rows are on disk.
    rows = [("north", 12.5, now()), ("south", 3.0, now()), ("north", 7.25, now())]
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO receipts VALUES (%s, %s, %s)", rows)
        # Many rows: COPY is one commit, seen whole or not at all.
        with cursor.copy("COPY receipts (shop, amount, at) FROM STDIN") as copy:
            for amount in range(1, 1001):
                copy.write_row(("east", amount, now()))
    # A session sees its own writes: the view has them.
    for shop, receipts, total in connection.execute("SELECT shop, SUM(receipts), SUM(total) FROM sales GROUP BY shop ORDER BY shop"):
        print(f"{shop}: {receipts} receipts, {total}")


def sell(address: str) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        for amount in range(1, 21):
            connection.execute("INSERT INTO receipts VALUES (%s, %s, %s)", ("west", float(amount), now()))
            time.sleep(0.1)


def follow_with_a_cursor(connection: psycopg.Connection) -> None:
    """FETCH returns what has changed, or waits for it up to the time-out. An update is a row with diff -1 and one with +1, of
    one commit. The number of the commit is where another SUBSCRIBE can go on: AS OF."""
    with connection.transaction():
        connection.execute("DECLARE changes CURSOR FOR SUBSCRIBE sales")
        for _ in range(5):
            cursor = connection.execute("FETCH 100 FROM changes WITH (timeout = '500ms')")
            names = [column.name for column in cursor.description]
            for row in cursor:
                change = dict(zip(names, row))
                print(f"commit {change['commit']} {change['diff']:>2}: {change['shop']} {change['total']}")
        connection.execute("CLOSE changes")


def follow_with_copy(address: str) -> None:
    """COPY of a SUBSCRIBE never ends by itself: take what is wanted and cancel it."""
    with psycopg.connect(address, autocommit=True) as connection:
        try:
            with connection.cursor().copy("COPY (SUBSCRIBE sales) TO STDOUT") as copy:
                for number, row in enumerate(copy.rows()):
                    print("copy:", *row)
                    if number == 2:
                        connection.cancel()
        except psycopg.errors.QueryCanceled:
            pass


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "host=127.0.0.1 port=6433 user=tidegate dbname=tidegate"
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in SETUP:
            connection.execute(statement)
        insert_and_read(connection)
        # Somebody goes on selling while we watch.
        seller = threading.Thread(target=sell, args=(address,))
        seller.start()
        follow_with_a_cursor(connection)
        follow_with_copy(address)
        seller.join()


if __name__ == "__main__":
    main()
