//! The listener as strangers meet it: over TLS, with a token; and what it shows to Prometheus.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Running, fails};

const TOKEN: &str = "a-token-of-some-length";

/// Status and body of a request by curl, which trusts the certificate and nothing else.
fn curl(folder: &Path, url: &str, more: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--cacert", "cert.pem", "-w", "\n%{http_code}"])
        .args(more)
        .arg(url)
        .current_dir(folder)
        .output()
        .expect("curl runs: install it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = said.rsplit_once('\n').unwrap_or_else(|| panic!("no answer: {output:?}"));
    assert_ne!(status, "000", "{url}: {output:?}");
    (status.parse().expect("a status"), body.to_owned())
}

fn write_certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).expect("written");
}

const SETTINGS: &str = "[http]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\ntoken_file = \"token\"\n";

#[test]
fn it_speaks_tls_and_asks_for_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificate(folder.path());
    std::fs::write(folder.path().join("rebound.toml"), SETTINGS).expect("written");
    // Reachable from other machines: allowed with TLS and a token.
    let arguments = ["up", "--config", "rebound.toml", "--data", "data"];
    let rebound = Running::start_on("0.0.0.0", folder.path(), "a", &arguments, &[]);
    let url = |path: &str| format!("https://localhost:{}{path}", rebound.port);
    crate::support::wait_for("readiness over TLS", || {
        let output = Command::new("curl")
            .args(["-sf", "--max-time", "5", "--cacert", "cert.pem", &url("/readyz")])
            .current_dir(folder.path())
            .output();
        output.ok()?.status.success().then_some(())
    });
    let bearer = format!("authorization: Bearer {TOKEN}");
    let event = r#"{"specversion":"1.0","id":"1","source":"t","type":"dev.rebound.resource.measured.v1","subject":"api","time":"2026-01-01T00:00:00Z","data":{"resource":"cpu","utilization":0.5}}"#;
    let post = ["-H", "content-type: application/cloudevents+json", "-d", event];
    for path in ["/metrics", "/api/v1/services"] {
        assert_eq!(curl(folder.path(), &url(path), &[]).0, 401, "{path} without a token");
        let wrong = ["-H", "authorization: Bearer a-token-of-same-length"];
        assert_eq!(curl(folder.path(), &url(path), &wrong).0, 401, "{path} with a wrong one");
        assert_eq!(curl(folder.path(), &url(path), &["-H", &bearer]).0, 200, "{path} with the token");
    }
    assert_eq!(curl(folder.path(), &url("/v1/events"), &post).0, 401);
    let (status, body) = curl(folder.path(), &url("/v1/events"), &[&post[..], &["-H", &bearer]].concat());
    assert_eq!(status, 202, "{body}");
    assert_eq!(curl(folder.path(), &url("/healthz"), &[]).0, 200, "health is everybody's");
    // Plain HTTP gets no answer.
    assert!(!matches!(rebound.get("/healthz"), Some((200, _))), "it answers without TLS");
    assert_eq!(rebound.stop(), Some(0));
}

#[test]
fn other_machines_need_both_tls_and_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificate(folder.path());
    let open = "[http]\nlisten = \"0.0.0.0:0\"\n";
    let (tls, token) = ("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n", "token_file = \"token\"\n");
    for settings in [open.to_owned(), format!("{open}{tls}"), format!("{open}{token}")] {
        std::fs::write(folder.path().join("rebound.toml"), &settings).expect("written");
        let said = fails(&["up", "--config", "rebound.toml"], folder.path(), 1);
        assert!(said.contains("other machines") && said.contains("token_file"), "{settings}{said}");
    }
    for (file, bad, says) in [("token", "short", "16 characters"), ("key.pem", "no key", "tls_key")] {
        write_certificate(folder.path());
        std::fs::write(folder.path().join(file), bad).expect("written");
        std::fs::write(folder.path().join("rebound.toml"), format!("{open}{tls}{token}")).expect("written");
        let said = fails(&["up", "--config", "rebound.toml"], folder.path(), 1);
        assert!(said.contains(says), "{file}: {said}");
    }
}

/// `promtool check metrics` over the classic text of every role.
#[test]
fn promtool_likes_the_metrics() {
    let there = Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        let _ = writeln!(std::io::stderr(), "PROMTOOL NOT RUN: /metrics was not checked (Debian: prometheus)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/minimal/plan.toml");
    let plan = plan.to_str().expect("a path");
    let rebound = Running::start(folder.path(), "a", &["up", "--plan", plan, "--data", "data"], &[]).ready();
    let metrics = crate::support::wait_for("metrics of the services", || {
        rebound.get("/metrics").map(|(_, text)| text).filter(|text| text.contains("rebound_service"))
    });
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    promtool.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{metrics}");
    assert_eq!(rebound.stop(), Some(0));
}

/// A refusal reaches a client that is still sending: over HTTP/2 it would see a broken stream, over HTTP/1.1 a reset.
#[test]
fn what_is_refused_early_is_told_whoever_is_still_sending() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificate(folder.path());
    std::fs::write(folder.path().join("rebound.toml"), SETTINGS).expect("written");
    std::fs::write(folder.path().join("1m"), vec![b'x'; 1 << 20]).expect("written");
    std::fs::write(folder.path().join("10m"), vec![b'x'; 10 << 20]).expect("written");
    let rebound = Running::start(folder.path(), "a", &["run", "intake", "--config", "rebound.toml"], &[]);
    crate::support::wait_for("the listener", || {
        let connected = std::net::TcpStream::connect(("127.0.0.1", rebound.port));
        connected.ok()
    });
    let bearer = format!("authorization: Bearer {TOKEN}");
    let (token, none) = (["-H", bearer.as_str()], ["-H", "accept: */*"]);
    let event = ["-H", "content-type: application/cloudevents+json"];
    let chunked = ["-H", "content-length:", "-H", "transfer-encoding: chunked"];
    for (status, path, what) in [
        (401, "/v1/events", [&none[..], &event].concat()),
        (404, "/nowhere", token.to_vec()),
        (405, "/v1/events", [&token[..], &["-X", "PUT"]].concat()),
        (405, "/healthz", none.to_vec()),
        (413, "/v1/events", [&token[..], &event].concat()),
        (413, "/v1/events", [&token[..], &event, &chunked].concat()),
        (415, "/v1/events", [&token[..], &event, &["-H", "content-encoding: gzip"]].concat()),
        (415, "/v1/events", [&token[..], &["-H", "content-type: text/html"]].concat()),
        (400, "/v1/events", [&token[..], &event].concat()),
    ] {
        // Within the limit of a body, or beyond it.
        let sizes: &[&str] = match (status, what.last()) {
            (413, _) => &["@10m"],
            (400, _) | (415, Some(&"content-type: text/html")) => &["@1m"],
            _ => &["@1m", "@10m"],
        };
        for (size, version) in sizes.iter().flat_map(|size| [(size, "--http2"), (size, "--http1.1")]) {
            let url = format!("https://localhost:{}{path}", rebound.port);
            let arguments = [&what[..], &[version, "--data-binary", size]].concat();
            let (answered, body) = curl(folder.path(), &url, &arguments);
            assert_eq!(answered, status, "{version} {size} {path} {what:?}: {body}");
        }
    }
    assert_eq!(rebound.stop(), Some(0));
}

/// Back-pressure too: bodies that were announced and don't come fill the room.
#[test]
fn who_is_put_off_is_told_over_http_2_too() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("1m"), vec![b'x'; 1 << 20]).expect("written");
    std::fs::write(folder.path().join("cert.pem"), "").expect("written");
    let rebound = Running::start(folder.path(), "a", &["run", "intake", "--data", "data"], &[]).ready();
    let announced: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", rebound.port)).expect("a connection");
            let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n ", 4 << 20).expect("sent");
            stream
        })
        .collect();
    let url = format!("http://127.0.0.1:{}/v1/events", rebound.port);
    let arguments =
        ["--http2-prior-knowledge", "-i", "--data-binary", "@1m", "-H", "content-type: application/x-ndjson"];
    // Until all of them are being read.
    let told = crate::support::wait_for("back-pressure", || {
        let (status, told) = curl(folder.path(), &url, &arguments);
        (status == 429).then_some(told)
    });
    assert!(told.contains("retry-after: 2") && told.contains("post it again later"), "{told}");
    drop(announced);
    assert_eq!(rebound.stop(), Some(0));
}
