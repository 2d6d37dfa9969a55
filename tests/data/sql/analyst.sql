-- What somebody who writes the annual review asks.

SELECT version(), current_setting('server_version_num')::int >= 120000, current_database(), current_user, current_schema();
SELECT date_trunc('month', first_failure_at) AS month, count(*) AS incidents, percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr_seconds) AS p90 FROM incidents GROUP BY 1 ORDER BY 1;
SELECT time_bucket('1 week', first_failure_at) AS week, median(mttr_seconds), geo_mean(mttr_seconds) FROM incidents GROUP BY 1 ORDER BY 1;
SELECT service, km_median(lasted_seconds, recovered_at IS NOT NULL), km_survival(lasted_seconds, recovered_at IS NOT NULL, 600.0) FROM incidents GROUP BY service ORDER BY service;
SELECT mann_kendall_p(mttr_seconds, first_failure_at), theil_sen_slope(mttr_seconds, first_failure_at) FROM incidents;
SELECT rto_met(120.0, true, 300.0), rto_met(400.0, false, 300.0), rto_met(100.0, false, 300.0);
WITH ranked AS (SELECT service, mttr_seconds, row_number() OVER (PARTITION BY service ORDER BY mttr_seconds DESC) AS place FROM incidents) SELECT * FROM ranked WHERE place <= 3 ORDER BY 1, 3;
SELECT service, count(*) FILTER (WHERE open) AS open, coalesce(max(mttr_seconds), 0)::numeric(12, 1) FROM incidents GROUP BY 1 HAVING count(*) > 1 ORDER BY 1;
SELECT first_failure_at::date AS day, to_char(first_failure_at, '%Y-%m') FROM incidents WHERE first_failure_at > now() - interval '20 years' ORDER BY 1 LIMIT 3;
SELECT i.service, s.last_outcome FROM incidents i LEFT JOIN services s USING (service) LIMIT 3;
SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1;
EXPLAIN SELECT count(*) FROM incidents;
SHOW TABLES;
SHOW COLUMNS FROM incidents;
DESCRIBE incidents;
SHOW ALL;
SHOW server_version;
BEGIN; SELECT count(*) FROM incidents; COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT a; SELECT 1; RELEASE SAVEPOINT a; ROLLBACK;
SET statement_timeout = '20s';
SET extra_float_digits = 3;
SET rebound.as_of = '2020-01-01';
SELECT count(*) AS none FROM incidents;
RESET rebound.as_of;
DISCARD ALL;
DEALLOCATE ALL;
