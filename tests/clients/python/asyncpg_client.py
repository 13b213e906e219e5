"""asyncpg: everything in binary, types looked up in the catalog, a pool that resets its connections."""

import asyncio
import datetime
import decimal
import json
import math

import asyncpg

from expect import FIRST_ROW, SPAN, TOKEN, UTC, equal, raises, run


def with_connection(test):
    async def connected():
        connection = await asyncpg.connect()
        try:
            await test(connection)
        finally:
            await connection.close()

    def run_it():
        asyncio.run(connected())

    run_it.__name__ = test.__name__
    return run_it


async def refused(kind, state, awaitable):
    try:
        await awaitable
    except kind as error:
        equal(error.sqlstate, state, str(error))
        return error
    raise AssertionError(f"no {kind.__name__}")


@with_connection
async def every_type(connection):
    row = dict(await connection.fetchrow("SELECT * FROM every_type WHERE id = $1", 1))
    # asyncpg leaves JSON to its users.
    row["f_json"], row["f_jsonb"] = json.loads(row["f_json"]), json.loads(row["f_jsonb"])
    equal(row.pop("f_interval"), SPAN, "f_interval")
    for name, value in FIRST_ROW.items():
        equal(row[name], value, name)
    row = await connection.fetchrow("SELECT * FROM every_type WHERE id = $1", 3)
    assert math.isnan(row["f_float4"]) and row["f_float8"] == math.inf and row["f_uuids"] == [], row


@with_connection
async def every_type_as_parameter(connection):
    values = dict(FIRST_ROW, id=30, f_interval=SPAN, f_json='{"b": 1}', f_jsonb='{"b": 1}')
    marks = ", ".join(f"${n + 1}" for n in range(len(values)))
    await connection.execute(f"INSERT INTO every_type ({', '.join(values)}) VALUES ({marks})", *values.values())
    row = dict(await connection.fetchrow(f"SELECT {', '.join(values)} FROM every_type WHERE id = $1", 30))
    row["f_jsonb"] = json.dumps(json.loads(row["f_jsonb"]))
    equal(row, values, "read back")
    await connection.execute("DELETE FROM every_type WHERE id = $1", 30)


@with_connection
async def parameters(connection):
    value = connection.fetchval
    equal(await value("SELECT $1::text", "x"), "x", "text")
    equal(await value("SELECT $1::int + $2::int", 1, 2), 3, "int")
    equal(await value("SELECT count(*) FROM orders WHERE order_id = ANY($1::text[])", ["o1", "o2"]), 2, "ANY")
    equal(await value("SELECT count(*) FROM orders WHERE order_id = ANY($1)", ["o1", "o2"]), 2, "ANY without a type")
    equal(await value("SELECT name FROM customers WHERE token = $1", TOKEN), "Ada", "uuid")
    equal(await value("SELECT count(*) FROM orders WHERE amount > $1 AND at < $2", decimal.Decimal(10), datetime.datetime(2026, 1, 1)), 2, "two")
    equal(await value("SELECT $1::float8", math.inf), math.inf, "inf")
    equal(await value("SELECT unnest($1::int[]) LIMIT 1", [5, 6]), 5, "unnest")
    equal(await value("SELECT $1::date + $2::interval", datetime.date(2024, 1, 1), datetime.timedelta(days=1)),
          datetime.datetime(2024, 1, 2), "date + interval")
    equal(await value("SELECT jsonb_build_object('a', $1::int)::text", 1), '{"a": 1}', "jsonb_build_object")


@with_connection
async def prepared_statements(connection):
    statement = await connection.prepare("SELECT name, token FROM customers WHERE id = $1")
    equal([p.name for p in statement.get_parameters()], ["int8"], "parameters")
    equal([(a.name, a.type.name) for a in statement.get_attributes()], [("name", "varchar"), ("token", "uuid")], "attributes")
    for id_, name in ((1, "Ada"), (2, "Grace"), (1, "Ada")):
        equal(await statement.fetchval(id_), name, "fetchval")
    await connection.executemany("INSERT INTO stock VALUES ($1, $2, $3)", [(41, f"item {n}", n) for n in range(100)])
    equal(await connection.fetchval("SELECT sum(pieces) FROM stock WHERE shop = 41"), 4950, "executemany")
    equal(await connection.execute("DELETE FROM stock WHERE shop = 41"), "DELETE 100", "tag")


@with_connection
async def transactions(connection):
    await refused(asyncpg.DivisionByZeroError, "22012", connection.fetch("SELECT 1 / 0"))
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.execute("INSERT INTO stock VALUES (42, 'nut', 1)")
    await refused(asyncpg.UndefinedTableError, "42P01", connection.fetch("SELECT * FROM nowhere"))
    await refused(asyncpg.InFailedSQLTransactionError, "25P02", connection.fetch("SELECT 1"))
    await transaction.rollback()
    equal(await connection.fetchval("SELECT count(*) FROM stock WHERE shop = 42"), 0, "rolled back")
    async with connection.transaction():
        await connection.execute("INSERT INTO stock VALUES (42, 'nut', 1)")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO stock VALUES (42, 'kept not', 1)")
                raise KeyError
        except KeyError:
            pass
    equal(await connection.fetchval("SELECT count(*) FROM stock WHERE shop = 42"), 1, "savepoint")
    await connection.execute("DELETE FROM stock WHERE shop = 42")


@with_connection
async def cursors(connection):
    async with connection.transaction():
        numbers = [row[0] async for row in connection.cursor("SELECT n FROM generate_series(1, $1::int) AS g(n)", 200, prefetch=7)]
        equal(numbers, list(range(1, 201)), "portals")
        cursor = await connection.cursor("SELECT order_id FROM orders ORDER BY 1")
        await cursor.forward(1)
        equal((await cursor.fetchrow())[0], "o2", "forward")


@with_connection
async def copying(connection):
    rows = [(43, f"item {n}", n) for n in range(1000)]
    equal(await connection.copy_records_to_table("stock", records=rows), "COPY 1000", "binary in")
    chunks = []

    async def keep(data):
        chunks.append(data)

    await connection.copy_from_query("SELECT item FROM stock WHERE shop = $1 ORDER BY pieces LIMIT 2", 43, output=keep, format="csv")
    equal(b"".join(chunks), b"item 0\nitem 1\n", "csv out, with a parameter")
    await connection.execute("DELETE FROM stock WHERE shop = 43")


@with_connection
async def notices_and_notifications(connection):
    heard = []
    connection.add_log_listener(lambda _, message: heard.append(message.message))
    await connection.execute("DROP TABLE IF EXISTS nowhere")
    equal(heard, ['table "nowhere" does not exist, skipping'], "notices")
    await connection.add_listener("news", lambda *_: None)
    await connection.remove_listener("news", lambda *_: None)


@with_connection
async def cancelling(connection):
    try:
        await connection.fetch("SELECT pg_sleep(30)", timeout=0.3)
        raise AssertionError("it slept")
    except asyncio.TimeoutError:
        pass
    equal(await connection.fetchval("SELECT 1"), 1, "afterwards")
    await connection.execute("SET statement_timeout = 200")
    await refused(asyncpg.QueryCanceledError, "57014", connection.fetch("SELECT pg_sleep(30)"))


def a_pool():
    async def use():
        async with asyncpg.create_pool(min_size=2, max_size=4, server_settings={"application_name": "pool"}) as pool:
            async def one(n):
                async with pool.acquire() as connection:
                    return await connection.fetchval("SELECT $1::int * 2", n)

            equal(await asyncio.gather(*(one(n) for n in range(50))), [2 * n for n in range(50)], "pool")

    asyncio.run(use())


@with_connection
async def sql_types(connection):
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    equal(await connection.fetchval("SELECT details FROM customers WHERE id = 1"), {"vip": True, "tags": ["a", "b"]}, "codec")
    equal(await connection.fetchval("SELECT details -> $1 FROM customers WHERE id = 1", "tags"), ["a", "b"], "->")


run([every_type, every_type_as_parameter, parameters, prepared_statements, transactions, cursors, copying, notices_and_notifications,
     cancelling, a_pool, sql_types])
