//! SQL as others ask it: real clients over the PostgreSQL protocol, HTTP, and what strangers might try.
//!
//! psql, psycopg with SQLAlchemy, and JDBC are run where they are installed (`tests/sql/clients.sh` fetches the last
//! two); a line says what was not. What no client would do is said to the socket itself, in `tests/sql_abuse.rs`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Running, fails, free_port, succeeds};

/// A log of 40 incidents of 1 to 40 minutes, of two services in turn.
pub(crate) fn history(folder: &Path) {
    let rows: String = (1..=40)
        .map(|n| {
            let service = if n % 2 == 0 { "api" } else { "db" };
            format!("T{n},{service},2025-03-{:02} 10:00,2025-03-{:02} 10:{n:02}\n", n % 28 + 1, n % 28 + 1)
        })
        .collect();
    std::fs::write(folder.join("i.csv"), format!("id,service,opened,resolved\n{rows}")).expect("a file");
    let told = succeeds(&["import", "incidents", "i.csv"], folder);
    assert!(told.contains("40 new"), "{told}");
}

/// `rebound serve` and the port where it speaks the PostgreSQL protocol.
pub(crate) struct Serving {
    pub(crate) rebound: Running,
    pub(crate) port: u16,
}

impl Serving {
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::running(folder, &["serve"], settings)
    }

    fn running(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let environment = [settings, &[("REBOUND_SQL__LISTEN", listen.as_str())]].concat();
        Self { rebound: Running::start(folder, "sql", arguments, &environment).ready(), port }
    }

    /// psql with these arguments.
    fn psql(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        Command::new("psql")
            .args(["-X", "-h", "127.0.0.1", "-U", "rebound", "-d", "rebound", "-v", "ON_ERROR_STOP=1"])
            .args(["-v", "VERBOSITY=verbose", "-p", &self.port.to_string()])
            .args(arguments)
            .envs(environment.iter().copied())
            .env("PGCONNECT_TIMEOUT", "20")
            .output()
            .expect("psql runs")
    }

    /// What psql prints for a command that must succeed.
    fn asks(&self, command: &str) -> String {
        let output = self.psql(&[], &["-c", command]);
        let said = text(&output);
        assert!(output.status.success(), "{command}: {said}");
        said
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Says, past the harness's capture, what was not run for want of a client.
fn not_run(what: &str, remedy: &str) {
    let _ = writeln!(std::io::stderr(), "SQL CLIENT NOT RUN: {what} ({remedy})");
}

fn has_psql() -> bool {
    let there = Command::new("psql").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        not_run("psql", "install Debian's postgresql-client");
    }
    there
}

#[test]
fn psql_sees_tables_columns_functions_and_what_they_mean() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    for (command, shows) in [
        (r"\d", &["public | incidents", "public | recovery_steps"][..]),
        (r"\dt", &["public | events", "| table |"]),
        (r"\dt+", &["One row an event of any kind"]),
        (r"\d incidents", &["mttr_seconds", "double precision", "timestamp with time zone", "bigint"]),
        (r"\d+ incidents", &["Time to recover, t3 − t0, in seconds."]),
        (r"\df", &["km_median", "lasted_seconds, recovered", "double precision", "agg", "rto_met"]),
        (r"\df time_bucket", &["width, at"]),
        (r"\dn", &["public"]),
        (r"\l", &["rebound"]),
        (r"\du", &[""]),
        (r"\dv", &[""]),
        (r"\di", &[""]),
        (r"\dT", &[""]),
        (r"\dp incidents", &["incidents"]),
        (r"\conninfo", &["connected to database \"rebound\""]),
        (r"\encoding", &["UTF8"]),
    ] {
        let said = serving.asks(command);
        assert!(shows.iter().all(|part| said.contains(part)), "{command}: {said}");
    }
    let said = serving.asks("SELECT count(*), median(mttr_seconds) FROM incidents");
    assert!(said.contains("| 1230.0") && said.contains("(1 row)"), "{said}");
    let said = serving.asks("SHOW server_version");
    assert!(said.contains("15."), "{said}");
    assert_eq!(serving.rebound.stop(), Some(0));
}

#[test]
fn what_tools_ask_is_answered() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    for tool in ["analyst", "grafana", "metabase", "dbeaver"] {
        let file = format!("{}/tests/data/sql/{tool}.sql", env!("CARGO_MANIFEST_DIR"));
        let output = serving.psql(&[], &["-A", "-f", &file]);
        let said = text(&output);
        assert!(output.status.success(), "{tool}: {said}");
        let shows: &[&str] = match tool {
            "analyst" => &["PostgreSQL 15", "|t|rebound|", "2025-03-01 00:00:00.000000+00|40|2166.0", "none\n0\n"],
            "grafana" => &["incidents\n", "mttr_seconds|double precision", "first_failure_at|timestamp with time zone"],
            "metabase" => &["public|incidents|TABLE|One row an incident"],
            _ => &["PostgreSQL 15"],
        };
        assert!(shows.iter().all(|part| said.contains(part)), "{tool}: {said}");
    }
}

#[test]
fn psycopg_and_sqlalchemy_work() {
    let Some(python) = std::env::var_os("REBOUND_TEST_PYTHON") else {
        return not_run("psycopg and SQLAlchemy", "set REBOUND_TEST_PYTHON, see tests/sql/clients.sh");
    };
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql/clients.py");
    let output = Command::new(python).args([script, &serving.port.to_string()]).output().expect("python runs");
    assert!(output.status.success() && text(&output).ends_with("good\n"), "{}", text(&output));
}

#[test]
fn jdbc_works() {
    let Some(driver) = std::env::var_os("REBOUND_TEST_JDBC") else {
        return not_run("JDBC", "set REBOUND_TEST_JDBC, see tests/sql/clients.sh");
    };
    if !Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success()) {
        return not_run("JDBC", "install a JDK");
    }
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[]);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql/Jdbc.java");
    let output = Command::new("java").arg("-cp").arg(driver).args([program, &serving.port.to_string()]).output();
    let output = output.expect("java runs");
    assert!(output.status.success() && text(&output).ends_with("good\n"), "{}", text(&output));
}

#[test]
fn a_password_and_tls_are_asked_for_where_they_are_set() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    history(path);
    std::fs::write(path.join("password"), "correct horse battery\n").expect("written");
    let serving = Serving::start(path, &[("REBOUND_SQL__PASSWORD_FILE", "password")]);
    let (right, wrong) = (("PGPASSWORD", "correct horse battery"), ("PGPASSWORD", "correct horse batterz"));
    let said = text(&serving.psql(&[right], &["-Atc", "SELECT count(*) FROM incidents"]));
    assert_eq!(said, "40\n");
    for (environment, user) in [(&[wrong][..], "rebound"), (&[right], "somebody")] {
        let output = serving.psql(environment, &["-U", user, "-Atc", "SELECT 1"]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).to_lowercase().contains("password authentication failed"), "{}", text(&output));
    }
    // Nor is it asked for in the clear.
    let scram = serving.psql(&[right, ("PGREQUIREAUTH", "scram-sha-256")], &["-Atc", "SELECT 1"]);
    assert_eq!(text(&scram), "1\n");
    drop(serving);

    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).expect("a certificate");
    std::fs::write(path.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(path.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(
        path.join("rebound.toml"),
        "[http]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n[sql]\npassword_file = \"password\"\n",
    )
    .expect("written");
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["serve", "--config", "rebound.toml", "--listen", &listen];
    let serving = Serving { rebound: Running::start(path, "tls", &arguments, &[]), port };
    let certificate = path.join("cert.pem");
    let checked = [right, ("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", certificate.to_str().expect("a path"))];
    let localhost = ["-h", "localhost", "-Atc", "SELECT count(*) FROM incidents"];
    crate::support::wait_for("TLS", || (text(&serving.psql(&checked, &localhost)) == "40\n").then_some(()));
    let plain = text(&serving.psql(&[right, ("PGSSLMODE", "disable")], &["-Atc", "SELECT 1"]));
    assert!(plain.contains("this server speaks TLS only") && plain.contains("sslmode=require"), "{plain}");
    assert_eq!(serving.rebound.stop(), Some(0));
}

#[test]
fn it_refuses_to_be_open_to_other_machines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let said = fails(&["serve", "--listen", "0.0.0.0:5433"], path, 1);
    assert!(said.contains("other machines") && said.contains("password_file") && said.contains("127.0.0.1"), "{said}");
    std::fs::write(path.join("password"), "short\n").expect("written");
    std::fs::write(path.join("rebound.toml"), "[sql]\npassword_file = \"password\"\n").expect("written");
    let port = free_port().to_string();
    let listen = format!("127.0.0.1:{port}");
    let said = fails(&["serve", "--config", "rebound.toml", "--listen", &listen], path, 1);
    assert!(said.contains("at least 12 characters"), "{said}");
    let taken = std::net::TcpListener::bind(&listen).expect("a port");
    let said = fails(&["serve", "--listen", &listen], path, 1);
    assert!(said.contains("[sql] listen") && said.contains("choose another port"), "{said}");
    drop(taken);
}

#[test]
fn http_answers_in_every_format_and_tells_errors_with_their_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    history(folder.path());
    let serving = Serving::start(folder.path(), &[("REBOUND_SQL__MAX_ROWS", "50"), ("REBOUND_SQL__TIMEOUT", "5s")]);
    let url = format!("http://127.0.0.1:{}/v1/sql", serving.rebound.port);
    let ask = |accept: &str, body: &str, content_type: &str| {
        let headers = [format!("accept: {accept}"), format!("content-type: {content_type}")];
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "60", "-H", &headers[0], "-H", &headers[1], "--data-binary", "@-"])
            .args(["-w", "\n%{http_code}", &url])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                child.stdin.take().expect("piped").write_all(body.as_bytes())?;
                child.wait_with_output()
            })
            .expect("curl runs: install it");
        let split = output.stdout.iter().rposition(|byte| *byte == b'\n').expect("a status");
        let status = String::from_utf8_lossy(&output.stdout[split + 1..]).into_owned();
        (status, output.stdout[..split].to_vec())
    };
    let sql = "SELECT service, count(*) AS n, max(mttr_seconds) AS longest FROM incidents GROUP BY 1 ORDER BY 1";
    // The log is read for the first time, which may take longer than a statement has here.
    let warm = || (ask("application/json", sql, "text/plain").0 == "200").then_some(());
    crate::support::wait_for("the log", warm);
    let (status, body) = ask("application/json", sql, "text/plain");
    let rows: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status.as_str(), &rows[0]["service"], &rows[0]["n"]), ("200", &"api".into(), &20.into()));
    let (_, body) = ask("application/x-ndjson", sql, "text/plain");
    assert_eq!(String::from_utf8_lossy(&body).lines().count(), 2);
    let (_, body) = ask("text/csv", sql, "text/plain");
    assert_eq!(String::from_utf8_lossy(&body), "service,n,longest\napi,20,2400.0\ndb,20,2340.0\n");
    let (_, body) = ask("application/vnd.apache.arrow.stream", sql, "text/plain");
    let reader = arrow::ipc::reader::StreamReader::try_new(body.as_slice(), None).expect("an Arrow stream");
    assert_eq!(reader.map(|batch| batch.expect("a batch").num_rows()).sum::<usize>(), 2);
    let (_, body) = ask("application/vnd.apache.parquet", sql, "text/plain");
    assert!(body.starts_with(b"PAR1") && body.ends_with(b"PAR1"));
    let as_of = r#"{"query": "SELECT count(*) AS n FROM incidents", "as_of": "2020-01-01T00:00:00Z"}"#;
    assert_eq!(ask("*/*", as_of, "application/json").1, b"[{\"n\":0}]\n");

    let endless = "SELECT count(*) FROM generate_series(1, 10000000000) a(x) WHERE x % 7 = 8";
    let long = format!("SELECT 1 /* {} */", "x".repeat(10 << 20));
    for (sql, status, code, says) in [
        ("SELECT * FROM incident", "400", "42P01", "did you mean incidents?"),
        ("SELECT mttr_second FROM incidents", "400", "42703", "did you mean mttr_seconds?"),
        ("SELECT 1; SELECT 2", "400", "42601", "exactly one statement"),
        ("DELETE FROM incidents", "403", "25006", "SQL here only reads"),
        ("COPY incidents TO '/tmp/x'", "403", "25006", "SQL here only reads"),
        ("SELECT * FROM generate_series(1, 51)", "422", "54000", "add a LIMIT"),
        ("SELECT 1/0", "400", "22012", "Divide by zero"),
        (endless, "504", "57014", "raise [sql] timeout"),
        (&long, "400", "54001", "at most 65536 bytes"),
    ] {
        let (found, body) = ask("application/json", sql, "text/plain");
        let error: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let told = format!("{} {}", error["message"], error["hint"]);
        assert_eq!((found.as_str(), error["code"].as_str()), (status, Some(code)), "{sql:.80}: {error}");
        assert!(told.contains(says), "{sql:.80}: {error}");
    }
    let (status, body) = ask("image/png", sql, "text/plain");
    assert!(status == "406" && String::from_utf8_lossy(&body).contains("text/csv"));
    let (status, body) = ask("*/*", r#"{"sql": "SELECT 1"}"#, "application/json");
    assert!(status == "400" && String::from_utf8_lossy(&body).contains("unknown field"));
    assert_eq!(ask("text/csv", "SELECT 1 AS one", "text/plain").1, b"one\n1\n");
}

#[test]
fn a_running_rebound_answers_too_and_before_there_is_a_log() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path(), &[]);
    assert!(serving.asks(r"\d incidents").contains("mttr_seconds"), "what there will be is known before");
    let output = serving.psql(&[], &["-c", "SELECT count(*) FROM incidents"]);
    let said = text(&output);
    assert!(said.contains("58P01: there is no event log at") && said.contains("HINT:  start a log writer"), "{said}");
    drop(serving);
    let serving = Serving::running(folder.path(), &["up"], &[]);
    let event = r#"{"specversion":"1.0","id":"1","source":"t","type":"dev.rebound.resource.measured.v1","subject":"api","time":"2026-01-01T00:00:00Z","data":{"resource":"cpu","utilization":0.5}}"#;
    assert_eq!(
        serving.rebound.post("/v1/events", "application/cloudevents+json", event).map(|(code, _)| code),
        Some(202)
    );
    crate::support::wait_for("the event", || {
        let said = text(&serving.psql(&[], &["-Atc", "SELECT kind FROM events WHERE service = 'api'"]));
        (said == "resource.measured\n").then_some(())
    });
    let (status, body) =
        serving.rebound.post("/v1/sql", "text/plain", "SELECT count(*) AS n FROM events").expect("an answer");
    assert!(status == 200 && body.contains("[{\"n\":1}]"), "{status} {body}");
    assert_eq!(serving.rebound.stop(), Some(0));
}
