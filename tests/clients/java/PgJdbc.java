import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/** pgjdbc: server-prepared statements, binary transfer, batches, metadata, cursors, COPY. */
public class PgJdbc {
    interface Test {
        void run() throws Exception;
    }

    static final UUID TOKEN = UUID.fromString("6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f");
    static int failed = 0;

    static Connection connect(String... settings) throws SQLException {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/tidegate?user=tidegate";
        for (String setting : settings) url += "&" + setting;
        return DriverManager.getConnection(url);
    }

    static void equal(Object actual, Object expected, String what) {
        if (!Objects.equals(actual, expected)) throw new AssertionError(what + ": " + actual + " instead of " + expected);
    }

    static void refused(String state, Test test) throws Exception {
        try {
            test.run();
        } catch (SQLException error) {
            equal(error.getSQLState(), state, error.getMessage());
            return;
        }
        throw new AssertionError("no " + state);
    }

    static void test(String name, Test test) {
        try {
            test.run();
            System.out.println("  ok      " + name);
        } catch (Throwable error) {
            failed++;
            System.out.println("  FAILED  " + name + "\n            " + error);
        }
    }

    static Object one(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? rows.getObject(1) : null;
            }
        }
    }

    static void everyType() throws Exception {
        // Binary transfer begins with server-prepared statements, and those with the fifth execution: -1 is at once.
        for (String threshold : new String[] {"prepareThreshold=0", "prepareThreshold=-1"}) {
            try (Connection connection = connect(threshold);
                    PreparedStatement statement = connection.prepareStatement("SELECT * FROM every_type WHERE id = ?")) {
                statement.setLong(1, 1);
                for (int round = 0; round < 3; round++) {
                    ResultSet row = statement.executeQuery();
                    equal(row.next(), true, "a row");
                    equal(row.getBoolean("f_bool"), true, "bool");
                    equal(row.getShort("f_int2"), (short) -32768, "int2");
                    equal(row.getInt("f_int4"), Integer.MAX_VALUE, "int4");
                    equal(row.getLong("f_int8"), Long.MIN_VALUE, "int8");
                    equal(row.getFloat("f_float4"), 1.5f, "float4");
                    equal(row.getDouble("f_float8"), -2.25, "float8");
                    equal(row.getBigDecimal("f_numeric"), new BigDecimal("1234567890123456.7891"), "numeric");
                    equal(row.getString("f_text"), "Zürich 'n' \"more\"", "text");
                    equal(Arrays.toString(row.getBytes("f_bytea")), "[0, -1, 16]", "bytea");
                    equal(row.getObject("f_date", LocalDate.class), LocalDate.of(2024, 2, 29), "date");
                    equal(row.getObject("f_time", LocalTime.class), LocalTime.of(23, 59, 59, 999999000), "time");
                    LocalDateTime at = LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789012000);
                    equal(row.getObject("f_timestamp", LocalDateTime.class), at, "timestamp");
                    equal(row.getObject("f_timestamptz", OffsetDateTime.class).toInstant(), at.toInstant(ZoneOffset.UTC), "timestamptz");
                    equal(row.getObject("f_interval").toString(), "1 years 2 mons 3 days 4 hours 5 mins 6.789 secs", "interval");
                    equal(row.getObject("f_uuid"), TOKEN, "uuid");
                    equal(row.getString("f_jsonb"), "{\"a\": [1, 2, null]}", "jsonb");
                    equal(Arrays.toString((Object[]) row.getArray("f_ints").getArray()), "[1, null, 3]", "int[]");
                    equal(Arrays.toString((Object[]) row.getArray("f_texts").getArray()), "[a, b,c, d\"e, ]", "text[]");
                }
                statement.setLong(1, 2);
                ResultSet row = statement.executeQuery();
                row.next();
                equal(row.getObject("f_uuid"), null, "NULL");
                statement.setLong(1, 3);
                row = statement.executeQuery();
                row.next();
                equal(Float.isNaN(row.getFloat("f_float4")) && row.getDouble("f_float8") == Double.POSITIVE_INFINITY, true, "floats");
            }
        }
    }

    static void parameters() throws Exception {
        for (String threshold : new String[] {"prepareThreshold=0", "prepareThreshold=-1"}) {
            try (Connection c = connect(threshold)) {
                equal(one(c, "SELECT name FROM customers WHERE token = ?", TOKEN), "Ada", "uuid");
                equal(one(c, "SELECT count(*) FROM orders WHERE amount > ?", new BigDecimal("12.499")), 2L, "numeric");
                equal(one(c, "SELECT count(*) FROM orders WHERE at >= ?", LocalDateTime.of(2025, 1, 1, 10, 1)), 2L, "timestamp");
                equal(one(c, "SELECT count(*) FROM orders WHERE at >= ?", Timestamp.valueOf("2025-01-01 10:01:00")), 2L, "java.sql.Timestamp");
                equal(one(c, "SELECT count(*) FROM orders WHERE order_id = ANY (?)", c.createArrayOf("text", new String[] {"o1", "o3"})), 2L, "ANY");
                equal(one(c, "SELECT ?::jsonb ->> 'a'", "{\"a\": \"b\"}"), "b", "jsonb");
                equal(one(c, "SELECT ? || 'x'", "y"), "yx", "text");
                equal(one(c, "SELECT ?::date + 1", LocalDate.of(2024, 2, 28)), java.sql.Date.valueOf("2024-02-29"), "date");
                equal(one(c, "SELECT ?::float8", Double.NaN), Double.NaN, "NaN");
                equal(one(c, "SELECT coalesce(?, 'none')", (Object) null), "none", "NULL");
                try (PreparedStatement insert = c.prepareStatement("INSERT INTO every_type (id, f_uuid, f_jsonb, f_bytea, f_time, f_date, f_timestamptz, "
                        + "f_ints, f_bool, f_float4) VALUES (?, ?, ?::jsonb, ?, ?, ?, ?, ?, ?, ?)")) {
                    insert.setLong(1, 40);
                    insert.setObject(2, TOKEN);
                    insert.setString(3, "{}");
                    insert.setBytes(4, new byte[] {1, 2});
                    insert.setObject(5, LocalTime.of(1, 2, 3));
                    insert.setObject(6, LocalDate.of(2020, 1, 1));
                    insert.setObject(7, OffsetDateTime.of(2020, 1, 1, 0, 0, 0, 0, ZoneOffset.ofHours(2)));
                    insert.setArray(8, c.createArrayOf("int4", new Integer[] {1, null}));
                    insert.setBoolean(9, true);
                    insert.setFloat(10, 0.5f);
                    equal(insert.executeUpdate(), 1, "inserted");
                }
                equal(one(c, "SELECT f_timestamptz FROM every_type WHERE id = ?", 40).toString().substring(0, 16), "2019-12-31 22:00", "read back");
                equal(one(c, "DELETE FROM every_type WHERE id = ? RETURNING f_uuid", 40), TOKEN, "DELETE … RETURNING");
            }
        }
    }

    static void batches() throws Exception {
        for (String rewrite : new String[] {"reWriteBatchedInserts=false", "reWriteBatchedInserts=true"}) {
            try (Connection connection = connect(rewrite)) {
                connection.setAutoCommit(false);
                try (PreparedStatement insert = connection.prepareStatement("INSERT INTO stock (shop, item, pieces) VALUES (?, ?, ?)")) {
                    for (int n = 0; n < 200; n++) {
                        insert.setInt(1, 45);
                        insert.setString(2, "item " + n);
                        insert.setInt(3, n);
                        insert.addBatch();
                    }
                    equal(insert.executeBatch().length, 200, "batch");
                }
                connection.commit();
                equal(one(connection, "SELECT sum(pieces) FROM stock WHERE shop = 45"), 19900L, "sum");
                try (PreparedStatement insert = connection.prepareStatement("INSERT INTO stock VALUES (45, 'key', 1)", Statement.RETURN_GENERATED_KEYS)) {
                    insert.executeUpdate();
                    ResultSet keys = insert.getGeneratedKeys();
                    equal(keys.next() ? keys.getString("item") : null, "key", "getGeneratedKeys");
                }
                try (PreparedStatement insert = connection.prepareStatement("UPDATE stock SET pieces = ? WHERE item = ?", new String[] {"pieces"})) {
                    insert.setInt(1, 7);
                    insert.setString(2, "key");
                    insert.executeUpdate();
                    ResultSet keys = insert.getGeneratedKeys();
                    equal(keys.next() ? keys.getInt(1) : null, 7, "keys of an UPDATE");
                }
                try (Statement statement = connection.createStatement()) {
                    equal(statement.executeUpdate("DELETE FROM stock WHERE shop = 45"), 201, "DELETE");
                }
                connection.commit();
            }
        }
    }

    static void transactions() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            Statement statement = connection.createStatement();
            statement.executeUpdate("INSERT INTO stock VALUES (46, 'nut', 1)");
            refused("22012", () -> statement.executeQuery("SELECT 1 / 0"));
            refused("25P02", () -> statement.executeQuery("SELECT 1"));
            connection.rollback();
            equal(one(connection, "SELECT count(*) FROM stock WHERE shop = 46"), 0L, "rolled back");
            Savepoint savepoint = connection.setSavepoint("here");
            statement.executeUpdate("INSERT INTO stock VALUES (46, 'nut', 1)");
            connection.rollback(savepoint);
            connection.commit();
            equal(one(connection, "SELECT count(*) FROM stock WHERE shop = 46"), 0L, "savepoint");
            connection.rollback();
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            connection.setReadOnly(true);
            refused("25006", () -> statement.executeUpdate("DELETE FROM stock"));
            connection.rollback();
        }
    }

    static List<String> names(ResultSet rows, String column) throws SQLException {
        List<String> names = new ArrayList<>();
        while (rows.next()) names.add(rows.getString(column));
        return names;
    }

    static void metadata() throws Exception {
        try (Connection connection = connect()) {
            DatabaseMetaData data = connection.getMetaData();
            equal(data.getDatabaseProductName(), "PostgreSQL", "product");
            equal(names(data.getSchemas(), "TABLE_SCHEM").contains("public"), true, "schemas");
            equal(names(data.getTables(null, "public", "%", new String[] {"MATERIALIZED VIEW"}), "TABLE_NAME"), List.of("revenue"), "materialized views");
            equal(names(data.getTables(null, "public", "large%", new String[] {"VIEW"}), "TABLE_NAME"), List.of("large_orders"), "views");
            equal(names(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME").containsAll(List.of("customers", "orders")), true, "tables");
            equal(names(data.getTables(null, null, "orders", null), "REMARKS"), List.of("what was ordered"), "remarks");
            ResultSet columns = data.getColumns(null, "public", "customers", "%");
            columns.next();
            columns.next();
            equal(columns.getString("COLUMN_NAME") + columns.getString("TYPE_NAME") + columns.getInt("COLUMN_SIZE") + columns.getString("IS_NULLABLE"),
                    "namevarchar40NO", "columns");
            equal(names(data.getPrimaryKeys(null, "public", "stock"), "COLUMN_NAME"), List.of("shop", "item"), "primary key");
            equal(names(data.getIndexInfo(null, "public", "stock", true, false), "INDEX_NAME").contains("stock_pkey"), true, "indexes");
            equal(names(data.getImportedKeys(null, "public", "stock"), "FK_NAME"), List.of(), "foreign keys");
            equal(names(data.getTypeInfo(), "TYPE_NAME").containsAll(List.of("uuid", "jsonb", "timestamptz", "numeric")), true, "types");
            data.getFunctions(null, null, "now").next();
            data.getTablePrivileges(null, "public", "orders").next();
            data.getCatalogs().next();
            try (PreparedStatement statement = connection.prepareStatement("SELECT name, token, joined, id + ? AS more FROM customers WHERE id = ?")) {
                ParameterMetaData parameters = statement.getParameterMetaData();
                equal(parameters.getParameterCount() + parameters.getParameterTypeName(2), "2int8", "parameters");
                ResultSetMetaData described = statement.getMetaData();
                equal(described.getPrecision(1) + described.getColumnTypeName(1) + described.getColumnTypeName(2), "40varcharuuid", "described");
                org.postgresql.PGResultSetMetaData origins = (org.postgresql.PGResultSetMetaData) described;
                equal(origins.getBaseTableName(1) + "." + origins.getBaseColumnName(1), "customers.name", "origin");
                equal(origins.getBaseColumnName(4), "", "an expression has none");
                equal(described.isNullable(1), ResultSetMetaData.columnNoNulls, "NOT NULL");
            }
            // An updatable result asks the catalog for the key.
            try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet rows = statement.executeQuery("SELECT shop, item, pieces FROM stock WHERE shop = 2");
                rows.next();
                rows.updateInt("pieces", 9);
                rows.updateRow();
                equal(one(connection, "SELECT pieces FROM stock WHERE shop = 2"), 9, "updated");
                rows.updateInt("pieces", 8);
                rows.updateRow();
            }
        }
    }

    static void cursorsAndCopy() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement("SELECT n FROM generate_series(1, ?) AS g(n)")) {
                statement.setInt(1, 1000);
                statement.setFetchSize(50);
                ResultSet rows = statement.executeQuery();
                long sum = 0;
                while (rows.next()) sum += rows.getLong(1);
                equal(sum, 500500L, "portals");
            }
            CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
            equal(copy.copyIn("COPY stock FROM STDIN (FORMAT csv)", new java.io.StringReader("47,a,1\n47,b,2\n")), 2L, "COPY in");
            java.io.StringWriter out = new java.io.StringWriter();
            copy.copyOut("COPY (SELECT item FROM stock WHERE shop = 47 ORDER BY 1) TO STDOUT", out);
            equal(out.toString(), "a\nb\n", "COPY out");
            connection.rollback();
            refused("22P02", () -> copy.copyIn("COPY stock FROM STDIN (FORMAT csv)", new java.io.StringReader("x,a,1\n")));
        }
    }

    static void timeouts() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            refused("57014", () -> statement.execute("SELECT pg_sleep(20)"));
            statement.setQueryTimeout(0);
            statement.execute("SET statement_timeout = 200");
            refused("57014", () -> statement.execute("SELECT pg_sleep(20)"));
            equal(connection.isValid(2), true, "valid");
            statement.execute("DROP TABLE IF EXISTS nowhere");
            equal(statement.getWarnings().getMessage(), "table \"nowhere\" does not exist, skipping", "warnings");
            connection.setClientInfo("ApplicationName", "jdbc");
            equal(one(connection, "SHOW application_name"), "jdbc", "application_name");
            connection.setSchema("public");
            equal(connection.getSchema(), "public", "schema");
        }
    }

    public static void main(String[] arguments) {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        test("every type, in text and binary", PgJdbc::everyType);
        test("parameters", PgJdbc::parameters);
        test("batches and generated keys", PgJdbc::batches);
        test("transactions", PgJdbc::transactions);
        test("metadata", PgJdbc::metadata);
        test("cursors and COPY", PgJdbc::cursorsAndCopy);
        test("timeouts, warnings, settings", PgJdbc::timeouts);
        System.exit(failed == 0 ? 0 : 1);
    }
}
