//! The notifier by tables.

use rebound_schemas::event::{
    AlertRaised, AlertResolved, AlertSuppressed, IncidentAcknowledged, ProcedureDemoted, RecoveryEscalated,
    RecoveryTriggered, SuppressionCause, TriggerMode,
};
use rebound_schemas::{EventId, ProcedureId, RecoveryId};

use super::recent::{REMEMBERED, Recent};
use super::*;
use crate::SOURCE;
use crate::testing;

const PLAN: &str = r#"
[[channel]]
id = "ops"
kind = "log"
[[policy]]
id = "default"
repeat = "60s"
[[service]]
id = "db"
[[service.probe]]
http = "http://127.0.0.1:1/"
"#;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn event(second: i64, data: impl Into<EventData>) -> Event {
    let data = data.into();
    testing::event(SOURCE, EventId::derive(data.kind().as_str(), &second.to_string()).as_str(), "db", at(second), data)
}

fn ids() -> (AlertId, IncidentId, PolicyId) {
    (AlertId::new("a").unwrap(), IncidentId::new("i").unwrap(), PolicyId::new("default").unwrap())
}

fn raised(second: i64) -> Event {
    let (alert, incident, policy) = ids();
    let reason = "refused".into();
    let severity = Severity::Critical;
    let first_failure_at = at(second - 20);
    let evidence = Vec::new();
    let data = AlertRaised {
        alert,
        incident,
        policy,
        condition: None,
        severity,
        failures: 3,
        first_failure_at,
        reason,
        evidence,
    };
    event(second, data)
}

fn resolved(second: i64) -> Event {
    let (alert, incident, policy) = ids();
    event(
        second,
        AlertResolved { alert, incident, policy, condition: None, recovered_at: at(second - 10), successes: 2 },
    )
}

fn notifier() -> Notifier {
    Notifier::new(testing::plan(PLAN))
}

/// What is planned and due.
fn due(notifier: &mut Notifier, second: i64) -> Vec<Notice> {
    plan(notifier, second, false);
    notifier.due()
}

fn plan(notifier: &mut Notifier, second: i64, quiet: bool) -> Option<DateTime<Utc>> {
    let planned = notifier.plan(at(second), &|_| quiet, &|_| true);
    planned.events.iter().for_each(|event| notifier.fold(event));
    planned.next
}

/// What is due, told at once.
fn tell(notifier: &mut Notifier, second: i64) -> Vec<(Transition, u32)> {
    let due = due(notifier, second);
    due.iter().for_each(|notice| notifier.fold(&notice.sent(1, at(second))));
    due.iter().map(|notice| (notice.first().told.transition, notice.first().told.repeat)).collect()
}

#[test]
fn a_raise_is_told_once_and_then_its_resolve() {
    let mut notifier = notifier();
    notifier.fold(&raised(100));
    plan(&mut notifier, 100, true);
    let due = notifier.due();
    assert_eq!(due.len(), 1, "quiet holds for repeats only: what was raised is told");
    assert_eq!(due, notifier.due(), "due until it is settled");
    assert_eq!((due[0].title(), due[0].reason()), ("db has failed at primary".into(), "refused".into()));
    notifier.fold(&resolved(110));
    assert_eq!(self::due(&mut notifier, 110)[0].first().told.transition, Transition::Raised, "in order");
    assert_eq!(tell(&mut notifier, 110), [(Transition::Raised, 0)]);
    assert_eq!(tell(&mut notifier, 110), [(Transition::Resolved, 0)]);
    for again in [raised(100), resolved(110), due[0].sent(1, at(110))] {
        notifier.fold(&again);
        assert!(self::due(&mut notifier, 500).is_empty(), "redelivered: {again:?}");
    }
    assert!(notifier.alerts.is_empty());
}

#[test]
fn giving_up_settles_a_message() {
    let mut notifier = notifier();
    notifier.fold(&raised(100));
    let due = due(&mut notifier, 100);
    notifier.fold(&due[0].failed(5, "connection refused".into(), at(101)));
    assert!(self::due(&mut notifier, 101).is_empty());
    notifier.fold(&resolved(110));
    assert_eq!(tell(&mut notifier, 110), [(Transition::Resolved, 0)]);
}

#[test]
fn a_suppressed_alert_and_its_resolve_are_told_to_nobody() {
    let mut notifier = notifier();
    let (alert, incident, policy) = ids();
    let cause = SuppressionCause::Silence;
    notifier.fold(&event(100, AlertSuppressed { alert, incident, policy, condition: None, cause, by: "s".into() }));
    notifier.fold(&resolved(110));
    assert!(due(&mut notifier, 500).is_empty());
}

#[test]
fn repeats_keep_their_grid_and_missed_ones_are_not_made_up_for() {
    let mut notifier = notifier();
    notifier.fold(&raised(100));
    assert_eq!(tell(&mut notifier, 100), [(Transition::Raised, 0)]);
    assert_eq!(plan(&mut notifier, 100, false), Some(at(160)));
    assert!(tell(&mut notifier, 159).is_empty());
    assert_eq!(tell(&mut notifier, 160), [(Transition::Repeated, 1)]);
    assert!(tell(&mut notifier, 219).is_empty());
    plan(&mut notifier, 220, true);
    assert!(notifier.due().is_empty(), "quiet");
    assert_eq!(tell(&mut notifier, 405), [(Transition::Repeated, 5)], "the newest only");
    assert_eq!(plan(&mut notifier, 405, false), Some(at(460)));
    let data = IncidentAcknowledged { incident: ids().1, by: "ann".into(), automated: false, comment: None };
    notifier.fold(&event(406, data));
    assert!(tell(&mut notifier, 1000).is_empty(), "acknowledged");
    assert_eq!(plan(&mut notifier, 1000, false), None);
}

#[test]
fn an_escalation_is_told_whichever_topic_is_folded_first() {
    let data =
        RecoveryEscalated { incident: ids().1, recovery: None, attempts: 3, reason: "gave up".into(), stopped: None };
    let escalated = event(130, data);
    for first in [true, false] {
        let mut notifier = notifier();
        let order = if first { [&escalated, &raised(100)] } else { [&raised(100), &escalated] };
        order.into_iter().for_each(|event| notifier.fold(event));
        assert_eq!(tell(&mut notifier, 130), [(Transition::Raised, 0)]);
        let due = due(&mut notifier, 130);
        let said = (due[0].first().told.transition, due[0].reason());
        assert_eq!(said, (Transition::Escalated, "gave up; it had failed by: refused".into()));
        assert_eq!(tell(&mut notifier, 130).len(), 1);
        notifier.fold(&escalated);
        assert!(tell(&mut notifier, 131).is_empty());
    }
}

/// A recovery by `restore` was triggered, ended badly, and the procedure was demoted for it.
pub(super) fn demotion(service: &str, incident: &IncidentId, second: i64) -> [Event; 2] {
    let procedure = ProcedureId::new("restore").unwrap();
    let recovery = RecoveryId::new(&format!("rec-{incident}")).unwrap();
    let triggered = RecoveryTriggered {
        recovery: recovery.clone(),
        incident: incident.clone(),
        attempt: 1,
        procedure: procedure.clone(),
        method: None,
        mode: TriggerMode::Auto,
        first_failure_at: at(second),
        not_before: None,
        by: None,
        reason: None,
        error_class: None,
        approve_until: None,
        asked: None,
    };
    let (failed, newest) = (vec![recovery.clone()], recovery);
    let demoted = ProcedureDemoted { procedure, succeeded: 1, attempts: 3, below: 0.8, over: 5, failed, newest };
    let of = |what, data| testing::event(SOURCE, &format!("{what}-{incident}"), service, at(second), data);
    [of("triggered", EventData::from(triggered)), of("demoted", demoted.into())]
}

#[test]
fn a_demotion_is_told_once_to_whoever_was_told_of_the_outage() {
    let mut notifier = notifier();
    notifier.fold(&raised(100));
    assert_eq!(tell(&mut notifier, 100), [(Transition::Raised, 0)]);
    demotion("db", &ids().1, 110).iter().for_each(|event| notifier.fold(event));
    let due = due(&mut notifier, 111);
    let first = due[0].first();
    assert_eq!(first.told.transition, Transition::Demoted);
    assert_eq!(due[0].title(), "db at primary needs your yes from now on: its procedure was demoted");
    assert_eq!(
        first.reason,
        "procedure restore worked in 1 of 3 recoveries, and at least 80 % of 5 must; it had failed by: refused"
    );
    assert!(first.ask.ends_with("rebound recovery promote restore --comment WHY"), "{}", first.ask);
    assert_eq!(tell(&mut notifier, 111), [(Transition::Demoted, 0)]);
    demotion("db", &ids().1, 110).iter().for_each(|event| notifier.fold(event));
    assert!(tell(&mut notifier, 112).is_empty(), "delivered again");
    // An escalation of the same incident is another matter.
    let (incident, reason) = (ids().1, "gave up".into());
    notifier.fold(&event(113, RecoveryEscalated { incident, recovery: None, attempts: 3, reason, stopped: None }));
    assert_eq!(tell(&mut notifier, 113), [(Transition::Escalated, 0)]);
}

#[test]
fn a_demotion_of_what_is_over_is_no_message() {
    let mut notifier = notifier();
    [raised(100), resolved(105)].iter().for_each(|event| notifier.fold(event));
    demotion("db", &ids().1, 110).iter().for_each(|event| notifier.fold(event));
    let told: Vec<_> = (0..3).flat_map(|second| tell(&mut notifier, 111 + second)).collect();
    assert_eq!(told, [(Transition::Raised, 0), (Transition::Resolved, 0)]);
}

#[test]
fn keys_differ_by_every_part() {
    let (alert, channel) = (AlertId::new("a").unwrap(), ChannelId::new("ops").unwrap());
    let key = |transition, repeat| dedup_key(&alert, transition, repeat, &channel);
    assert_ne!(key(Transition::Repeated, 1), key(Transition::Repeated, 2));
    assert_ne!(key(Transition::Raised, 0), key(Transition::Resolved, 0));
    assert_ne!(key(Transition::Raised, 0), dedup_key(&alert, Transition::Raised, 0, &ChannelId::new("b").unwrap()));
    assert_eq!(key(Transition::Raised, 0).len(), "ntf-".len() + 16);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut recent = Recent::default();
    (0..=REMEMBERED).for_each(|n| recent.insert(n, ()));
    assert!(!recent.contains(&0) && recent.contains(&1) && recent.contains(&REMEMBERED));
}
