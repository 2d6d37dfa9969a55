//! The intake as a service: requests in, answers and bus records out; the bus is in memory, and slow or away at will.

use super::*;
use crate::memory_bus::MemoryBus;
use rebound_schemas::Kind;
use serde_json::{Value, json};
use tower::ServiceExt;

fn event(id: u32, kind: Kind, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id.to_string(), "source": "test", "type": kind.type_name(),
           "subject": "api", "time": "2026-03-01T11:00:00Z", "data": data})
}

fn measured(id: u32) -> Value {
    event(id, Kind::ResourceMeasured, json!({"resource": "disk", "utilization": 0.5}))
}

fn intake(bus: &Arc<MemoryBus>, change: impl FnOnce(&mut IntakeSettings)) -> (axum::Router, Registry) {
    let mut settings = IntakeSettings::default();
    change(&mut settings);
    let mut registry = Registry::default();
    let metrics = IntakeMetrics::new(&mut registry);
    (router(Intake::new(bus.clone(), settings, metrics)), registry)
}

fn request(path: &str, content_type: &str, body: impl Into<Body>) -> Request {
    let request = Request::post(path).header(header::CONTENT_TYPE, content_type);
    request.body(body.into()).unwrap()
}

const BATCH: &str = "application/cloudevents-batch+json";
const ONE: &str = "application/cloudevents+json";

async fn answer(router: &axum::Router, request: Request) -> (u16, HeaderMap, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap_or_default())
}

async fn status(router: &axum::Router, request: Request) -> u16 {
    answer(router, request).await.0
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

#[tokio::test]
async fn every_event_gets_its_verdict_and_goes_to_its_topic() {
    let bus = Arc::new(MemoryBus::default());
    let (router, registry) = intake(&bus, |_| {});
    let mut wrong = measured(2);
    wrong["data"]["utilization"] = json!("half");
    let approved = event(3, Kind::RecoveryApproved, json!({"recovery": "rec-1", "by": "ann"}));
    let noted = event(4, Kind::IncidentAcknowledged, json!({"incident": "inc-1", "by": "ann"}));
    let forged = event(5, Kind::AlertResolved, json!({}));
    let body = json!([measured(1), wrong, approved, noted, forged]).to_string();
    let (code, _, verdicts) = answer(&router, request("/v1/events", BATCH, body)).await;
    assert_eq!(code, 207);
    assert_eq!((&verdicts["accepted"], &verdicts["rejected"]), (&json!(3), &json!(2)));
    let of = |index: usize| verdicts["events"][index].clone();
    assert_eq!(of(0), json!({"status": "accepted", "index": 0, "source": "test", "id": "1"}));
    assert_eq!((of(1)["status"].clone(), of(1)["pointer"].clone()), (json!("rejected"), json!("/data/utilization")));
    assert!(of(1)["expected"].as_str().unwrap().contains("resource.measured"));
    assert_eq!(of(4)["status"], "rejected");
    let ids = |topic| bus.events(topic).iter().map(|e| e.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(Topic::Observations), ["1"]);
    assert_eq!(ids(Topic::Alerts), ["4"]);
    assert_eq!(ids(Topic::Recoveries), ["3"]);
    assert!(bus.records().iter().all(|(_, record)| record.key == "api"));
    let text = metrics(&registry);
    assert!(text.contains("rebound_intake_events_total{result=\"accepted\"} 3"), "{text}");
    assert!(text.contains("rebound_intake_events_total{result=\"rejected\"} 2"), "{text}");
}

#[tokio::test]
async fn all_none_and_nothing() {
    let bus = Arc::new(MemoryBus::default());
    let (router, _) = intake(&bus, |_| {});
    assert_eq!(status(&router, request("/v1/events", ONE, measured(1).to_string())).await, 202);
    let (code, _, verdicts) = answer(&router, request("/v1/events", ONE, "{}")).await;
    assert_eq!((code, &verdicts["events"][0]["pointer"]), (400, &json!("/data")));
    assert_eq!(status(&router, request("/v1/events", BATCH, "[]")).await, 202, "nothing to take is taken");
    let (code, _, body) = answer(&router, request("/v1/events", BATCH, "[{]")).await;
    assert_eq!((code, &body["pointer"]), (400, &json!("")));
    assert!(body["expected"].as_str().unwrap().contains("array"));
    assert_eq!(bus.records().len(), 1);
}

#[tokio::test]
async fn alertmanager_is_mapped() {
    let bus = Arc::new(MemoryBus::default());
    let (router, _) = intake(&bus, |_| {});
    let alert = |label: &str| {
        json!({"status": "firing", "labels": {label: "api"}, "annotations": {}, "fingerprint": "f1",
               "startsAt": "2026-03-01T11:00:00Z", "endsAt": "0001-01-01T00:00:00Z"})
    };
    let body = json!({"version": "4", "alerts": [alert("service"), alert("job")]}).to_string();
    let (code, _, verdicts) = answer(&router, request("/v1/alertmanager", "application/json", body.clone())).await;
    assert_eq!((code, &verdicts["events"][1]["pointer"]), (207, &json!("/alerts/1/labels/service")));
    assert_eq!(bus.events(Topic::Alerts)[0].kind(), Kind::IncidentOpened);
    assert_eq!(status(&router, request("/v1/alertmanager", "text/plain", body)).await, 415);
}

#[tokio::test]
async fn the_token_is_asked_for() {
    let bus = Arc::new(MemoryBus::default());
    let (router, _) = intake(&bus, |s| s.token = Some(Token::new("s3cret")));
    let with = |value: &str| {
        let mut request = request("/v1/events", ONE, measured(1).to_string());
        if !value.is_empty() {
            request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        request
    };
    for wrong in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
        let (code, headers, _) = answer(&router, with(wrong)).await;
        assert_eq!((code, headers.get(header::WWW_AUTHENTICATE).is_some()), (401, true), "{wrong:?}");
    }
    assert_eq!(bus.records().len(), 0);
    assert_eq!(status(&router, with("bearer s3cret")).await, 202);
    assert_eq!(format!("{:?}", Token::new("s3cret")), "Token(…)");
}

#[tokio::test]
async fn what_is_too_much_or_another_type_is_refused() {
    let bus = Arc::new(MemoryBus::default());
    let (router, _) = intake(&bus, |s| (s.max_body_bytes, s.max_events) = (1000, 2));
    let large = " ".repeat(1001);
    assert_eq!(status(&router, request("/v1/events", ONE, large.clone())).await, 413, "no length was announced");
    let mut announced = request("/v1/events", ONE, "");
    announced.headers_mut().insert(header::CONTENT_LENGTH, "1001".parse().unwrap());
    assert_eq!(status(&router, announced).await, 413);
    assert_eq!(status(&router, request("/v1/events", BATCH, "[1,2,3]")).await, 413);
    assert_eq!(status(&router, request("/v1/events", "text/plain", "{}")).await, 415);
    let mut packed = request("/v1/events", ONE, "");
    packed.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(status(&router, packed).await, 415);
}

#[tokio::test(start_paused = true)]
async fn under_back_pressure_posting_is_put_off() {
    let bus = Arc::new(MemoryBus::slow(Duration::from_secs(5)));
    let (router, registry) = intake(&bus, |s| (s.max_body_bytes, s.max_in_flight_bytes) = (4096, 8192));
    let post = || request("/v1/events", ONE, measured(1).to_string());
    // Without a length, each counts as the largest body: two fill the room.
    let (a, b, c) = tokio::join!(answer(&router, post()), answer(&router, post()), answer(&router, post()));
    assert_eq!((a.0, b.0, c.0), (202, 202, 429));
    assert!(c.1.contains_key(header::RETRY_AFTER));
    assert_eq!(status(&router, post()).await, 202, "room again");
    bus.set_away(true);
    let (code, headers, body) = answer(&router, post()).await;
    assert_eq!((code, headers[header::RETRY_AFTER].to_str().unwrap()), (503, "2"));
    assert!(body["error"].as_str().unwrap().contains("post it again"));
    assert!(metrics(&registry).contains("rebound_intake_events_total{result=\"unavailable\"} 1"));
    bus.set_away(false);
    assert_eq!(status(&router, post()).await, 202);
}

#[tokio::test(start_paused = true)]
async fn a_bus_or_body_that_never_comes_is_not_waited_for() {
    let bus = Arc::new(MemoryBus::slow(Duration::from_secs(3600)));
    let (router, _) = intake(&bus, |_| {});
    assert_eq!(status(&router, request("/v1/events", ONE, measured(1).to_string())).await, 503);
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    assert_eq!(status(&router, request("/v1/events", ONE, Body::from_stream(never))).await, 408);
}
