-- What Grafana's data source asks a server when it connects and lists tables, as collected by datafusion-postgres (Apache-2.0).

SELECT
        CASE WHEN
              quote_ident(table_schema) IN (
              SELECT
                CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
              FROM
                generate_series(
                  array_lower(string_to_array(current_setting('search_path'),','),1),
                  array_upper(string_to_array(current_setting('search_path'),','),1)
                ) as i,
                string_to_array(current_setting('search_path'),',') s
              )
          THEN quote_ident(table_name)
          ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
        END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema',
                                 'pg_catalog',
                                 '_timescaledb_cache',
                                 '_timescaledb_catalog',
                                 '_timescaledb_internal',
                                 '_timescaledb_config',
                                 'timescaledb_information',
                                 'timescaledb_experimental')
        ORDER BY CASE WHEN
              quote_ident(table_schema) IN (
              SELECT
                CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
              FROM
                generate_series(
                  array_lower(string_to_array(current_setting('search_path'),','),1),
                  array_upper(string_to_array(current_setting('search_path'),','),1)
                ) as i,
                string_to_array(current_setting('search_path'),',') s
              ) THEN 0 ELSE 1 END, 1;

SELECT quote_ident(column_name) AS "column", data_type AS "type"
        FROM information_schema.columns
        WHERE
          CASE WHEN array_length(parse_ident('incidents'),1) = 2
            THEN quote_ident(table_schema) = (parse_ident('incidents'))[1]
              AND quote_ident(table_name) = (parse_ident('incidents'))[2]
            ELSE quote_ident(table_name) = 'incidents'
              AND
              quote_ident(table_schema) IN (
              SELECT
                CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
              FROM
                generate_series(
                  array_lower(string_to_array(current_setting('search_path'),','),1),
                  array_upper(string_to_array(current_setting('search_path'),','),1)
                ) as i,
                string_to_array(current_setting('search_path'),',') s
              )
          END;

-- What its macros become: $__timeFilter, $__timeGroup, $__timeGroupAlias, $__timeFrom, $__unixEpochFilter.
SELECT floor(extract(epoch from first_failure_at)/300)*300 AS "time", count(*) AS incidents FROM incidents WHERE first_failure_at BETWEEN '2025-01-01T00:00:00Z' AND '2026-12-31T23:59:59.999Z' GROUP BY 1 ORDER BY 1;

SELECT first_failure_at AS "time", mttr_seconds AS value, service AS metric FROM incidents WHERE first_failure_at >= '2025-01-01T00:00:00Z' AND first_failure_at <= '2026-12-31T23:59:59Z' ORDER BY 1 LIMIT 100;

SELECT count(*) FROM incidents WHERE extract(epoch from first_failure_at) >= 1735689600 AND extract(epoch from first_failure_at) <= 1798761599;

SELECT to_timestamp(floor(extract(epoch from first_failure_at)/3600)*3600) AS "time", count(*) FROM incidents GROUP BY 1 ORDER BY 1;
