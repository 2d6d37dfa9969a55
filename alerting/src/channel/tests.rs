//! Deliveries to real servers: HTTP ones that fail in every way, and a small SMTP relay over TCP.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rebound_schemas::event::{Severity, Told, Transition};
use rebound_schemas::plan::{MailTls, SecretRef};
use rebound_schemas::{AlertId, IncidentId, PolicyId, ServiceId};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::notify::Member;

pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn member() -> Member {
    let told = Told {
        alert: AlertId::new("alr-1").unwrap(),
        incident: IncidentId::new("inc-1").unwrap(),
        transition: Transition::Raised,
        repeat: 0,
    };
    Member {
        told,
        service: ServiceId::new("api").unwrap(),
        name: "API gateway".into(),
        tier: "tier-1".into(),
        site: "primary".into(),
        policy: PolicyId::new("default").unwrap(),
        condition: None,
        severity: Severity::Critical,
        title: "api is down\r\nBcc: all@example.com".into(),
        reason: "connection refused <!channel>".into(),
        by: None,
        doing: "It runs procedure restart (rec-1, attempt 1).".into(),
        ask: String::new(),
        first_failure_at: DateTime::from_timestamp(1_772_000_000, 0).unwrap(),
        recovered_at: None,
        at: DateTime::from_timestamp(1_772_000_030, 0).unwrap(),
    }
}

pub(super) fn of(members: Vec<Member>) -> Notice {
    Notice {
        dedup_key: "ntf-abc".into(),
        channel: ChannelId::new("pager").unwrap(),
        route: None,
        plan: None,
        round: 0,
        over: Default::default(),
        members,
    }
}

pub(super) fn notice() -> Notice {
    of(vec![member()])
}

pub(super) fn plain(text: &str) -> SecretRef {
    SecretRef::Plain(text.into())
}

pub(super) fn configured(kind: ChannelKind, timeout: Duration, attempts: u32) -> plan::Channel {
    let id = ChannelId::new("pager").unwrap();
    plan::Channel { id, kind, timeout, attempts, rate: None, templates: plan::Templates::default() }
}

pub(super) fn channel(kind: ChannelKind, timeout: Duration, attempts: u32) -> Result<Channel, ChannelError> {
    let made = Channel::new(&configured(kind, timeout, attempts), &kafka::unconnected)?;
    Ok(made.with_first_wait(Duration::from_millis(1)))
}

fn webhook(url: &str, attempts: u32) -> Channel {
    let kind = ChannelKind::Webhook { url: plain(url), secret: Some(plain("signing-key")), allow_private: true };
    channel(kind, LONG, attempts).unwrap()
}

/// Status, body, `Retry-After`.
pub(super) type Answer = (u16, &'static str, Option<&'static str>);

/// What a server answers in turn (the last for ever), and what it was sent.
#[derive(Clone, Default)]
pub(super) struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pub(super) received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Script {
    async fn answer(State(script): State<Self>, headers: HeaderMap, body: Bytes) -> Response {
        script.received.lock().unwrap().push((headers, body));
        let mut answers = script.answers.lock().unwrap();
        let (status, body, after) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] };
        let status = StatusCode::from_u16(status).unwrap();
        let mut response = (status, body).into_response();
        if let Some(after) = after {
            response.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        if status.is_redirection() {
            response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
        }
        response
    }

    pub(super) async fn serve(answers: &[Answer]) -> (String, Self) {
        let script = Self::default();
        script.answers.lock().unwrap().extend(answers);
        let app = Router::new().fallback(post(Self::answer)).with_state(script.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks/very-secret-token", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, script)
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_webhook_is_signed_over_what_is_received() {
    let (url, script) = Script::serve(&[(204, "", None)]).await;
    assert_eq!(webhook(&url, 3).deliver(&notice()).await, Delivery::Sent { attempt: 1 });
    let (headers, body) = script.received.lock().unwrap()[0].clone();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let timestamp: i64 = header("x-rebound-timestamp").parse().unwrap();
    let secret = secret::Secret::load(&plain("signing-key")).unwrap();
    assert_eq!(header("x-rebound-signature"), http::signature(&secret, timestamp, &body));
    assert!((Utc::now().timestamp() - timestamp).abs() < 600);
    assert_eq!((header("idempotency-key"), header("content-type")), ("ntf-abc".into(), "application/json".into()));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["transition"], "raised");
    assert_eq!(
        (&json["service"], &json["severity"], &json["dedup_key"]),
        (&"api".into(), &"critical".into(), &"ntf-abc".into())
    );
    assert_eq!(json["first_failure_at"], "2026-02-25T06:13:20.000Z");
}

#[tokio::test]
async fn slack_gets_its_own_shape_and_no_signature() {
    let (url, script) = Script::serve(&[(200, "ok", None)]).await;
    let kind = ChannelKind::Slack { url: plain(&url), allow_private: true };
    assert_eq!(channel(kind, LONG, 1).unwrap().deliver(&notice()).await, Delivery::Sent { attempt: 1 });
    let (headers, body) = script.received.lock().unwrap()[0].clone();
    assert!(!headers.contains_key("x-rebound-signature"));
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(json["text"].as_str().unwrap().starts_with("api is down"));
    assert_eq!(json["attachments"][0]["color"], "danger");
    let text = json["attachments"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with(
            "What:    connection refused &lt;!channel&gt;\nWhere:   API gateway (api), tier-1, at primary\n"
        ),
        "{text}"
    );
    assert!(!json.to_string().contains("<!"), "{json}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_final() {
    let cases: &[(&[Answer], Result<u32, u32>)] = &[
        (&[(500, "", None), (503, "", None), (200, "", None)], Ok(3)),
        (&[(429, "", None), (200, "", None)], Ok(2)),
        (&[(408, "", None), (200, "", None)], Ok(2)),
        (&[(500, "", None)], Err(4)),
        (&[(400, "", None)], Err(1)),
        (&[(404, "", Some("1"))], Err(1)),
        (&[(307, "", None)], Err(1)),
        (&[(429, "", Some("0")), (403, "", None)], Err(2)),
    ];
    for (answers, want) in cases {
        let (url, script) = Script::serve(answers).await;
        let made = match webhook(&url, 4).deliver(&notice()).await {
            Delivery::Sent { attempt } => Ok(attempt),
            Delivery::Failed { attempts, .. } => Err(attempts),
        };
        assert_eq!(made, *want, "{answers:?}");
        assert_eq!(script.count(), want.unwrap_or_else(|n| n) as usize, "{answers:?}");
        let keys: Vec<_> = script.received.lock().unwrap().iter().map(|r| r.0["idempotency-key"].clone()).collect();
        assert!(keys.iter().all(|key| key == "ntf-abc"));
    }
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let (url, script) = Script::serve(&[(503, "", Some("1")), (200, "", None)]).await;
    let before = Instant::now();
    assert_eq!(webhook(&url, 2).deliver(&notice()).await, Delivery::Sent { attempt: 2 });
    assert!(before.elapsed() >= Duration::from_secs(1), "it was asked again at once");
    assert_eq!(script.count(), 2);
}

#[tokio::test]
async fn errors_hold_no_secret_even_if_the_server_repeats_it() {
    let (url, _) = Script::serve(&[(403, "no /hooks/very-secret-token for\nsigning-key", None)]).await;
    let channel = webhook(&url, 1);
    let Delivery::Failed { attempts: 1, error } = channel.deliver(&notice()).await else { panic!("it was taken") };
    assert_eq!(error, "the server answered 403 Forbidden: no [redacted] for [redacted]");
    // Nobody listens: the client's own error would name the address.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/very-secret-token", listener.local_addr().unwrap());
    drop(listener);
    let unreachable = webhook(&url, 2);
    let Delivery::Failed { attempts: 2, error } = unreachable.deliver(&notice()).await else { panic!("it was taken") };
    assert!(error.contains("refused") && !error.contains("secret"), "{error}");
    for channel in [&channel, &unreachable] {
        let shown = format!("{channel:?}");
        assert!(!shown.contains("very-secret-token") && !shown.contains("signing-key"), "{shown}");
    }
    let failed = Delivery::Failed { attempts: 2, error }.event(&notice(), Utc::now());
    assert_eq!(failed.kind().as_str(), "notification.failed");
}

#[tokio::test]
async fn a_server_that_never_answers_or_never_stops_is_bounded() {
    let app = Router::new().route("/never", post(std::future::pending::<()>)).route(
        "/endless",
        post(|| async {
            let chunks = futures::stream::repeat(Ok::<_, std::fmt::Error>(Bytes::from_static(&[b'x'; 1024])));
            (StatusCode::BAD_REQUEST, axum::body::Body::from_stream(chunks))
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let kind =
        |path: &str| ChannelKind::Webhook { url: plain(&format!("{url}{path}")), secret: None, allow_private: true };
    let never = channel(kind("/never"), Duration::from_millis(200), 2).unwrap();
    let Delivery::Failed { attempts: 2, error } = never.deliver(&notice()).await else { panic!("it was taken") };
    assert_eq!(error, "there was no complete answer in time");
    let endless = channel(kind("/endless"), LONG, 1).unwrap();
    let Delivery::Failed { error, .. } = endless.deliver(&notice()).await else { panic!("it was taken") };
    assert!(error.len() <= MAX_ERROR_BYTES, "{} bytes", error.len());
}

#[tokio::test]
async fn private_addresses_are_refused_by_number_and_by_name() {
    let guarded =
        |url: &str| channel(ChannelKind::Webhook { url: plain(url), secret: None, allow_private: false }, LONG, 1);
    for url in ["http://127.0.0.1/", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/", "http://0x7f.1/"] {
        let error = guarded(url).unwrap_err();
        assert_eq!(error.part, "url");
        assert!(error.to_string().contains("allow_private"), "{error}");
    }
    let (url, script) = Script::serve(&[(200, "", None)]).await;
    let named = guarded(&url.replace("127.0.0.1", "localhost")).unwrap();
    let Delivery::Failed { error, .. } = named.deliver(&notice()).await else { panic!("it was taken") };
    assert!(error.contains("a loopback address"), "{error}");
    assert_eq!(script.count(), 0);
}

#[tokio::test]
async fn missing_secrets_are_named_by_place() {
    let url = SecretRef::Env("REBOUND_TEST_NOT_SET".into());
    let error = channel(ChannelKind::Slack { url, allow_private: false }, LONG, 1).unwrap_err();
    let want = "channel pager: url: the environment variable REBOUND_TEST_NOT_SET is not set";
    assert_eq!(error.to_string(), want);
    assert_eq!(channel(ChannelKind::Log, LONG, 1).unwrap().deliver(&notice()).await, Delivery::Sent { attempt: 1 });
}

/// A relay that takes mail, or answers `refusal` to `RCPT` for the first `refusals` times; gives what it was told.
pub(super) async fn relay(refusal: &'static str, refusals: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        let mut refusals = refusals;
        while let Ok((mut stream, _)) = listener.accept().await {
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 relay ESMTP\r\n").await.unwrap();
            let mut data = false;
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = match line.split(' ').next().unwrap_or_default() {
                    "." if data => {
                        data = false;
                        "250 queued"
                    }
                    _ if data => "",
                    "EHLO" => "250-relay\r\n250 AUTH PLAIN",
                    "AUTH" if refusal.starts_with("535") => refusal,
                    "AUTH" => "235 welcome",
                    "RCPT" if refusals > 0 => {
                        refusals -= 1;
                        refusal
                    }
                    "DATA" => {
                        data = true;
                        "354 go on"
                    }
                    "QUIT" => "221 bye",
                    _ => "250 ok",
                };
                // A server that likes to repeat what it was asked.
                let answer = answer.replace("{line}", &line);
                heard.lock().unwrap().push(line);
                if !answer.is_empty() && write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (server, told)
}

fn mail(server: &str, password: Option<&str>, attempts: u32) -> Channel {
    let kind = ChannelKind::Email {
        server: server.into(),
        tls: MailTls::None,
        ca_file: None,
        from: "Rebound <rebound@example.com>".into(),
        to: vec!["ops@example.com".into(), "Ann <ann@example.com>".into()],
        user: password.map(|_| "me".into()),
        password: password.map(plain),
    };
    channel(kind, LONG, attempts).unwrap()
}

#[tokio::test]
async fn a_mail_reaches_every_receiver_once_and_its_headers_can_not_be_forged() {
    let (server, told) = relay("", 0).await;
    assert_eq!(mail(&server, None, 1).deliver(&notice()).await, Delivery::Sent { attempt: 1 });
    let told = told.lock().unwrap().clone();
    let receivers: Vec<_> = told.iter().filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(receivers, ["RCPT TO:<ops@example.com>", "RCPT TO:<ann@example.com>"]);
    let has = |start: &str| told.iter().any(|line| line.starts_with(start));
    assert!(has("Subject: [critical] api is down"), "{told:?}");
    assert!(has("Message-ID: <ntf-abc@example.com>") && has("References: <alr-1@example.com>"), "{told:?}");
    assert!(has("Auto-Submitted: auto-generated") && has("Incident: inc-1"), "{told:?}");
    assert!(!has("Bcc"), "a title made a header: {told:?}");
}

#[tokio::test]
async fn a_relay_that_is_busy_is_tried_again_and_one_that_refuses_is_not() {
    let (server, _) = relay("451 busy", 2).await;
    assert_eq!(mail(&server, None, 3).deliver(&notice()).await, Delivery::Sent { attempt: 3 });
    let (server, _) = relay("550 no such user", 9).await;
    let Delivery::Failed { attempts: 1, error } = mail(&server, None, 3).deliver(&notice()).await else {
        panic!("it was taken")
    };
    assert!(error.contains("no such user"), "{error}");
    let (server, told) = relay("535 what is {line}", 0).await;
    let channel = mail(&server, Some("hunter2"), 3);
    let Delivery::Failed { attempts: 1, error } = channel.deliver(&notice()).await else { panic!("it was taken") };
    let sent = told.lock().unwrap().iter().find(|line| line.starts_with("AUTH")).unwrap().clone();
    let credentials = sent.rsplit(' ').next().unwrap();
    assert!(error.contains("[redacted]") && !error.contains(credentials), "{error}");
    assert!(!format!("{channel:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_plans_channels_deliver_and_one_that_is_gone_is_told() {
    let (url, script) = Script::serve(&[(200, "", None)]).await;
    let text = format!(
        r#"
[[channel]]
id = "pager"
kind = "webhook"
url = "{url}"
allow_private = true
[[service]]
id = "api"
[[service.probe]]
tcp = "127.0.0.1:1"
"#
    );
    let channels = Channels::new(&Plan::parse(&text, "plan.toml").unwrap(), &kafka::unconnected).unwrap();
    let event = channels.deliver(&notice()).await;
    assert_eq!((event.kind().as_str(), event.id.as_str()), ("notification.sent", "ntf-abc:sent"));
    assert_eq!(rebound_schemas::decode(&rebound_schemas::encode(&event)), Ok(event));
    assert_eq!(script.count(), 1);
    let gone = Notice { channel: ChannelId::new("fax").unwrap(), ..notice() };
    let rebound_schemas::EventData::NotificationFailed(failed) = channels.deliver(&gone).await.data else {
        panic!("nobody could have taken it")
    };
    assert_eq!((failed.attempts, failed.error.as_str()), (0, "the plan has no channel fax any more"));
}
