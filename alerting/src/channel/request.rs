//! What a notice is in the words of each HTTP receiver: pure, one function a receiver.
//!
//! | receiver | format | drops repeats by | a group's message |
//! |---|---|---|---|
//! | webhook | Rebound's own | `dedup_key`, also as `Idempotency-Key` | one request with `members` |
//! | Slack, Teams | incoming webhook, Adaptive Card 1.4 | – (people) | one request |
//! | PagerDuty | Events API v2 | `dedup_key` = incident | a request a transition |
//! | Opsgenie | Alert API | `alias` = incident | a request a transition |
//! | Alertmanager | API v2 | the labels | one request, an alert a transition |

use chrono::TimeDelta;
use rebound_schemas::codec::format_time;
use rebound_schemas::event::{Severity, Transition};
use serde_json::{Value, json};

use super::secret::Secret;
use crate::notify::Notice;
use crate::procedure::shorten;

/// Whom a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Rebound,
    Slack,
    Teams,
    /// With the routing key.
    PagerDuty(Secret),
    /// With the API key.
    Opsgenie(Secret),
    Alertmanager,
}

/// A JSON body that is posted.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// Behind the channel's address.
    pub(crate) path: Option<String>,
    pub(crate) query: Option<&'static str>,
    pub(crate) body: Value,
}

impl Request {
    fn plain(body: Value) -> Self {
        Self { path: None, query: None, body }
    }
}

/// The requests that tell a notice, in order.
pub(crate) fn requests(shape: &Shape, notice: &Notice) -> Vec<Request> {
    match shape {
        Shape::Rebound => vec![Request::plain(rebound_body(notice))],
        Shape::Slack => vec![Request::plain(slack_body(notice))],
        Shape::Teams => vec![Request::plain(teams_body(notice))],
        Shape::PagerDuty(key) => {
            notice.current().iter().map(|one| Request::plain(pagerduty_body(key.expose(), one))).collect()
        }
        Shape::Opsgenie(_) => notice.current().iter().map(opsgenie).collect(),
        Shape::Alertmanager => {
            let alerts: Vec<Value> = notice.current().iter().map(alertmanager_alert).collect();
            if alerts.is_empty() {
                return Vec::new();
            }
            vec![Request { path: Some("/api/v2/alerts".into()), ..Request::plain(Value::Array(alerts)) }]
        }
    }
}

/// Rebound's own format.
pub(crate) fn rebound_body(notice: &Notice) -> Value {
    let mut body = json!({
        "version": 1,
        "dedup_key": notice.dedup_key,
        "transition": notice.transition,
        "repeat": notice.repeat,
        "severity": notice.severity,
        "service": notice.service,
        "title": notice.title,
        "reason": notice.reason,
        "alert": notice.alert,
        "incident": notice.incident,
        "policy": notice.policy,
        "channel": notice.channel,
        "first_failure_at": format_time(notice.first_failure_at),
        "at": format_time(notice.at),
        "plan": notice.plan,
    });
    if !notice.members.is_empty() {
        let member = |one: &Notice| {
            json!({
                "alert": one.alert,
                "incident": one.incident,
                "transition": one.transition,
                "repeat": one.repeat,
                "severity": one.severity,
                "service": one.service,
                "policy": one.policy,
                "title": one.title,
                "reason": one.reason,
                "first_failure_at": format_time(one.first_failure_at),
                "at": format_time(one.at),
            })
        };
        body["members"] = notice.singly().iter().map(member).collect();
    }
    body
}

/// Slack's three characters with a meaning are written as entities, so that a reason can't mention everybody.
fn slack_text(text: &str) -> String {
    shorten(text, 2000).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack_body(notice: &Notice) -> Value {
    let color = match (notice.transition, notice.severity) {
        (Transition::Resolved, _) => "good",
        (_, Severity::Critical) => "danger",
        (_, Severity::Warning) => "warning",
        (_, Severity::Info) => "#439fe0",
    };
    let field = |title: &str, value: &str| json!({ "title": title, "value": slack_text(value), "short": true });
    json!({
        "text": slack_text(&notice.title),
        "attachments": [{
            "color": color,
            "fallback": slack_text(&notice.title),
            "text": slack_text(&notice.reason),
            "fields": [
                field("Service", notice.service.as_str()),
                field("Severity", notice.severity.as_str()),
                field("Since", &format_time(notice.first_failure_at)),
                field("Incident", notice.incident.as_str()),
            ],
            "ts": notice.at.timestamp(),
        }],
    })
}

/// Adaptive Cards read Markdown in text blocks: what could make a link or a mention is taken for itself.
fn card_text(text: &str) -> String {
    let mut escaped = String::new();
    for c in shorten(text, 4000).chars() {
        if "\\`*_[]<>".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The message that a Teams workflow takes: one Adaptive Card.
fn teams_body(notice: &Notice) -> Value {
    let color = match (notice.transition, notice.severity) {
        (Transition::Resolved, _) => "Good",
        (_, Severity::Critical) => "Attention",
        (_, Severity::Warning) => "Warning",
        (_, Severity::Info) => "Accent",
    };
    let fact = |title: &str, value: &str| json!({ "title": title, "value": card_text(value) });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    {
                        "type": "TextBlock",
                        "text": card_text(&notice.title),
                        "size": "Large",
                        "weight": "Bolder",
                        "color": color,
                        "wrap": true,
                    },
                    { "type": "TextBlock", "text": card_text(&notice.reason), "wrap": true },
                    {
                        "type": "FactSet",
                        "facts": [
                            fact("Service", notice.service.as_str()),
                            fact("Severity", notice.severity.as_str()),
                            fact("Since", &format_time(notice.first_failure_at)),
                            fact("Incident", notice.incident.as_str()),
                        ],
                    },
                ],
            },
        }],
    })
}

/// An event of PagerDuty's Events API v2. One incident of Rebound is one of PagerDuty's.
fn pagerduty_body(key: &str, notice: &Notice) -> Value {
    let action = match notice.transition {
        Transition::Resolved => "resolve",
        Transition::Acknowledged => "acknowledge",
        Transition::Raised | Transition::Repeated | Transition::Escalated | Transition::Unacknowledged => "trigger",
    };
    json!({
        "routing_key": key,
        "event_action": action,
        "dedup_key": notice.incident,
        "client": "Rebound",
        "payload": {
            "summary": shorten(&notice.title, 1024),
            "source": notice.service,
            "severity": notice.severity,
            "timestamp": format_time(notice.at),
            "component": notice.service,
            "class": notice.policy,
            "custom_details": {
                "reason": shorten(&notice.reason, 4000),
                "transition": notice.transition,
                "alert": notice.alert,
                "first_failure_at": format_time(notice.first_failure_at),
                "notification": notice.dedup_key,
            },
        },
    })
}

/// A request of Opsgenie's Alert API. The alias is the incident, so that creating it again only counts.
fn opsgenie(notice: &Notice) -> Request {
    let on = |action: &str| Some(format!("/v2/alerts/{}/{action}", path_segment(notice.incident.as_str())));
    let query = Some("identifierType=alias");
    let note = json!({
        "source": "Rebound",
        "note": shorten(&format!("{}: {}", notice.title, notice.reason), 20_000),
    });
    match notice.transition {
        Transition::Resolved => Request { path: on("close"), query, body: note },
        Transition::Acknowledged => Request { path: on("acknowledge"), query, body: note },
        Transition::Escalated => Request { path: on("notes"), query, body: note },
        Transition::Raised | Transition::Repeated | Transition::Unacknowledged => {
            let priority = match notice.severity {
                Severity::Critical => "P1",
                Severity::Warning => "P3",
                Severity::Info => "P5",
            };
            let body = json!({
                "message": shorten(&notice.title, 130),
                "alias": notice.incident,
                "description": shorten(&notice.reason, 15_000),
                "entity": notice.service,
                "source": "Rebound",
                "priority": priority,
                "tags": [notice.severity],
                "details": {
                    "alert": notice.alert,
                    "policy": notice.policy,
                    "first_failure_at": format_time(notice.first_failure_at),
                },
            });
            Request { path: Some("/v2/alerts".into()), ..Request::plain(body) }
        }
    }
}

/// An id as one segment of a path.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// An alert of Alertmanager's API v2. Its labels are those of the raise for as long as it lasts, and by them
/// Alertmanager knows it again. It would resolve what it isn't told an end of after five minutes, so a firing alert
/// ends in a year unless Rebound says sooner.
fn alertmanager_alert(notice: &Notice) -> Value {
    let ends = match notice.transition {
        Transition::Resolved => notice.at,
        _ => notice.first_failure_at + TimeDelta::days(366),
    };
    json!({
        "labels": {
            "alertname": "ReboundServiceFailed",
            "service": notice.service,
            "severity": notice.severity,
            "policy": notice.policy,
            "incident": notice.incident,
        },
        "annotations": { "summary": notice.title, "description": shorten(&notice.reason, 4000) },
        "startsAt": format_time(notice.first_failure_at),
        "endsAt": format_time(ends),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_texts_can_not_mention_anybody() {
        assert_eq!(slack_text("<!channel> & co"), "&lt;!channel&gt; &amp; co");
    }

    #[test]
    fn cards_hold_no_links_and_paths_no_slashes() {
        assert_eq!(card_text("[x](http://e) <at>all</at>"), r"\[x\](http://e) \<at\>all\</at\>");
        assert_eq!(path_segment("inc/1 ä"), "inc%2F1%20%C3%A4");
    }
}
