"""SQLAlchemy 2, over psycopg 3 and psycopg2: reflection, Core and ORM."""

import datetime
import decimal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from expect import FIRST_ROW, SPAN, TOKEN, equal, run

ENGINES = [sa.create_engine(f"postgresql+{driver}://") for driver in ("psycopg", "psycopg2")]


def on_each(test):
    def run_it():
        for engine in ENGINES:
            try:
                test(engine)
            except Exception as error:
                raise AssertionError(f"over {engine.driver}: {type(error).__name__}: {error}") from error

    run_it.__name__ = test.__name__
    return run_it


@on_each
def inspector(engine):
    look = sa.inspect(engine)
    equal(look.get_schema_names(), ["information_schema", "public", "tidegate"], "schemas")
    equal(set(look.get_table_names()) >= {"orders", "customers", "stock", "every_type"}, True, f"tables: {look.get_table_names()}")
    equal(look.get_view_names(), ["large_orders"], "views")
    equal(look.get_materialized_view_names(), ["revenue"], "materialized views")
    equal(look.has_table("orders") and look.has_table("revenue") and not look.has_table("nowhere"), True, "has_table")
    equal(look.get_pk_constraint("stock")["constrained_columns"], ["shop", "item"], "primary key")
    equal(look.get_pk_constraint("orders")["constrained_columns"], [], "a stream has none")
    equal(look.get_foreign_keys("customers"), [], "foreign keys")
    equal(look.get_indexes("stock"), [], "indexes beside the key")
    equal(look.get_unique_constraints("stock"), [], "unique constraints")
    equal(look.get_check_constraints("stock"), [], "check constraints")
    equal(look.get_table_comment("orders"), {"text": "what was ordered"}, "comment of a stream")
    equal(look.get_table_comment("revenue"), {"text": "what they paid"}, "comment of a materialized view")
    assert "amount >= 50" in look.get_view_definition("large_orders"), look.get_view_definition("large_orders")
    columns = {column["name"]: column for column in look.get_columns("orders")}
    equal(columns["amount"]["comment"], "in euros", "comment of a column")
    equal((columns["order_id"]["nullable"], columns["amount"]["nullable"]), (False, True), "NOT NULL")
    equal(look.get_columns("stock")[2]["default"], "0", "default")
    names = [column["name"] for column in look.get_columns("revenue")]
    equal(names, ["customer_id", "orders", "total", "latest"], "columns of a materialized view")
    equal(sorted(look.get_multi_columns(kind=sa.engine.reflection.ObjectKind.VIEW)), [(None, "large_orders")], "columns of all views")


@on_each
def schemas(engine):
    metadata = sa.MetaData(schema="of_sqlalchemy")
    things = sa.Table("orders", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("name", sa.Text))
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("of_sqlalchemy", if_not_exists=True))
    try:
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(things.insert(), [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}])
            connection.execute(things.update().where(things.c.id == 2).values(name="zwei"))
        with engine.connect() as connection:
            equal(connection.execute(sa.select(things).order_by(things.c.id)).fetchall(), [(1, "one"), (2, "zwei")], "rows")
        look = sa.inspect(engine)
        equal("of_sqlalchemy" in look.get_schema_names(), True, "the schema is there")
        equal(look.get_table_names(schema="of_sqlalchemy"), ["orders"], "tables of a schema")
        equal([c["name"] for c in look.get_columns("orders", schema="of_sqlalchemy")], ["id", "name"], "columns of a table in a schema")
        again = sa.Table("orders", sa.MetaData(), schema="of_sqlalchemy", autoload_with=engine)
        equal([c.name for c in again.primary_key], ["id"], "reflected key")
        metadata.drop_all(engine)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema("of_sqlalchemy", cascade=True, if_exists=True))


@on_each
def types_of_columns(engine):
    types = {column["name"]: column["type"] for column in sa.inspect(engine).get_columns("every_type")}
    expected = {
        "f_bool": sa.BOOLEAN, "f_int2": sa.SMALLINT, "f_int4": sa.INTEGER, "f_int8": sa.BIGINT, "f_float4": sa.REAL,
        "f_float8": sa.DOUBLE_PRECISION, "f_numeric": sa.NUMERIC, "f_text": sa.TEXT, "f_varchar": sa.VARCHAR, "f_bytea": postgresql.BYTEA,
        "f_date": sa.DATE, "f_time": postgresql.TIME, "f_timestamp": postgresql.TIMESTAMP, "f_timestamptz": postgresql.TIMESTAMP,
        "f_interval": postgresql.INTERVAL, "f_uuid": sa.UUID, "f_json": postgresql.JSON, "f_jsonb": postgresql.JSONB,
        "f_ints": postgresql.ARRAY, "f_texts": postgresql.ARRAY,
    }
    for name, kind in expected.items():
        assert isinstance(types[name], kind), f"{name} is {types[name]!r}"
    equal((types["f_numeric"].precision, types["f_numeric"].scale, types["f_varchar"].length), (20, 4, 20), "modifiers")
    equal((types["f_timestamp"].timezone, types["f_timestamptz"].timezone), (False, True), "time zones")


@on_each
def reflected_tables(engine):
    metadata = sa.MetaData()
    metadata.reflect(engine, views=True)
    equal(set(metadata.tables) >= {"orders", "customers", "revenue", "large_orders", "every_type"}, True, f"{set(metadata.tables)}")
    orders, revenue = metadata.tables["orders"], metadata.tables["revenue"]
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(orders.c.customer_id, sa.func.count(), sa.func.sum(orders.c.amount))
            .where(orders.c.at < datetime.datetime(2025, 1, 1, 11), orders.c.order_id.in_(["o1", "o2", "o3"]))
            .group_by(orders.c.customer_id).order_by(orders.c.customer_id)).all()
        equal([tuple(row) for row in rows], [(1, 2, decimal.Decimal("19.75")), (2, 1, decimal.Decimal("100.00"))], "GROUP BY")
        total = connection.scalar(sa.select(revenue.c.total).where(revenue.c.customer_id == 2))
        equal(total, decimal.Decimal("100.00"), "a view")
        row = connection.execute(sa.select(metadata.tables["every_type"]).where(sa.column("id") == 1)).mappings().one()
        for name, value in dict(FIRST_ROW, f_interval=SPAN).items():
            found = bytes(row[name]) if name == "f_bytea" else row[name]
            equal(found, value, name)


class Base(DeclarativeBase):
    pass


class Gadget(Base):
    __tablename__ = "gadgets"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(50))
    details: Mapped[dict] = mapped_column(postgresql.JSONB)
    made: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))


@on_each
def objects(engine):
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)
    made = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    with Session(engine) as session:
        session.add_all(Gadget(id=n, name=f"gadget {n}", details={"n": n}, made=made) for n in range(10))
        session.commit()
        equal(session.scalar(sa.select(sa.func.count()).select_from(Gadget)), 10, "inserted")
        gadget = session.get(Gadget, 3)
        gadget.name = "changed"
        session.commit()
        equal((session.get(Gadget, 3).name, session.get(Gadget, 3).details, session.get(Gadget, 3).made), ("changed", {"n": 3}, made), "read")
        session.delete(session.get(Gadget, 4))
        session.flush()
        session.rollback()
        equal(session.scalar(sa.select(sa.func.count()).select_from(Gadget)), 10, "rolled back")
        with session.begin_nested():
            session.add(Gadget(id=11, name="nested", details={}, made=made))
        session.commit()
        names = session.scalars(sa.update(Gadget).where(Gadget.id > 8).values(name=Gadget.name + "!").returning(Gadget.name)).all()
        equal(sorted(names), ["gadget 9!", "nested!"], "UPDATE … RETURNING")
        gone = session.scalars(sa.delete(Gadget).where(Gadget.id > 8).returning(Gadget.id)).all()
        equal(sorted(gone), [9, 11], "DELETE … RETURNING")
        inserted = session.scalars(sa.insert(Gadget).returning(Gadget.id), [dict(id=n, name="n", details={}, made=made) for n in (20, 21)]).all()
        equal(sorted(inserted), [20, 21], "INSERT … RETURNING")
        session.commit()
        upsert = postgresql.insert(Gadget).values(id=20, name="again", details={}, made=made)
        session.execute(upsert.on_conflict_do_nothing(index_elements=["id"]))
        equal(session.scalar(sa.select(Gadget.name).where(Gadget.id == 20)), "n", "ON CONFLICT DO NOTHING")
        session.rollback()
    Base.metadata.drop_all(engine)


@on_each
def streamed_results(engine):
    with engine.connect() as connection:
        rows = connection.execution_options(stream_results=True, yield_per=100).execute(
            sa.text("SELECT n FROM generate_series(1, 1000) AS g(n)"))
        equal(sum(row.n for row in rows), 500500, "server-side cursor")
        equal(connection.dialect.server_version_info[:1], (15,), "version")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        equal(connection.scalar(sa.text("SELECT CAST(:token AS uuid)"), {"token": str(TOKEN)}), TOKEN, "uuid")


run([inspector, schemas, types_of_columns, reflected_tables, objects, streamed_results])
