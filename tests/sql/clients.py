"""psycopg 3 and SQLAlchemy 2 against a Rebound that serves SQL; ends with "good" when everything held.

Usage: clients.py PORT, where 40 imported incidents of the services api and db are to be found.
"""

import sys
import threading
import time
from datetime import datetime, timezone

import psycopg
import sqlalchemy as sa
from psycopg import errors

port = int(sys.argv[1])
parts = f"host=127.0.0.1 port={port} user=rebound dbname=rebound"


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def psycopg_asks():
    with psycopg.connect(parts) as connection:
        same(connection.execute("SELECT count(*) FROM incidents").fetchone(), (40,))
        cursor = connection.execute("SELECT service, mttr_seconds, open, first_failure_at FROM incidents LIMIT 1")
        same([column.type_display for column in cursor.description], ["text", "float8", "bool", "timestamptz"])
        # Parameters of every kind, in text and binary, both ways.
        since = datetime(2025, 3, 10, tzinfo=timezone.utc)
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                query = "SELECT count(*), min(first_failure_at) FROM incidents WHERE service = %s AND mttr_seconds > %s"
                count, first = cursor.execute(query, ("api", 600.0)).fetchone()
                assert 0 < count < 40 and first.tzinfo is not None, (count, first)
                by_time = "SELECT count(*) FROM incidents WHERE first_failure_at >= %b"
                later = cursor.execute(by_time, (since,)).fetchone()[0]
                same(later, cursor.execute(by_time.replace("%b", "%t"), (since,)).fetchone()[0])
                assert 0 < later < 40, later
                same(cursor.execute("SELECT %s::bigint + 1, %s::text, %s::boolean", (41, "é", True)).fetchone(), (42, "é", True))
                same(cursor.execute("SELECT count(*) FROM incidents WHERE service = ANY(%s)", (["api", "db"],)).fetchone(), (40,))
                same(cursor.execute("SELECT NULL::text, 1.5::float8, date '2026-01-31'").fetchone()[:2], (None, 1.5))
                same(len(cursor.execute("SELECT service FROM incidents ORDER BY 1 LIMIT %s", (3,)).fetchall()), 3)
        # The same statement often: psycopg prepares it by then.
        for n in range(12):
            same(connection.execute("SELECT %s::int * 2", (n,)).fetchone(), (n * 2,))
        connection.commit()
        try:
            connection.execute("SELECT * FROM incident")
            raise AssertionError("a table that is not there was read")
        except errors.UndefinedTable as error:
            assert "did you mean incidents?" in error.diag.message_hint, error.diag.message_hint
        try:
            connection.execute("SELECT 1")
            raise AssertionError("a failed transaction went on")
        except errors.InFailedSqlTransaction:
            connection.rollback()
        same(connection.execute("SELECT 1").fetchone(), (1,))
        connection.rollback()
        for statement in ("INSERT INTO incidents VALUES (1)", "COPY incidents TO '/tmp/x'", "DROP TABLE incidents"):
            try:
                connection.execute(statement)
                raise AssertionError(f"{statement} was taken")
            except errors.ReadOnlySqlTransaction:
                connection.rollback()
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(5)]
        same([cursor.fetchone()[0] for cursor in cursors], list(range(5)))
    with psycopg.connect(parts, autocommit=True) as connection:
        endless = "SELECT count(*) FROM generate_series(1, 10000000000) a(x) WHERE x % 7 = 8"
        threading.Timer(1.0, connection.cancel).start()
        began = time.monotonic()
        try:
            connection.execute(endless)
            raise AssertionError("an endless query ended")
        except errors.QueryCanceled as error:
            assert "user request" in str(error), error
        assert time.monotonic() - began < 15, "cancelled late"
        same(connection.execute("SELECT 2").fetchone(), (2,))


def sqlalchemy_reflects():
    engine = sa.create_engine(f"postgresql+psycopg://rebound@127.0.0.1:{port}/rebound")
    inspector = sa.inspect(engine)
    tables = inspector.get_table_names()
    assert {"events", "probes", "incidents", "recoveries", "services"} <= set(tables), tables
    same(inspector.get_view_names(), [])
    columns = {column["name"]: column for column in inspector.get_columns("incidents")}
    same(str(columns["mttr_seconds"]["type"]), "DOUBLE PRECISION")
    same(str(columns["service"]["type"]), "TEXT")
    same(columns["first_failure_at"]["type"].timezone, True)
    same(inspector.get_pk_constraint("incidents")["constrained_columns"], [])
    same(inspector.get_foreign_keys("incidents"), [])
    same(inspector.get_indexes("incidents"), [])
    assert "Time to recover" in columns["mttr_seconds"]["comment"], columns["mttr_seconds"]
    assert inspector.get_table_comment("incidents")["text"].startswith("One row an incident")
    metadata = sa.MetaData()
    metadata.reflect(engine, only=["incidents"])
    incidents = metadata.tables["incidents"]
    with engine.connect() as connection:
        by_service = (
            sa.select(incidents.c.service, sa.func.count(), sa.func.max(incidents.c.mttr_seconds))
            .where(incidents.c.first_failure_at >= datetime(2025, 1, 1, tzinfo=timezone.utc))
            .group_by(incidents.c.service)
            .order_by(incidents.c.service)
        )
        found = connection.execute(by_service).all()
        same([(service, count) for service, count, _ in found], [("api", 20), ("db", 20)])
        limited = sa.select(incidents).order_by(incidents.c.mttr_seconds.desc()).limit(5).offset(2)
        same(len(connection.execute(limited).all()), 5)


psycopg_asks()
sqlalchemy_reflects()
print("good")
