//! Templates on their way to each receiver: whose words go out, escaped for where, and what happens when they fail.

use rebound_schemas::plan::{ChannelKind, Plan};
use rebound_schemas::{EventData, event::Transition};
use serde_json::Value;

use super::request::{Shape, requests};
use super::secret::Secret;
use super::tests::{member, notice, of, plain};
use super::words::Speech;
use super::{Channels, Notice};
use crate::notify::Member;

const PLAN: &str = r#"
[[channel]]
id = "pager"
kind = "KIND"
KEYS
[channel.template]
title = "{{ service|upper }}: {{ reason }}"
fields = { Wiki = "<https://wiki/{{ service }}>", Incident = "", Sure = "{% if changes[1].service %}x{% endif %}{{ count }}" }
[[route]]
id = "critical"
channels = ["pager"]
severities = ["critical"]
[route.template]
title = "CALL ANN: {{ title }}"
[[route.route]]
id = "web"
services = ["api"]
[route.route.template]
body = "{{ doing }}"
[[service]]
id = "api"
"#;

/// `Sure` asks for a second change: the samples show that it is not always there, so the plan is read without it.
fn plan(kind: &str, keys: &str) -> Plan {
    let text = PLAN.replace("KIND", kind).replace("KEYS", keys);
    let bad = Plan::parse(&text, "plan.toml").unwrap_err().to_string();
    assert!(bad.contains("template.fields.Sure: a name that nothing has"), "{bad}");
    let text = text.replace("{% if changes[1].service %}x{% endif %}{{ count }}", "{{ count }}");
    Plan::parse(&text, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn speech(plan: &Plan) -> Speech {
    Speech::new(plan, &plan.channels()["pager"])
}

fn by_route(route: Option<&str>) -> Notice {
    Notice { route: route.map(str::to_owned), ..notice() }
}

#[test]
fn slack_is_told_in_the_words_of_the_channel_and_of_the_route() {
    let plan = plan("slack", "url = { env = \"X\" }");
    let body = |route: Option<&str>| requests(&Shape::Slack, &speech(&plan), &by_route(route)).remove(0).body;
    let own = body(None);
    assert_eq!(own["text"], "API: connection refused &lt;!channel&gt;");
    let fields: Vec<(&str, &str)> = own["attachments"][0]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field["title"].as_str().unwrap(), field["value"].as_str().unwrap()))
        .collect();
    let expected = [
        ("Service", "api"),
        ("Severity", "critical"),
        ("Site", "primary"),
        ("Since", "2026-02-25 06:13:20 UTC"),
        ("Sure", "1"),
        ("Wiki", "<https://wiki/api>"),
    ];
    assert_eq!(fields, expected, "a link is the author's to write; an empty field is left out");
    assert_eq!(body(Some("route.critical"))["text"], "CALL ANN: api is down  Bcc: all@example.com");
    let inner = body(Some("route.critical.route.web"));
    assert_eq!(inner["text"], "CALL ANN: api is down  Bcc: all@example.com", "from the route around it");
    assert_eq!(inner["attachments"][0]["text"], "It runs procedure restart (rec-1, attempt 1).");
    assert_eq!(body(Some("route.gone"))["text"], own["text"], "a route that the plan has no more");
}

#[test]
fn pagers_are_told_each_change_in_its_own_words() {
    let plan = plan("pagerduty", "key = { env = \"X\" }");
    let mut other = member();
    other.service = "db".parse().unwrap();
    other.told.transition = Transition::Resolved;
    let group = of(vec![member(), other]);
    let shape = Shape::PagerDuty(Secret::load(&plain("key")).unwrap());
    let both = requests(&shape, &speech(&plan), &group);
    let said: Vec<&Value> = both.iter().map(|request| &request.body["payload"]["summary"]).collect();
    assert_eq!(said, ["API: connection refused <!channel>", "DB: connection refused <!channel>"]);
    assert_eq!(both[1].body["payload"]["custom_details"]["Wiki"], "<https://wiki/db>");
}

#[test]
fn a_webhook_may_be_told_in_json_of_its_own() {
    let text = "[[channel]]\nid = \"pager\"\nkind = \"webhook\"\nurl = \"https://x/\"\n[channel.template]\n\
                json = '{\"content\": {{ title }}, \"all\": [{% for c in changes %}{{ c.reason }}{% if not loop.last %},{% endif %}{% endfor %}]}'\n\
                [[service]]\nid = \"api\"\n";
    let plan = Plan::parse(text, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let odd = || Member { reason: "say \"no\"\n{{ service }}".to_owned(), ..member() };
    let body = requests(&Shape::Rebound, &speech(&plan), &of(vec![odd(), odd()])).remove(0).body;
    assert_eq!(body["all"], serde_json::json!(["say \"no\"\n{{ service }}", "say \"no\"\n{{ service }}"]));
    assert_eq!(body["content"], "2 have failed at primary: api, api");
}

/// A template that holds in every sample and fails at night: Rebound's own words go out.
#[test]
fn a_template_that_fails_keeps_no_message_back() {
    let plan = Plan::parse(
        "[[channel]]\nid = \"pager\"\nkind = \"log\"\n[channel.template]\n\
         title = \"{% if service == 'api' %}{{ changes[7].service }}{% endif %}\"\nbody = \"fine\"\n[[service]]\nid = \"api\"\n",
        "plan.toml",
    )
    .unwrap_or_else(|errors| panic!("{errors}"));
    let words = speech(&plan).words(&notice());
    assert_eq!((words.title.as_str(), words.body.as_str()), ("api is down  Bcc: all@example.com", "fine"));
}

#[tokio::test]
async fn a_mail_has_an_html_part_in_which_nothing_is_a_tag() {
    let (server, told) = super::tests::relay("", 0).await;
    let text = format!(
        "[[channel]]\nid = \"pager\"\nkind = \"email\"\nserver = \"{server}\"\ntls = \"none\"\nfrom = \"a@b\"\nto = [\"c@d\"]\n\
         [channel.template]\nhtml = \"<h1>{{{{ title }}}}</h1><p>{{{{ reason }}}}</p>\"\nfields = {{ Runbook = \"https://wiki/{{{{ service }}}}\" }}\n\
         [[service]]\nid = \"api\"\n"
    );
    let plan = Plan::parse(&text, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let sent = Channels::new(&plan, &super::kafka::unconnected).unwrap().deliver(&notice()).await;
    assert!(matches!(sent.data, EventData::NotificationSent(_)), "{sent:?}");
    let mail = told.lock().unwrap().join("\n");
    assert!(mail.contains("multipart/alternative") && mail.contains("Runbook: https://wiki/api"), "{mail}");
    assert!(mail.contains("<p>connection refused &lt;!channel&gt;</p>"), "{mail}");
    assert!(matches!(plan.channels()["pager"].kind, ChannelKind::Email { .. }));
}
