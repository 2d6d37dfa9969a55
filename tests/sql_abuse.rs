//! What strangers might do to the PostgreSQL listener, said to the socket itself: nonsense, far too much, for ever, and
//! leaving in the middle of it. Each is told what is wrong where it can be, and afterwards the server answers as before.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::sql::{Serving, history};
use crate::support::wait_for;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 10000000000) a(x) WHERE x % 7 = 8";

/// One connection, message by message.
struct Wire {
    stream: TcpStream,
    /// Process id and secret, for a cancel request.
    key: Vec<u8>,
}

/// An error as it was told: severity, code, message, hint.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    severity: String,
    code: String,
    message: String,
    hint: String,
}

impl Wire {
    fn open(port: u16) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
        stream
    }

    /// Begins; an error where it is not let in.
    fn begin(port: u16) -> Result<Self, Told> {
        let mut wire = Self { stream: Self::open(port), key: Vec::new() };
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        body.extend(b"user\0rebound\0database\0rebound\0\0");
        wire.stream.write_all(&[&(body.len() as i32 + 4).to_be_bytes()[..], &body].concat()).expect("sent");
        loop {
            match wire.message() {
                Some((b'E', body)) => return Err(told(&body)),
                Some((b'K', body)) => wire.key = body,
                Some((b'Z', _)) => return Ok(wire),
                Some(_) => {}
                None => return Err(Told { message: "hung up".into(), ..Told::default() }),
            }
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).expect("a length").to_be_bytes();
        // A server that has hung up is found out when its answer is read.
        let _ = self.stream.write_all(&[&[kind][..], &length, body].concat());
    }

    /// The next message: its kind and its body; `None` when the other side has hung up.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).ok()?;
        let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length - 4).expect("a length")];
        self.stream.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// Sends a simple query.
    fn query(&mut self, sql: &str) {
        self.send(b'Q', format!("{sql}\0").as_bytes());
    }

    /// What comes until the server is ready again: rows as their first column, or an error.
    fn answer(&mut self) -> Result<Vec<String>, Told> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            match self.message() {
                Some((b'D', body)) => {
                    let length = i32::from_be_bytes(body[2..6].try_into().expect("four bytes"));
                    let cell = usize::try_from(length).map_or(&[][..], |length| &body[6..6 + length]);
                    rows.push(String::from_utf8_lossy(cell).into_owned());
                }
                Some((b'E', body)) => error = Some(told(&body)),
                Some((b'Z', _)) => break error.map_or(Ok(rows), Err),
                Some(_) => {}
                None => break Err(error.unwrap_or_else(|| Told { message: "hung up".into(), ..Told::default() })),
            }
        }
    }

    fn asks(&mut self, sql: &str) -> Result<Vec<String>, Told> {
        self.query(sql);
        self.answer()
    }

    /// Has what runs here cancelled, by a connection of its own that leaves at once.
    fn cancel(&self, port: u16) {
        let mut other = Self::open(port);
        let request = [&16_i32.to_be_bytes()[..], &80_877_102_i32.to_be_bytes(), &self.key].concat();
        other.write_all(&request).expect("sent");
    }
}

fn told(body: &[u8]) -> Told {
    let mut told = Told::default();
    for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
        let text = String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            b'S' => told.severity = text,
            b'C' => told.code = text,
            b'M' => told.message = text,
            b'H' => told.hint = text,
            _ => {}
        }
    }
    told
}

/// That the server still answers somebody new.
fn answers(port: u16) {
    let mut wire = Wire::begin(port).expect("a connection");
    assert_eq!(wire.asks("SELECT count(*) FROM incidents"), Ok(vec!["40".to_owned()]));
}

#[test]
fn wrong_statements_are_told_with_code_and_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    let mut wire = Wire::begin(serving.port).expect("a connection");
    let long = format!("SELECT '{}'", "x".repeat(10 << 20));
    let many = "SELECT 1;".repeat(65);
    let deep = format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000));
    for (sql, code, says) in [
        ("SELECT * FROM incident", "42P01", "there is no table incident · did you mean incidents?"),
        ("SELECT * FROM \"/etc/passwd\"", "42P01", "there is no table /etc/passwd · there are events"),
        ("SELECT mttr_second FROM incidents", "42703", "there is no column mttr_second · did you mean mttr_seconds?"),
        ("SELECT km_medien(1.0, true)", "42883", "there is no function km_medien · did you mean km_median?"),
        ("SELEC 1", "42601", "SELEC"),
        ("SELECT * FROM read_csv('/etc/passwd')", "42883", "read_csv"),
        ("SELECT pg_read_file('/etc/passwd')", "42883", "there is no function pg_read_file"),
        ("INSERT INTO incidents SELECT * FROM incidents", "25006", "INSERT is not allowed · SQL here only reads"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "", ""),
        ("CREATE TABLE t AS SELECT 1", "25006", "CREATE is not allowed"),
        ("COPY incidents TO '/tmp/x'", "25006", "COPY is not allowed"),
        ("COPY (SELECT 1) TO PROGRAM 'id'", "", ""),
        ("SELECT 1 INTO t", "25006", "not allowed"),
        ("EXPLAIN ANALYZE DELETE FROM incidents", "25006", "DELETE is not allowed"),
        (
            "SET datafusion.runtime.memory_limit = '100G'",
            "42704",
            "there is no setting datafusion.runtime.memory_limit",
        ),
        ("SET rebound.as_of = 'yesterday'", "22023", "write a time as in '2026-01-31T00:00:00Z'"),
        ("SET statement_timeout = 'long'", "22023", "'30s'"),
        ("SHOW nothing_of_the_kind", "42704", "SHOW ALL lists"),
        ("SELECT 1/0", "22012", "Divide by zero"),
        ("SELECT 'x'::int", "22P02", "'x'"),
        ("SELECT repeat('x', 1000000000)", "42883", "there is no function repeat"),
        (&long, "54001", "a statement has at most 65536 bytes, this one has 10485769"),
        (&many, "54001", "a query has at most 64 statements, this one has 65"),
        (&deep, "", ""),
    ] {
        let error = wire.asks(sql).expect_err(sql);
        let text = format!("{} · {}", error.message, error.hint);
        assert!(code.is_empty() || error.code == code, "{sql:.80}: {error:?}");
        assert!(text.contains(says) && error.severity == "ERROR", "{sql:.80}: {error:?}");
        assert_eq!(wire.asks("SELECT 1"), Ok(vec!["1".to_owned()]), "after {sql:.80}");
    }
    // Several statements are answered one after the other; the first that is wrong ends them.
    assert_eq!(wire.asks("SELECT 1; SELECT 2"), Ok(vec!["1".to_owned(), "2".to_owned()]));
    let error = wire.asks("SELECT 1; DROP TABLE incidents; SELECT 2").expect_err("a write");
    assert_eq!(error.code, "25006");
    // But a prepared statement is one.
    wire.send(b'P', b"\0SELECT 1; SELECT 2\0\0\0");
    wire.send(b'S', b"");
    let error = wire.answer().expect_err("two statements");
    assert_eq!((error.code.as_str(), error.message.contains("one statement")), ("42601", true), "{error:?}");
    for n in 0..1_001 {
        wire.send(b'P', format!("s{n}\0SELECT 1\0\0\0").as_bytes());
    }
    wire.send(b'S', b"");
    let error = wire.answer().expect_err("more statements than are kept");
    assert_eq!(error.code, "53400", "{error:?}");
    assert_eq!(wire.asks("DEALLOCATE ALL; SELECT 1"), Ok(vec!["1".to_owned()]));
    answers(serving.port);
}

#[test]
fn what_is_endless_or_huge_is_stopped_and_what_is_too_long_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let limits =
        [("REBOUND_SQL__TIMEOUT", "4s"), ("REBOUND_SQL__MEMORY", "33554432"), ("REBOUND_SQL__MAX_ROWS", "10000")];
    let serving = Serving::start(folder.path(), &limits);
    let mut wire = Wire::begin(serving.port).expect("a connection");
    // The log is read for the first time, which may take longer than a statement has here.
    let figure = |wire: &mut Wire| wire.asks("SELECT count(*) FROM incidents").ok();
    assert_eq!(wait_for("the log", || figure(&mut wire)), ["40"]);
    let series = "generate_series(1, 10000000000)";
    let cross = format!("SELECT count(*) FROM {series} a(x), {series} b(y), {series} c(z) WHERE x + y = z");
    let hog = format!("SELECT array_agg(x) FROM {series} a(x)");
    let rows = format!("SELECT x FROM {series} a(x)");
    for (sql, code, says) in [
        (ENDLESS, &["57014"][..], "the query was stopped after 4 s · narrow it down, or raise [sql] timeout"),
        (&cross, &["57014", "53200"], "raise [sql]"),
        (&hog, &["53200", "57014"], "raise [sql]"),
        (&rows, &["54000"], "the answer has more than 10000 rows · aggregate, add a LIMIT, or raise [sql] max_rows"),
    ] {
        let error = wire.asks(sql).expect_err(sql);
        let text = format!("{} · {}", error.message, error.hint);
        assert!(code.contains(&error.code.as_str()) && text.contains(says), "{sql:.80}: {error:?}");
        assert_eq!(wait_for("an answer", || figure(&mut wire)), ["40"], "after {sql:.80}");
    }
    // A shorter time may be asked for, not a longer one.
    assert_eq!(wire.asks("SET statement_timeout = '200ms'"), Ok(vec![]));
    let error = wire.asks(ENDLESS).expect_err("an endless query");
    assert!(error.message.contains("stopped after 0.2 s"), "{error:?}");
    assert_eq!(wire.asks("SET statement_timeout = '1h'"), Ok(vec![]));
    let error = wire.asks(ENDLESS).expect_err("an endless query");
    assert!(error.message.contains("stopped after 4 s"), "{error:?}");
    answers(serving.port);
}

#[test]
fn what_is_cancelled_stops_and_what_nobody_waits_for_does_too() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    // A timeout that would let them run for longer than the test.
    let serving =
        Serving::start(folder.path(), &[("REBOUND_SQL__TIMEOUT", "10m"), ("REBOUND_SQL__MAX_CONNECTIONS", "2")]);
    let mut wire = Wire::begin(serving.port).expect("a connection");
    let began = Instant::now();
    // One that has given no row yet, and one that gives them as fast as they are taken.
    for sql in [ENDLESS, "SELECT x, x + 1 AS y, x + 2 AS z FROM generate_series(1, 900000) a(x)"] {
        wire.query(sql);
        std::thread::sleep(Duration::from_millis(500));
        wire.cancel(serving.port);
        let error = wire.answer().expect_err("a cancelled query");
        assert_eq!((error.code.as_str(), error.message.contains("user request")), ("57014", true), "{error:?}");
        assert_eq!(wire.asks("SELECT 1"), Ok(vec!["1".to_owned()]));
    }
    // A secret that is not known cancels nothing.
    let key = std::mem::replace(&mut wire.key, vec![0; 8]);
    wire.cancel(serving.port);
    assert_eq!(wire.asks("SELECT 1"), Ok(vec!["1".to_owned()]));
    wire.key = key;
    // Both places are taken by queries without end; when their clients vanish, there is room again.
    let mut other = Wire::begin(serving.port).expect("a connection");
    other.query(ENDLESS);
    wire.query(ENDLESS);
    std::thread::sleep(Duration::from_millis(300));
    let full = Wire::begin(serving.port).err().expect("there is no room");
    assert_eq!((full.severity.as_str(), full.code.as_str()), ("FATAL", "53300"), "{full:?}");
    assert!(
        full.message.contains("all 2 connections are taken") && full.message.contains("max_connections"),
        "{full:?}"
    );
    wire.stream.shutdown(Shutdown::Both).expect("shut");
    drop(other);
    wait_for("a place", || Wire::begin(serving.port).ok().map(drop));
    answers(serving.port);
    assert!(began.elapsed() < Duration::from_secs(300), "they were not stopped but ran out of time");
}

#[test]
fn two_hundred_connections_are_let_in_or_told_why_not() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[("REBOUND_SQL__MAX_CONNECTIONS", "20")]);
    let mut held = Vec::new();
    let mut full = 0;
    for _ in 0..200 {
        match Wire::begin(serving.port) {
            Ok(wire) => held.push(wire),
            Err(error) => {
                assert_eq!(error.code, "53300", "{error:?}");
                full += 1;
            }
        }
    }
    assert_eq!((held.len(), full), (20, 180));
    for wire in &mut held {
        assert_eq!(wire.asks("SELECT count(*) FROM incidents"), Ok(vec!["40".to_owned()]));
    }
    // Nonsense, and silence, take no place for long.
    let mut nonsense = Wire::open(serving.port);
    nonsense.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let _ = nonsense.read(&mut [0; 64]);
    drop(held);
    wait_for("a place", || Wire::begin(serving.port).ok().map(drop));
    let mut wire = Wire::begin(serving.port).expect("a connection");
    wire.send(b'?', b"what");
    let error = wire.answer().expect_err("nonsense");
    assert_eq!(error.code, "08P01", "{error:?}");
    // A message that claims to be larger than any may be.
    let mut wire = Wire::begin(serving.port).expect("a connection");
    wire.stream.write_all(&[&b"Q"[..], &0x3fff_0000_i32.to_be_bytes()].concat()).expect("sent");
    let chunk = vec![b'x'; 1 << 20];
    let taken = (0..64).take_while(|_| wire.stream.write_all(&chunk).is_ok()).count();
    assert!(taken < 64, "64 MiB of one message were taken");
    answers(serving.port);
}

#[test]
fn when_it_stops_what_runs_ends_and_the_others_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    let mut idle = Wire::begin(serving.port).expect("a connection");
    let mut busy = Wire::begin(serving.port).expect("a connection");
    busy.query("SELECT count(*) FROM generate_series(1, 10000000) a(x) WHERE x % 7 = 3");
    std::thread::sleep(Duration::from_millis(500));
    serving.rebound.signal(nix::sys::signal::Signal::SIGTERM);
    let told = idle.answer().expect_err("a farewell");
    assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "57P01"), "{told:?}");
    assert_eq!(busy.answer(), Ok(vec!["1428572".to_owned()]));
    assert_eq!(serving.rebound.stop(), Some(0));
}
