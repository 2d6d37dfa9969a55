//! What each token's role may do over HTTP, and what events say of who it was.

use super::*;

/// Status, content type and body of a request by curl.
fn curl(url: &str, more: &[&str]) -> (u16, String, Value) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "-w", "\n%{content_type}\n%{http_code}"])
        .args(more)
        .arg(url)
        .output()
        .expect("curl runs: install it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut parts = said.rsplitn(3, '\n');
    let status = parts.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no answer: {output:?}"));
    let content_type = parts.next().unwrap_or_default().to_owned();
    let body = serde_json::from_str(parts.next().unwrap_or_default()).unwrap_or_default();
    (status, content_type, body)
}

const TOKENS: [(&str, &str, &str); 3] = [
    ("wall", "viewer", "viewers-token-0123"),
    ("ops", "operator", "operators-token-01"),
    ("root", "admin", "admins-token-01234"),
];

#[test]
fn each_role_may_do_what_it_may_and_events_say_who_it_was() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_plan(folder);
    let mut settings = String::new();
    for (name, role, text) in TOKENS {
        std::fs::write(folder.join(name), format!("{text}\n")).expect("written");
        let place = if name == "ops" { "env = \"OPS_TOKEN\"".to_owned() } else { format!("file = \"{name}\"") };
        settings += &format!("[[http.token]]\nname = \"{name}\"\nrole = \"{role}\"\n{place}\n");
    }
    std::fs::write(folder.join("rebound.toml"), settings).expect("written");
    let arguments = ["up", "--config", "rebound.toml", "--plan", "plan.toml", "--data", "data"];
    let up = Running::start(folder, "a", &arguments, &[("OPS_TOKEN", TOKENS[1].2)]).ready();
    let ask = |token: Option<&str>, method: &str, path: &str, body: Option<&Value>, more: &[&str]| {
        let bearer = token.map(|token| format!("authorization: Bearer {token}"));
        let body = body.map(Value::to_string);
        let mut arguments = vec!["-X", method];
        arguments.extend(bearer.iter().flat_map(|bearer| ["-H", bearer]));
        arguments.extend(body.iter().flat_map(|body| ["-H", "content-type: application/json", "-d", body]));
        arguments.extend(more);
        curl(&format!("http://127.0.0.1:{}{path}", up.port), &arguments)
    };
    let why = |more: Value| {
        let mut body = json!({ "comment": "a test" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let site = why(json!({ "site": "primary" }));
    // Method, path, body, and what viewer, operator and admin are answered.
    let promote = why(json!({ "procedure": "useless" }));
    let away = why(json!({ "what": "steady", "to": "nowhere" }));
    let table: [(&str, &str, Option<Value>, [u16; 3]); 18] = [
        ("GET", "/metrics", None, [200, 200, 200]),
        ("GET", "/api/v1/services", None, [200, 200, 200]),
        ("GET", "/api/v1/recoveries", None, [200, 200, 200]),
        ("GET", "/api/v1/recoveries/rec-none", None, [404, 404, 404]),
        ("POST", "/api/v1/recoveries/rec-none/approve", Some(why(json!({}))), [403, 404, 404]),
        ("POST", "/api/v1/recoveries/rec-none/reject", Some(why(json!({}))), [403, 404, 404]),
        ("POST", "/api/v1/recoveries/rec-none/cancel", Some(why(json!({}))), [403, 404, 404]),
        ("POST", "/api/v1/recoveries", Some(why(json!({ "target": "steady", "dry_run": true }))), [403, 201, 201]),
        (
            "POST",
            "/api/v1/recoveries",
            Some(why(json!({ "target": "steady", "dry_run": true, "force": ["pause"] }))),
            [403, 403, 201],
        ),
        ("POST", "/api/v1/promote", Some(promote), [403, 403, 409]),
        ("GET", "/api/v1/sites", None, [200, 200, 200]),
        ("GET", "/api/v1/move?what=steady&to=nowhere", None, [422, 422, 422]),
        ("GET", "/api/v1/requests/none", None, [404, 404, 404]),
        ("POST", "/api/v1/move", Some(away), [403, 422, 422]),
        ("POST", "/api/v1/pause", Some(site.clone()), [403, 202, 202]),
        ("POST", "/api/v1/resume", Some(site), [403, 202, 409]),
        ("POST", "/api/v1/pause", Some(why(json!({ "for": "1h" }))), [403, 202, 202]),
        ("POST", "/api/v1/resume", Some(why(json!({}))), [403, 403, 202]),
    ];
    for (method, path, body, answers) in &table {
        for (token, name) in [(None, "nobody"), (Some("a-token-of-no-one"), "a stranger")] {
            let (status, content_type, problem) = ask(token, method, path, body.as_ref(), &[]);
            assert_eq!((status, content_type.as_str()), (401, "application/problem+json"), "{method} {path} by {name}");
            assert!(problem["remedy"].as_str().is_some_and(|text| text.contains("Bearer")), "{problem}");
        }
        for ((name, role, token), want) in TOKENS.iter().zip(answers) {
            let (status, content_type, answer) = ask(Some(token), method, path, body.as_ref(), &[]);
            assert_eq!(status, *want, "{method} {path} by {name}: {answer}");
            if status >= 400 {
                assert_eq!(content_type, "application/problem+json", "{answer}");
                let told = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
                assert!(!told("detail").is_empty() && !told("remedy").is_empty(), "{answer}");
                assert!(status != 403 || told("detail").contains(role), "{answer}");
            }
        }
    }
    let operator = Some(TOKENS[1].2);
    // What can't be read, or says not why, is told so.
    let bad: [(Option<Value>, &[&str], u16); 6] = [
        (None, &["-H", "content-type: text/plain", "-d", "{}"], 415),
        (None, &["-H", "content-type: application/json", "-d", "{"], 422),
        (Some(json!({ "target": "steady" })), &[], 422),
        (Some(json!({ "target": "steady", "comment": "x", "what": 1 })), &[], 422),
        (Some(json!({ "target": "steady", "comment": "x", "force": ["gravity"] })), &[], 422),
        (Some(json!({ "target": "steady", "comment": "x" })), &["-H", "idempotency-key:  "], 201),
    ];
    for (body, more, want) in bad {
        let (status, _, answer) = ask(operator, "POST", "/api/v1/recoveries", body.as_ref(), more);
        assert_eq!(status, want, "{body:?} {more:?}: {answer}");
    }
    // Under a key the same is done once, and another thing not at all.
    let again = why(json!({ "target": "steady", "dry_run": true, "by": "ann" }));
    let key = ["-H", "idempotency-key: deploy-7"];
    let (status, _, first) = ask(operator, "POST", "/api/v1/recoveries", Some(&again), &key);
    assert_eq!((status, &first["repeated"]), (201, &json!(false)), "{first}");
    let (status, _, second) = ask(operator, "POST", "/api/v1/recoveries", Some(&again), &key);
    assert_eq!((status, &second["repeated"], &second["recovery"]), (201, &json!(true), &first["recovery"]));
    let (status, _, other) = ask(operator, "POST", "/api/v1/pause", Some(&why(json!({}))), &key);
    assert_eq!(status, 422, "{other}");
    // Nobody says it under another's name by the side door.
    let forged = json!({
        "specversion": "1.0", "id": "1", "source": "x", "type": "dev.rebound.recovery.paused.v1", "subject": "automation",
        "time": "2026-01-01T00:00:00Z", "data": { "by": "root", "reason": "x" },
    });
    let bearer = format!("authorization: Bearer {}", TOKENS[1].2);
    let header = "content-type: application/cloudevents+json";
    let url = format!("http://127.0.0.1:{}/v1/events", up.port);
    let (status, _, answer) = curl(&url, &["-H", &bearer, "-H", header, "-d", &forged.to_string()]);
    assert_eq!(status, 400);
    assert!(answer.to_string().contains("said under one's own name here"), "{answer}");
    // The command line shows the same token.
    let output = Command::new(program())
        .args(["recovery", "list", "--url", &format!("http://127.0.0.1:{}", up.port), "--token-file", "wall"])
        .current_dir(folder)
        .output()
        .expect("rebound runs");
    assert!(output.status.success(), "{output:?}");
    let who = wait_for("who it was in SQL", || {
        let rows = sql(folder, "SELECT data FROM events WHERE kind = 'recovery.requested' ORDER BY occurred_at");
        (rows.len() == 5).then_some(rows)
    });
    let by: Vec<String> = who
        .iter()
        .map(|row| {
            let data: Value = serde_json::from_str(row["data"].as_str().expect("a payload")).expect("JSON");
            data["by"].as_str().expect("who").to_owned()
        })
        .collect();
    assert_eq!(by, ["ops", "root", "root", "ops", "ops (for ann)"]);
    for (_, _, token) in TOKENS {
        assert!(!up.log().contains(token), "a token is in the log");
    }
    assert_eq!(up.stop(), Some(0));
}
