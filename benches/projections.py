#!/usr/bin/env python3
"""Rebound's projections against DuckDB on the same Parquet files: the fold, and the queries of an annual review.

    python3 -m venv venv && venv/bin/pip install duckdb
    venv/bin/python benches/projections.py --rebound target/release/rebound --events 100000000 --incidents 200000

Writes an event log of probes and incidents (by DuckDB, in the log's columns, a file a day, sorted as compaction sorts),
has both fold the incidents, compares these, and asks both the same queries. Each figure is the median of --runs runs,
warm cache, both engines with as many threads as there are cores. The log is kept in --folder for another run.
"""

import argparse
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import duckdb

KINDS = """alert.raised alert.suppressed alert.resolved notification.sent notification.failed incident.opened
incident.acknowledged incident.resolved incident.corrected maintenance.scheduled maintenance.cancelled
recovery.triggered recovery.approved recovery.started step.started step.finished recovery.verified recovery.finished
recovery.escalated""".split()

COLUMNS = """kind VARCHAR, version INTEGER, id VARCHAR, source VARCHAR, occurred_at TIMESTAMPTZ, ingested_at TIMESTAMPTZ,
topic VARCHAR, partition INTEGER, "offset" BIGINT, service VARCHAR, plan VARCHAR, site VARCHAR, probe VARCHAR,
outcome VARCHAR, error_class VARCHAR, reason VARCHAR, latency_us BIGINT, http_status INTEGER,
certificate_expires_at TIMESTAMPTZ, incident VARCHAR, alert VARCHAR, policy VARCHAR, severity VARCHAR, recovery VARCHAR,
attempt INTEGER, procedure VARCHAR, step VARCHAR, method VARCHAR, channel VARCHAR, drill VARCHAR, duration_ms BIGINT,
first_failure_at TIMESTAMPTZ, recovered_at TIMESTAMPTZ, data VARCHAR"""
DAYS = 365
START = "TIMESTAMPTZ '2025-01-01 00:00:00Z'"


def generate(rebound: str, folder: pathlib.Path, events: int, incidents: int) -> None:
    """An event log in folder/log: a year of probes of 200 services, and incidents with all that is said of them."""
    log = folder / "log"
    seed = folder / "seed.csv"
    seed.write_text("id,service,opened,resolved\n1,seed,2025-01-01T00:00:00Z,2025-01-01T00:01:00Z\n")
    subprocess.run([rebound, "--data", folder / "seed", "import", "incidents", seed], check=True, capture_output=True)
    first = (folder / "seed/log/_delta_log/00000000000000000000.json").read_text().splitlines()
    header = [line for line in first if '"protocol"' in line or '"metaData"' in line]
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    db.execute(f"CREATE TABLE rows ({COLUMNS})")
    names = [column.split()[0].strip('"') for column in COLUMNS.replace("\n", " ").split(",")]

    def put(kind, ident, source, at, topic, offset, given, where, table):
        given = {"kind": f"'{kind}'", "version": "1", "id": ident, "source": source, "occurred_at": at,
                 "ingested_at": f"{at} + INTERVAL 1 SECOND", "topic": f"'{topic}'", "partition": "0", "offset": offset,
                 **given}
        chosen = ", ".join(f'{given.get(name, "NULL")} AS "{name}"' for name in names)
        return f"SELECT {chosen} FROM {table} WHERE {where}"

    db.execute(f"""CREATE TABLE told AS SELECT n, 'inc-' || lpad(n::VARCHAR, 9, '0') AS i,
        'service-' || lpad((hash(n) % 200)::VARCHAR, 3, '0') AS s,
        {START} + to_microseconds((hash(n * 7) % {DAYS * 86_400 - 90_000} * 1000000)::BIGINT) AS t0,
        60 + hash(n * 13) % 80000 / (1 + hash(n * 17) % 40) AS lasted FROM range({incidents}) r(n)""")
    text = "strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')".format
    t1, t2 = "(t0 + INTERVAL 30 SECOND)", "(t0 + INTERVAL 90 SECOND)"
    t3 = "(t0 + to_seconds(lasted::BIGINT))"
    recorded = [
        ("incident.opened", "':opened'", "'rebound/alerting'", t1, 0, "true", {
            "severity": "if(n % 3 = 0, 'critical', 'warning')", "first_failure_at": "t0", "error_class": "'network'",
            "reason": "'no answer within 5s'",
            "data": f"""json_object('incident', i, 'severity', if(n % 3 = 0, 'critical', 'warning'), 'first_failure_at',
                {text('t0')}, 'detected_at', {text(t1)}, 'error_class', 'network', 'reason', 'no answer within 5s')"""}),
        ("incident.acknowledged", "':acknowledged'", "'console'", t2, 1, "n % 5 < 3", {
            "data": "json_object('incident', i, 'by', 'kim', 'automated', n % 2 = 0)"}),
        ("incident.resolved", "':resolved'", "'rebound/alerting'", t3, 2, "n % 20 > 0", {
            "recovered_at": t3, "data": f"json_object('incident', i, 'recovered_at', {text(t3)})"}),
        ("incident.resolved", "':resolved'", "'rebound/alerting'", t3, 3, "n % 100 = 7", {
            "recovered_at": t3, "data": f"json_object('incident', i, 'recovered_at', {text(t3)})"}),
        ("incident.corrected", "':corrected'", "'console'", f"({t3} + INTERVAL 1 DAY)", 4, "n % 50 = 3", {
            "reason": "'a false alarm'",
            "data": "json_object('incident', i, 'by', 'kim', 'reason', 'a false alarm', 'exclude', n % 100 = 3)"}),
    ]
    for kind, suffix, source, at, place, where, given in recorded:
        given = {"service": "s", "incident": "i", **given, "data": given["data"] + "::VARCHAR"}
        db.execute("INSERT INTO rows " + put(kind, f"i || {suffix}", source, at, "alerts", f"n * 5 + {place}", given,
                                             where, "told"))
    adds, n = [], 0
    per_day = events // DAYS
    for day in range(DAYS):
        begin = f"{START} + INTERVAL {day} DAY"
        probes = put("probe.completed", f"({n} + n)::VARCHAR", "'rebound/probe/primary'",
                     f"({begin} + to_microseconds((n * {86_400_000_000 // per_day} + hash(n) % 1000)::BIGINT))",
                     "observations", f"{n} + n",
                     {"service": "'service-' || lpad((n % 200)::VARCHAR, 3, '0')", "site": "'primary'",
                      "probe": "'service-' || lpad((n % 200)::VARCHAR, 3, '0') || '-http'",
                      "outcome": "if(hash(n + 3) % 400 = 0, 'failed', 'healthy')",
                      "latency_us": "(200 + hash(n + 1) % 20000)::BIGINT", "http_status": "200"},
                     "true", f"range({per_day}) r(n)")
        date = db.execute(f"SELECT ({begin})::DATE::VARCHAR").fetchone()[0]
        path = log / f"event_date={date}" / f"{day:064x}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        today = f"SELECT * FROM rows WHERE occurred_at >= {begin} AND occurred_at < {begin} + INTERVAL 1 DAY"
        db.execute(f"COPY ({today} UNION ALL {probes} ORDER BY kind, service, probe, occurred_at) TO '{path}' "
                   "(FORMAT parquet, COMPRESSION zstd)")
        rows, least, most = db.execute(f"SELECT count(*), min(kind), max(kind) FROM '{path}'").fetchone()
        stats = {"numRecords": rows, "minValues": {"kind": least}, "maxValues": {"kind": most}}
        adds.append(json.dumps({"add": {
            "path": str(path.relative_to(log)), "partitionValues": {"event_date": date}, "size": path.stat().st_size,
            "modificationTime": 0, "dataChange": True, "stats": json.dumps(stats)}}))
        n += per_day
        print(f"\rday {day + 1} of {DAYS}", end="", file=sys.stderr)
    print(file=sys.stderr)
    (log / "_delta_log").mkdir()
    (log / "_delta_log/00000000000000000000.json").write_text("\n".join(header + adds) + "\n")
    # Told of later than the year: nothing is left out.
    left = db.execute(f"SELECT count(*) FROM rows WHERE occurred_at >= {START} + INTERVAL {DAYS} DAY").fetchone()[0]
    assert left == 0, f"{left} events lie beyond the year"


FOLD = """
WITH facts AS (SELECT kind, id, source, service, occurred_at, ingested_at, topic, partition, "offset", incident, severity,
        first_failure_at, recovered_at, error_class, reason, data FROM log WHERE kind IN ({kinds})),
once AS (SELECT * FROM facts QUALIFY row_number() OVER
        (PARTITION BY source, id ORDER BY ingested_at, topic, partition, "offset") = 1),
opened AS (SELECT *, (data->>'detected_at')::TIMESTAMPTZ AS detected_at FROM once WHERE kind = 'incident.opened'
        QUALIFY row_number() OVER (PARTITION BY incident ORDER BY occurred_at, source, id) = 1),
resolved AS (SELECT incident, occurred_at AS resolved_at, recovered_at FROM once WHERE kind = 'incident.resolved'
        QUALIFY row_number() OVER (PARTITION BY incident ORDER BY occurred_at, source, id) = 1),
acknowledged AS (SELECT incident, occurred_at AS acknowledged_at, data->>'by' AS acknowledged_by,
        (data->>'automated')::BOOLEAN AS automated FROM once WHERE kind = 'incident.acknowledged'
        QUALIFY row_number() OVER (PARTITION BY incident ORDER BY occurred_at, source, id) = 1),
corrected AS (SELECT incident, max(occurred_at) AS corrected_at,
        arg_max(coalesce((data->>'exclude')::BOOLEAN, false), (occurred_at, source, id)) AS excluded,
        arg_max(first_failure_at, (occurred_at, source, id)) FILTER (WHERE first_failure_at IS NOT NULL) AS t0,
        arg_max(recovered_at, (occurred_at, source, id)) FILTER (WHERE recovered_at IS NOT NULL) AS t3,
        arg_max(reason, (occurred_at, source, id)) AS correction_reason
        FROM once WHERE kind = 'incident.corrected' GROUP BY incident)
SELECT incident, service, severity, error_class, reason, coalesce(t0, first_failure_at) AS first_failure_at, detected_at,
    acknowledged_at, acknowledged_by, automated AS acknowledged_automated,
    coalesce(t3, resolved.recovered_at) AS recovered_at,
    coalesce(resolved_at, if(t3 IS NULL, NULL, corrected_at)) AS resolved_at,
    resolved_at IS NULL AND t3 IS NULL AS open, coalesce(excluded, false) AS excluded, corrected_at, correction_reason,
    if(coalesce(excluded, false), NULL,
       epoch(coalesce(t3, resolved.recovered_at)) - epoch(coalesce(t0, first_failure_at))) AS mttr_seconds,
    if(coalesce(excluded, false), NULL, epoch(acknowledged_at) - epoch(detected_at)) AS mtta_seconds
FROM opened LEFT JOIN resolved USING (incident) LEFT JOIN acknowledged USING (incident) LEFT JOIN corrected USING (incident)
"""

SAME = """incident, service, severity, error_class, reason, first_failure_at, detected_at, acknowledged_at,
acknowledged_by, acknowledged_automated, recovered_at, resolved_at, open, excluded, corrected_at, correction_reason,
mttr_seconds, mtta_seconds"""

QUERIES = {
    "MTTR by quarter": "SELECT date_trunc('quarter', first_failure_at) q, count(*), median(mttr_seconds), avg(mttr_seconds) FROM incidents WHERE NOT excluded GROUP BY 1 ORDER BY 1",
    "MTTR by severity": "SELECT severity, count(mttr_seconds), avg(mttr_seconds), min(mttr_seconds), max(mttr_seconds) FROM incidents GROUP BY 1 ORDER BY 1",
    "top services by downtime": "SELECT service, count(*) n, sum(mttr_seconds) s FROM incidents GROUP BY 1 ORDER BY 3 DESC LIMIT 10",
    "p90 by month": "SELECT date_trunc('month', first_failure_at) m, percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr_seconds) FROM incidents WHERE NOT excluded GROUP BY 1 ORDER BY 1",
    "within an hour, by service": "SELECT service, avg(CASE WHEN mttr_seconds <= 3600 THEN 1.0 ELSE 0.0 END) FROM incidents WHERE mttr_seconds IS NOT NULL GROUP BY 1 ORDER BY 1",
    "worst incidents": "SELECT incident, service, mttr_seconds, reason FROM incidents WHERE mttr_seconds IS NOT NULL ORDER BY mttr_seconds DESC, incident LIMIT 20",
    "MTTA by who": "SELECT acknowledged_automated, count(*), median(mtta_seconds) FROM incidents WHERE acknowledged_at IS NOT NULL GROUP BY 1 ORDER BY 1",
    "corrected and excluded": "SELECT count(*), count(corrected_at), sum(CASE WHEN excluded THEN 1 ELSE 0 END), sum(CASE WHEN open THEN 1 ELSE 0 END) FROM incidents",
    "downtime by service and month": "SELECT service, date_trunc('month', first_failure_at) m, sum(mttr_seconds) FROM incidents GROUP BY 1, 2 ORDER BY 3 DESC NULLS LAST LIMIT 50",
    "incidents of one service in a quarter": "SELECT count(*), avg(mttr_seconds) FROM incidents WHERE service = 'service-007' AND first_failure_at >= TIMESTAMPTZ '2025-04-01T00:00:00Z' AND first_failure_at < TIMESTAMPTZ '2025-07-01T00:00:00Z'",
    "availability by probes": "SELECT service, count(*), sum(CASE WHEN outcome = 'healthy' THEN 1 ELSE 0 END) FROM probes GROUP BY 1 ORDER BY 1",
    "latency by month": "SELECT date_trunc('month', occurred_at) m, avg(latency_us) FROM events WHERE kind = 'probe.completed' GROUP BY 1 ORDER BY 1",
}


def part(rebound: str, data: pathlib.Path, **what):
    settings = {**os.environ, "REBOUND_SQL__TIMEOUT": "600s"}
    done = subprocess.run([rebound, "--data", data, "bench-part", json.dumps(what)], check=True, capture_output=True,
                          text=True, env=settings)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["figures"], answer["peak_mib"]


def timed(work, runs: int) -> list[float]:
    work()
    took = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return took


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rebound", default="target/release/rebound")
    asked.add_argument("--folder", default="rebound-bench", type=pathlib.Path)
    asked.add_argument("--events", default=100_000_000, type=int)
    asked.add_argument("--incidents", default=200_000, type=int)
    asked.add_argument("--runs", default=5, type=int)
    given = asked.parse_args()
    rebound, data = str(pathlib.Path(given.rebound).resolve()), given.folder.resolve()
    if not (data / "log/_delta_log").exists():
        data.mkdir(parents=True, exist_ok=True)
        generate(rebound, data, given.events, given.incidents)
    db = duckdb.connect()
    db.execute(f"SET TimeZone = 'UTC'; SET threads = {os.cpu_count()}")
    db.execute(f"CREATE VIEW log AS SELECT * FROM read_parquet('{data}/log/event_date=*/*.parquet', hive_partitioning = false)")
    fold = FOLD.format(kinds=", ".join(f"'{kind}'" for kind in KINDS))
    target = data / "duckdb-incidents.parquet"
    duck = timed(lambda: db.execute(f"COPY ({fold}) TO '{target}' (FORMAT parquet)"), given.runs)
    ours, peak = part(rebound, data, part="project", runs=given.runs + 1)
    ours = ours[1:]
    fold_ratio = statistics.median(ours) / statistics.median(duck)
    print(f"rebuild of incidents: Rebound {statistics.median(ours):.2f} s, DuckDB {statistics.median(duck):.2f} s, "
          f"ratio {fold_ratio:.2f}; peak of Rebound {peak} MiB")

    manifest = json.loads((data / "projections/projections.json").read_text())
    files = [str(data / "projections" / file["name"]) for file in manifest["base"]["incidents"]]
    db.execute(f"CREATE VIEW incidents AS SELECT * FROM read_parquet({files})")
    db.execute("CREATE VIEW probes AS SELECT * FROM log WHERE kind = 'probe.completed'")
    db.execute("CREATE VIEW events AS SELECT * FROM log WHERE kind NOT LIKE 'log.%'")
    theirs = f"SELECT {SAME} FROM '{target}'"
    differing = db.execute(f"SELECT count(*) FROM ((SELECT {SAME} FROM incidents EXCEPT {theirs}) UNION ALL "
                           f"({theirs} EXCEPT SELECT {SAME} FROM incidents))").fetchone()[0]
    rows = db.execute("SELECT count(*) FROM incidents").fetchone()[0]
    print(f"the same {rows} incidents" if differing == 0 else f"{differing} INCIDENTS DIFFER")

    answers, peak = part(rebound, data, part="ask", queries=list(QUERIES.values()), runs=given.runs)
    ratios = []
    print(f"{'query':40} {'Rebound':>10} {'DuckDB':>10} {'ratio':>6}")
    for (name, query), ours in zip(QUERIES.items(), answers):
        duck = [1e3 * took for took in timed(lambda: db.execute(query).fetchall(), given.runs)]
        ours, duck = statistics.median(ours), statistics.median(duck)
        ratios.append(ours / duck)
        print(f"{name:40} {ours:7.1f} ms {duck:7.1f} ms {ours / duck:6.2f}")
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"geometric mean {mean:.2f}; peak of Rebound {peak} MiB, "
          f"of this process with DuckDB {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    sys.exit(0 if differing == 0 else 1)


if __name__ == "__main__":
    main()
