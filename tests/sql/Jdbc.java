import java.sql.*;
import java.util.*;

/**
 * PostgreSQL's JDBC driver against a Rebound that serves SQL: what DBeaver, Metabase and every other tool in Java
 * stands on. Ends with "good" when everything held. Usage: java -cp DRIVER Jdbc.java PORT
 */
public class Jdbc {
    static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) throw new AssertionError(found + " is not " + expected);
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/rebound?user=rebound";
        try (Connection connection = DriverManager.getConnection(url)) {
            DatabaseMetaData metadata = connection.getMetaData();
            same(metadata.getDatabaseProductName(), "PostgreSQL");
            Set<String> tables = new TreeSet<>();
            try (ResultSet rows = metadata.getTables(null, "public", "%", new String[] {"TABLE"})) {
                while (rows.next()) tables.add(rows.getString("TABLE_NAME"));
            }
            if (!tables.containsAll(List.of("events", "incidents", "recoveries"))) throw new AssertionError(tables);
            Map<String, String> columns = new LinkedHashMap<>();
            try (ResultSet rows = metadata.getColumns(null, "public", "incidents", "%")) {
                while (rows.next()) columns.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
            }
            same(columns.get("mttr_seconds"), "float8");
            same(columns.get("first_failure_at"), "timestamptz");
            try (ResultSet rows = metadata.getPrimaryKeys(null, "public", "incidents")) {
                same(rows.next(), false);
            }
            try (ResultSet rows = metadata.getSchemas()) {
                Set<String> schemas = new TreeSet<>();
                while (rows.next()) schemas.add(rows.getString(1));
                if (!schemas.contains("public")) throw new AssertionError(schemas);
            }
            String counts = "SELECT count(*) FROM incidents WHERE service = ? AND mttr_seconds > ? AND first_failure_at > ?";
            try (PreparedStatement statement = connection.prepareStatement(counts)) {
                // From the fifth time on the driver keeps the statement on the server, in binary.
                for (int n = 0; n < 8; n++) {
                    statement.setString(1, "api");
                    statement.setDouble(2, 0.0);
                    statement.setTimestamp(3, Timestamp.valueOf("2025-01-01 00:00:00"));
                    try (ResultSet rows = statement.executeQuery()) {
                        same(rows.next(), true);
                        same(rows.getLong(1), 20L);
                    }
                }
            }
            // By portions, as reports do with much.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(7);
                int seen = 0;
                try (ResultSet rows = statement.executeQuery("SELECT service, mttr_seconds, first_failure_at, open FROM incidents ORDER BY 3")) {
                    while (rows.next()) {
                        seen++;
                        if (rows.getTimestamp(3) == null || rows.getBoolean(4)) throw new AssertionError("row " + seen);
                    }
                }
                same(seen, 40);
            }
            connection.commit();
            connection.setAutoCommit(true);
            connection.setReadOnly(true);
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("DELETE FROM incidents");
                throw new AssertionError("a write was taken");
            } catch (SQLException refused) {
                same(refused.getSQLState(), "25006");
            }
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("SELECT count(*) FROM generate_series(1, 10000000000) a(x) WHERE x % 7 = 8");
                throw new AssertionError("an endless query ended");
            } catch (SQLException stopped) {
                same(stopped.getSQLState(), "57014");
            }
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1")) {
                same(rows.next(), true);
            }
        }
        System.out.println("good");
    }
}
