//! What PagerDuty, Opsgenie, Teams, Alertmanager and programs are sent, in their documented formats.

use rebound_schemas::event::{Severity, Told, Transition};
use rebound_schemas::plan::{ChannelKind, SecretRef};
use rebound_schemas::{AlertId, IncidentId, ServiceId};
use serde_json::{Value, json};

use super::request::{Request, Shape, requests};
use super::secret::Secret;
use super::tests::{LONG, Script, channel, configured, member, notice, of, plain};
use super::words::Speech;
use super::{Delivery, Notice};
use crate::notify::Member;

fn key() -> Secret {
    Secret::load(&SecretRef::Plain("the-routing-key".into())).unwrap()
}

fn told(transition: Transition) -> Notice {
    let mut one = member();
    one.told.transition = transition;
    of(vec![Member { title: "api has failed".into(), reason: "connection refused".into(), ..one }])
}

/// A group's message: api was raised, db resolved.
fn group() -> Notice {
    let of_two = |n: u32, service: &str, transition| Member {
        told: Told {
            alert: AlertId::new(&format!("alr-{n}")).unwrap(),
            incident: IncidentId::new(&format!("inc-{n}")).unwrap(),
            transition,
            repeat: 0,
        },
        service: ServiceId::new(service).unwrap(),
        severity: Severity::Warning,
        title: format!("{service} {transition}"),
        ..member()
    };
    of(vec![of_two(1, "api", Transition::Raised), of_two(2, "db", Transition::Resolved)])
}

fn speaking(kind: &Shape) -> Speech {
    let kind = match kind {
        Shape::Slack => ChannelKind::Slack { url: plain("x"), allow_private: true },
        Shape::Teams => ChannelKind::Teams { url: plain("x"), allow_private: true },
        _ => ChannelKind::Log,
    };
    Speech::of(&configured(kind, LONG, 1))
}

fn all(shape: &Shape, notice: &Notice) -> Vec<Request> {
    requests(shape, &speaking(shape), notice)
}

fn only(shape: &Shape, notice: &Notice) -> Request {
    let mut all = all(shape, notice);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn pagerduty_is_sent_events_of_its_api_v2() {
    let shape = Shape::PagerDuty(key());
    let want = json!({
        "routing_key": "the-routing-key",
        "event_action": "trigger",
        "dedup_key": "inc-1",
        "client": "Rebound",
        "payload": {
            "summary": "api has failed",
            "source": "api",
            "severity": "critical",
            "timestamp": "2026-02-25T06:13:50.000Z",
            "component": "api",
            "class": "default",
            "custom_details": {
                "text": told(Transition::Raised).body(),
                "reason": "connection refused",
                "transition": "raised",
                "alert": "alr-1",
                "first_failure_at": "2026-02-25T06:13:20.000Z",
                "notification": "ntf-abc",
            },
        },
    });
    assert_eq!(only(&shape, &told(Transition::Raised)), Request { path: None, query: None, body: want });
    for (transition, action) in [
        (Transition::Repeated, "trigger"),
        (Transition::Escalated, "trigger"),
        (Transition::Demoted, "trigger"),
        (Transition::Unacknowledged, "trigger"),
        (Transition::Acknowledged, "acknowledge"),
        (Transition::Resolved, "resolve"),
    ] {
        assert_eq!(only(&shape, &told(transition)).body["event_action"], action);
    }
    for severity in Severity::ALL {
        let body = only(&shape, &of(vec![Member { severity: *severity, ..member() }])).body;
        assert!(["critical", "error", "warning", "info"].contains(&body["payload"]["severity"].as_str().unwrap()));
    }
    let both = all(&shape, &group());
    let said: Vec<_> = both.iter().map(|r| (r.body["dedup_key"].clone(), r.body["event_action"].clone())).collect();
    assert_eq!(said, [(json!("inc-1"), json!("trigger")), (json!("inc-2"), json!("resolve"))]);
}

#[test]
fn opsgenie_is_sent_alerts_by_alias() {
    let shape = Shape::Opsgenie(key());
    let create = only(&shape, &told(Transition::Raised));
    assert_eq!((create.path.as_deref(), create.query), (Some("/v2/alerts"), None));
    let want = json!({
        "message": "api has failed",
        "alias": "inc-1",
        "description": told(Transition::Raised).body(),
        "entity": "api",
        "source": "Rebound",
        "priority": "P1",
        "tags": ["critical"],
        "details": { "alert": "alr-1", "policy": "default", "first_failure_at": "2026-02-25T06:13:20.000Z" },
    });
    assert_eq!(create.body, want);
    for (transition, action) in [
        (Transition::Resolved, "close"),
        (Transition::Acknowledged, "acknowledge"),
        (Transition::Escalated, "notes"),
        (Transition::Demoted, "notes"),
    ] {
        let request = only(&shape, &told(transition));
        assert_eq!(request.path.unwrap(), format!("/v2/alerts/inc-1/{action}"));
        assert_eq!(request.query, Some("identifierType=alias"));
        assert_eq!(request.body["source"], "Rebound");
    }
    let long = of(vec![Member { title: "x".repeat(500), ..member() }]);
    assert!(only(&shape, &long).body["message"].as_str().unwrap().chars().count() <= 130);
}

#[test]
fn teams_is_sent_an_adaptive_card() {
    let body = only(&Shape::Teams, &told(Transition::Resolved)).body;
    assert_eq!(body["type"], "message");
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    assert_eq!((&card["body"][0]["text"], &card["body"][0]["color"]), (&json!("api has failed"), &json!("Good")));
    assert_eq!(card["body"][2]["facts"][0], json!({ "title": "Service", "value": "api" }));
}

#[test]
fn an_alertmanager_knows_the_resolve_by_the_labels_of_the_raise() {
    let alert = |transition| {
        let request = only(&Shape::Alertmanager, &told(transition));
        assert_eq!(request.path.as_deref(), Some("/api/v2/alerts"));
        request.body[0].clone()
    };
    let (raised, resolved) = (alert(Transition::Raised), alert(Transition::Resolved));
    assert_eq!(raised["labels"], resolved["labels"]);
    assert_eq!((&raised["startsAt"], &resolved["startsAt"]), (&resolved["startsAt"], &raised["startsAt"]));
    assert_eq!(resolved["endsAt"], "2026-02-25T06:13:50.000Z");
    assert_eq!(raised["endsAt"], "2027-02-26T06:13:20.000Z");
    assert_eq!(only(&Shape::Alertmanager, &group()).body.as_array().unwrap().len(), 2);
}

#[test]
fn a_late_retry_opens_nothing_again() {
    let over = [AlertId::new("alr-1").unwrap(), AlertId::new("alr-2").unwrap()].into();
    let late = Notice { over, round: 1, ..group() };
    for shape in [Shape::PagerDuty(key()), Shape::Opsgenie(key())] {
        let left = all(&shape, &late);
        assert_eq!(left.len(), 1, "the resolve of db, and not the raise of api: {left:?}");
    }
    assert_eq!(only(&Shape::Alertmanager, &late).body[0]["labels"]["service"], "db");
    let raise = Notice { over: late.over.clone(), ..told(Transition::Raised) };
    assert_eq!(all(&Shape::Alertmanager, &raise), []);
    assert_eq!(all(&Shape::Slack, &raise).len(), 1, "people are told what they missed");
}

#[test]
fn a_webhook_is_told_all_members_of_a_group() {
    let body = only(&Shape::Rebound, &group()).body;
    let members: Vec<_> = body["members"].as_array().unwrap().iter().map(|m| m["transition"].clone()).collect();
    assert_eq!(members, [json!("raised"), json!("resolved")]);
    assert!(only(&Shape::Rebound, &notice()).body.get("members").is_none());
}

#[tokio::test]
async fn keys_go_where_they_belong_and_into_no_error() {
    let (url, script) =
        Script::serve(&[(503, "", Some("0")), (202, "", None), (403, "bad key the-routing-key", None)]).await;
    let genie = ChannelKind::Opsgenie { key: plain("the-routing-key"), url: plain(&url), allow_private: true };
    let genie = channel(genie, LONG, 3).unwrap();
    assert_eq!(genie.deliver(&told(Transition::Resolved)).await, Delivery::Sent { attempt: 2 });
    let (headers, _) = script.received.lock().unwrap()[0].clone();
    assert_eq!(headers["authorization"], "GenieKey the-routing-key");
    let Delivery::Failed { attempts: 1, error } = genie.deliver(&notice()).await else { panic!("it was taken") };
    assert_eq!(error, "the server answered 403 Forbidden: bad key [redacted]");
    let pager = ChannelKind::PagerDuty { key: plain("the-routing-key"), url: plain(&url), allow_private: true };
    let pager = channel(pager, LONG, 1).unwrap();
    assert!(matches!(pager.deliver(&notice()).await, Delivery::Failed { attempts: 1, .. }));
    let (headers, body) = script.received.lock().unwrap().last().unwrap().clone();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["routing_key"], "the-routing-key");
    assert!(!headers.contains_key("authorization"));
    assert!(!format!("{genie:?}{pager:?}").contains("the-routing-key"));
    let private = ChannelKind::Alertmanager { url: plain("http://10.0.0.1:9093"), allow_private: false };
    assert!(channel(private, LONG, 1).unwrap_err().to_string().contains("allow_private"));
}

#[tokio::test]
async fn when_one_request_of_a_group_fails_all_are_sent_again() {
    let (url, script) = Script::serve(&[(202, "", None), (500, "", None), (202, "", None)]).await;
    let pager = ChannelKind::PagerDuty { key: plain("the-routing-key"), url: plain(&url), allow_private: true };
    assert_eq!(channel(pager, LONG, 3).unwrap().deliver(&group()).await, Delivery::Sent { attempt: 2 });
    let sent = script.received.lock().unwrap();
    let incidents: Vec<Value> =
        sent.iter().map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap()["dedup_key"].clone()).collect();
    assert_eq!(incidents, ["inc-1", "inc-2", "inc-1", "inc-2"]);
}

fn program(script: &str, timeout: std::time::Duration) -> super::Channel {
    let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
    channel(ChannelKind::Command { argv }, timeout, 1).unwrap()
}

#[tokio::test]
async fn a_program_reads_the_notice_and_its_exit_code_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notice.json");
    let taken = program(&format!("/bin/cat > {}; test -z \"$HOME\"", file.display()), LONG);
    assert_eq!(taken.deliver(&notice()).await, Delivery::Sent { attempt: 1 });
    let body: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&body["dedup_key"], &body["service"]), (&json!("ntf-abc"), &json!("api")));
    let refused = program("echo no pager; exit 3", LONG);
    let Delivery::Failed { attempts: 1, error } = refused.deliver(&notice()).await else { panic!("it was taken") };
    assert_eq!(error, "/bin/sh exited with 3: no pager");
    // It never reads, and what it is told is more than a pipe holds.
    let long = of(vec![Member { reason: "x".repeat(1 << 20), ..member() }]);
    assert_eq!(program("exit 0", LONG).deliver(&long).await, Delivery::Sent { attempt: 1 });
    let hangs = program("while :; do :; done", std::time::Duration::from_millis(200));
    let Delivery::Failed { error, .. } = hangs.deliver(&notice()).await else { panic!("it was taken") };
    assert!(error.contains("did not end within"), "{error}");
}
