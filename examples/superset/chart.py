"""What a person does in Superset to see a chart of a view, through its own API and without a browser.

Connects a database, looks around in it (schemas, tables, views, columns), makes a dataset of the windowed view, and runs the
query of a time-series chart with a time grain of a minute. It begins with an empty SUPERSET_HOME, or goes on with what is there.
"""

import os
import sys

from superset.app import create_app

USER, PASSWORD = "admin", "admin"
SERVER = "postgresql+psycopg2://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ)


def check(what, found, wanted):
    if found != wanted:
        sys.exit(f"  FAILED  {what}: {found!r} instead of {wanted!r}")
    print(f"  ok      {what}")


class Api:
    """Superset's REST API, as its admin."""

    def __init__(self, app):
        self.client = app.test_client()
        credentials = {"username": USER, "password": PASSWORD, "provider": "db", "refresh": False}
        self.headers = {}
        self.headers = {"Authorization": "Bearer " + self.post("/security/login", credentials)["access_token"]}

    def post(self, path, body):
        return self.answer(self.client.post(f"/api/v1{path}", json=body, headers=self.headers))

    def get(self, path):
        return self.answer(self.client.get(f"/api/v1{path}", headers=self.headers))

    @staticmethod
    def answer(response):
        if response.status_code >= 300:
            sys.exit(f"  FAILED  {response.request.method} {response.request.path}: {response.status_code} {response.get_data(as_text=True)}")
        return response.get_json()


def set_up():
    """Superset's own tables, roles and an admin: `superset db upgrade`, `superset init`, `superset fab create-admin`."""
    from flask_migrate import upgrade
    from superset.extensions import appbuilder

    upgrade(os.path.join(os.path.dirname(sys.modules["superset"].__file__), "migrations"))
    manager = appbuilder.sm
    appbuilder.add_permissions(update_perms=True)
    manager.sync_role_definitions()
    if not manager.find_user(USER):
        manager.add_user(USER, "Ada", "Admin", "admin@example.com", manager.find_role("Admin"), PASSWORD)


def database(api):
    there = [row["id"] for row in api.get("/database/")["result"] if row["database_name"] == "tidegate"]
    body = {"database_name": "tidegate", "sqlalchemy_uri": SERVER}
    api.post("/database/test_connection/", body)
    return there[0] if there else api.post("/database/", body | {"expose_in_sqllab": True})["id"]


def look_around(api, database_id):
    schemas = api.get(f"/database/{database_id}/schemas/")["result"]
    check("schemas", "public" in schemas, True)
    tables = api.get(f"/database/{database_id}/tables/?q=(schema_name:public)")["result"]
    found = {row["value"]: row["type"] for row in tables}
    check("tables and views", {name: found.get(name) for name in ("requests", "load", "errors")},
          {"requests": "table", "load": "view", "errors": "view"})
    about = api.get(f"/database/{database_id}/table_metadata/?name=requests&schema=public")
    check("columns of a stream", [(c["name"], c["type"]) for c in about["columns"]],
          [("path", "TEXT"), ("status", "INTEGER"), ("took", "DOUBLE_PRECISION"), ("at", "TIMESTAMP")])
    check("its comment", about["comment"], "requests to the service")


def dataset(api, database_id):
    there = [row["id"] for row in api.get("/dataset/")["result"] if row["table_name"] == "load"]
    id_ = there[0] if there else api.post("/dataset/", {"database": database_id, "schema": "public", "table_name": "load"})["id"]
    columns = {c["column_name"]: c for c in api.get(f"/dataset/{id_}")["result"]["columns"]}
    check("columns of the dataset", {name: c["type"] for name, c in columns.items()},
          {"window_start": "TIMESTAMP WITHOUT TIME ZONE", "status": "INTEGER", "requests": "BIGINT", "took": "DOUBLE PRECISION"})
    check("its time", [name for name, column in columns.items() if column["is_dttm"]], ["window_start"])
    return id_


def sum_of(column):
    return {"expressionType": "SIMPLE", "column": {"column_name": column}, "aggregate": "SUM", "label": f"{column} of all"}


def chart(api, dataset_id, **query):
    body = {
        "datasource": {"id": dataset_id, "type": "table"},
        "force": True,
        "queries": [{
            "columns": [{"columnType": "BASE_AXIS", "sqlExpression": "window_start", "label": "window_start",
                         "expressionType": "SQL", "timeGrain": query.pop("grain")}],
            "metrics": [sum_of("requests")],
            "row_limit": 1000,
            "extras": {"having": "", "where": ""},
            **query,
        }],
        "result_format": "json",
        "result_type": "full",
    }
    [answer] = api.post("/chart/data", body)["result"]
    if answer["error"]:
        sys.exit(f"  FAILED  the chart: {answer['error']}\n{answer['query']}")
    return answer


def charts(api, dataset_id):
    answer = chart(api, dataset_id, grain="PT1M", orderby=[["window_start", True]])
    check("a chart by minute", [row["requests of all"] for row in answer["data"]], [60] * 5)
    print("            " + answer["query"].replace("\n", "\n            "))
    for grain, points in (("PT1S", 30), ("PT30S", 10), ("PT5M", 1), ("PT1H", 1), ("P1D", 1), ("P1W", 1), ("P1M", 1), ("P3M", 1), ("P1Y", 1)):
        check(f"a chart by {grain}", len(chart(api, dataset_id, grain=grain)["data"]), points)
    answer = chart(api, dataset_id, grain="PT1M", time_range="2025-01-01T10:01:00 : 2025-01-01T10:03:00",
                   granularity="window_start", filters=[{"col": "status", "op": "IN", "val": [500]}])
    check("with a filter and a range of time", [row["requests of all"] for row in answer["data"]], [6, 6])


def sql_lab(api, database_id):
    body = {"database_id": database_id, "schema": "public", "runAsync": False, "queryLimit": 10,
            "sql": "SELECT status, COUNT(*) AS n, MAX(at) AS latest FROM requests GROUP BY status ORDER BY status"}
    answer = api.post("/sqllab/execute/", body)
    check("SQL Lab", [(row["status"], row["n"]) for row in answer["data"]], [(200, 270), (500, 30)])


def main():
    app = create_app()
    with app.app_context():
        set_up()
    api = Api(app)
    database_id = database(api)
    look_around(api, database_id)
    charts(api, dataset(api, database_id))
    sql_lab(api, database_id)


main()
