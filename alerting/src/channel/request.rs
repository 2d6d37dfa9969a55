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
use super::words::{Speech, Words};
use crate::notify::{Member, Notice};
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
pub(crate) fn requests(shape: &Shape, speech: &Speech, notice: &Notice) -> Vec<Request> {
    let words = || speech.words(notice);
    let singly = |request: &dyn Fn(&Notice, &Words) -> Request| {
        notice.current().iter().map(|one| request(one, &speech.words(one))).collect()
    };
    match shape {
        Shape::Rebound => vec![Request::plain(webhook_body(notice, words()))],
        Shape::Slack => vec![Request::plain(slack_body(notice, &words()))],
        Shape::Teams => vec![Request::plain(teams_body(notice, &words()))],
        Shape::PagerDuty(key) => singly(&|one, words| Request::plain(pagerduty_body(key.expose(), one, words))),
        Shape::Opsgenie(_) => singly(&opsgenie),
        Shape::Alertmanager => {
            let alerts: Vec<Value> =
                notice.current().iter().map(|one| alertmanager_alert(one, &speech.words(one))).collect();
            if alerts.is_empty() {
                return Vec::new();
            }
            vec![Request { path: Some("/api/v2/alerts".into()), ..Request::plain(Value::Array(alerts)) }]
        }
    }
}

fn webhook_body(notice: &Notice, words: Words) -> Value {
    match words.json {
        Some(json) => json,
        None => rebound_body(notice, &words),
    }
}

/// Rebound's own format. What stands directly in it is the first change's, except for title, text and severity,
/// which speak of all; `members` is there when there are several.
pub(crate) fn rebound_body(notice: &Notice, words: &Words) -> Value {
    let mut body = member_body(notice, notice.first());
    body["version"] = json!(1);
    body["dedup_key"] = json!(notice.dedup_key);
    body["channel"] = json!(notice.channel);
    body["route"] = json!(notice.route);
    body["plan"] = json!(notice.plan);
    body["severity"] = json!(notice.severity());
    body["title"] = json!(words.title);
    body["text"] = json!(words.body);
    body["reason"] = json!(notice.reason());
    if !words.own.is_empty() {
        body["fields"] = json!(words.own);
    }
    if notice.members.len() > 1 {
        body["members"] = notice.members.iter().map(|member| member_body(notice, member)).collect();
    }
    body
}

fn member_body(notice: &Notice, member: &Member) -> Value {
    json!({
        "dedup_key": member.key(&notice.channel),
        "alert": member.told.alert,
        "incident": member.told.incident,
        "transition": member.told.transition,
        "repeat": member.told.repeat,
        "severity": member.severity,
        "service": member.service,
        "name": member.name,
        "tier": member.tier,
        "site": member.site,
        "policy": member.policy,
        "condition": member.condition,
        "title": member.title,
        "reason": member.reason,
        "doing": member.doing,
        "ask": member.ask,
        "first_failure_at": format_time(member.first_failure_at),
        "recovered_at": member.recovered_at.map(format_time),
        "at": format_time(member.at),
    })
}

fn slack_body(notice: &Notice, words: &Words) -> Value {
    let color = match (notice.is_over(), notice.severity()) {
        (true, _) => "good",
        (_, Severity::Critical) => "danger",
        (_, Severity::Warning) => "warning",
        (_, Severity::Info) => "#439fe0",
    };
    let fields: Vec<Value> =
        words.fields.iter().map(|(name, value)| json!({ "title": name, "value": value, "short": true })).collect();
    json!({
        "text": words.title,
        "attachments": [{
            "color": color,
            "fallback": words.title,
            "text": words.body,
            "fields": fields,
            "ts": notice.first().at.timestamp(),
        }],
    })
}

/// The message that a Teams workflow takes: one Adaptive Card.
fn teams_body(notice: &Notice, words: &Words) -> Value {
    let color = match (notice.is_over(), notice.severity()) {
        (true, _) => "Good",
        (_, Severity::Critical) => "Attention",
        (_, Severity::Warning) => "Warning",
        (_, Severity::Info) => "Accent",
    };
    let facts: Vec<Value> = words.fields.iter().map(|(name, value)| json!({ "title": name, "value": value })).collect();
    // A card joins lines unless a blank one stands between them.
    let text = words.body.replace("\n\n", "\n").replace('\n', "\n\n");
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
                        "text": words.title,
                        "size": "Large",
                        "weight": "Bolder",
                        "color": color,
                        "wrap": true,
                    },
                    { "type": "TextBlock", "text": text, "wrap": true },
                    { "type": "FactSet", "facts": facts },
                ],
            },
        }],
    })
}

/// An event of PagerDuty's Events API v2. One incident of Rebound is one of PagerDuty's.
fn pagerduty_body(key: &str, notice: &Notice, words: &Words) -> Value {
    let one = notice.first();
    let action = match one.told.transition {
        Transition::Resolved => "resolve",
        Transition::Acknowledged => "acknowledge",
        Transition::Raised
        | Transition::Repeated
        | Transition::Escalated
        | Transition::Demoted
        | Transition::Unacknowledged => "trigger",
    };
    let mut details = json!({
        "text": shorten(&words.body, 4000),
        "reason": shorten(&one.reason, 4000),
        "transition": one.told.transition,
        "alert": one.told.alert,
        "first_failure_at": format_time(one.first_failure_at),
        "notification": notice.dedup_key,
    });
    for (name, value) in &words.own {
        details[name] = json!(value);
    }
    json!({
        "routing_key": key,
        "event_action": action,
        "dedup_key": one.told.incident,
        "client": "Rebound",
        "payload": {
            "summary": shorten(&words.title, 1024),
            "source": one.service,
            "severity": one.severity,
            "timestamp": format_time(one.at),
            "component": one.service,
            "class": one.condition.as_deref().unwrap_or(one.policy.as_str()),
            "custom_details": details,
        },
    })
}

/// A request of Opsgenie's Alert API. The alias is the incident, so that creating it again only counts.
fn opsgenie(notice: &Notice, words: &Words) -> Request {
    let one = notice.first();
    let on = |action: &str| Some(format!("/v2/alerts/{}/{action}", path_segment(one.told.incident.as_str())));
    let query = Some("identifierType=alias");
    let note = json!({
        "source": "Rebound",
        "note": shorten(&format!("{}\n{}", words.title, words.body), 20_000),
    });
    match one.told.transition {
        Transition::Resolved => Request { path: on("close"), query, body: note },
        Transition::Acknowledged => Request { path: on("acknowledge"), query, body: note },
        Transition::Escalated | Transition::Demoted => Request { path: on("notes"), query, body: note },
        Transition::Raised | Transition::Repeated | Transition::Unacknowledged => {
            let priority = match one.severity {
                Severity::Critical => "P1",
                Severity::Warning => "P3",
                Severity::Info => "P5",
            };
            let mut details = json!({
                "alert": one.told.alert,
                "policy": one.policy,
                "first_failure_at": format_time(one.first_failure_at),
            });
            for (name, value) in &words.own {
                details[name] = json!(value);
            }
            let body = json!({
                "message": shorten(&words.title, 130),
                "alias": one.told.incident,
                "description": shorten(&words.body, 15_000),
                "entity": one.service,
                "source": "Rebound",
                "priority": priority,
                "tags": [one.severity],
                "details": details,
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
fn alertmanager_alert(notice: &Notice, words: &Words) -> Value {
    let one = notice.first();
    let ends = match one.told.transition {
        Transition::Resolved => one.at,
        _ => one.first_failure_at + TimeDelta::days(366),
    };
    let mut annotations = json!({ "summary": words.title, "description": shorten(&words.body, 4000) });
    for (name, value) in &words.own {
        annotations[name] = json!(value);
    }
    let mut labels = json!({
        "alertname": "ReboundServiceFailed",
        "service": one.service,
        "severity": one.severity,
        "policy": one.policy,
        "incident": one.told.incident,
    });
    if let Some(condition) = &one.condition {
        labels["alertname"] = json!("ReboundWarning");
        labels["condition"] = json!(condition);
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": format_time(one.first_failure_at),
        "endsAt": format_time(ends),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_no_slashes() {
        assert_eq!(path_segment("inc/1 ä"), "inc%2F1%20%C3%A4");
    }
}
