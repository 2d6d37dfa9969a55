//! The notifier over generated histories: restarts at any point, lost acknowledgements, duplicates, failures.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rebound_schemas::event::{AlertRaised, AlertResolved, IncidentAcknowledged};

use super::tests::demotion;
use super::*;
use crate::SOURCE;
use crate::testing;

const PLAN: &str = r#"
[[channel]]
id = "ops"
kind = "log"
[[channel]]
id = "boss"
kind = "log"
rate = "3/min"
burst = 2
[[policy]]
id = "default"
repeat = "60s"
[[route]]
services = ["a", "b", "c"]
channels = ["ops"]
group_by = ["site"]
group_wait = "5s"
group_interval = "20s"
[[route.escalation]]
after = "40s"
channels = ["boss"]
[[route]]
services = ["d"]
channels = ["ops", "boss"]
[[service]]
id = "a"
[[service]]
id = "b"
[[service]]
id = "c"
[[service]]
id = "d"
[[service]]
id = "e"
"#;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn event(id: &str, service: &str, second: i64, data: impl Into<EventData>) -> Event {
    testing::event(SOURCE, id, service, at(second), data)
}

#[derive(Debug, Clone)]
enum Act {
    Fail(usize),
    Resolve(usize),
    Acknowledge(usize),
    /// Its procedure is demoted; of one incident only once.
    Demote(usize),
    /// Deliver what is due: taken or not, acknowledged or not.
    Deliver {
        taken: bool,
        acknowledged: bool,
    },
    Redeliver(usize),
    /// A restart, which reads one partition (here: service) after the other, or as it was written.
    Restart {
        by_partition: bool,
    },
    Wait(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..5_usize).prop_map(Act::Fail),
        3 => (0..5_usize).prop_map(Act::Resolve),
        1 => (0..5_usize).prop_map(Act::Acknowledge),
        1 => (0..5_usize).prop_map(Act::Demote),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(taken, acknowledged)| Act::Deliver { taken, acknowledged }),
        2 => (0..64_usize).prop_map(Act::Redeliver),
        2 => any::<bool>().prop_map(|by_partition| Act::Restart { by_partition }),
        4 => (1..50_i64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..40)
}

/// The durable log, the notifier over it, and a receiver that drops repeats by the key.
struct World {
    plan: Arc<Plan>,
    log: Vec<Event>,
    notifier: Notifier,
    received: BTreeMap<String, Notice>,
    second: i64,
    open: [Option<(AlertId, IncidentId)>; 5],
    raised: Vec<(AlertId, String, bool)>,
    demoted: BTreeSet<IncidentId>,
}

impl World {
    fn new(plan: Arc<Plan>) -> Self {
        let notifier = Notifier::new(plan.clone());
        let (log, received, raised) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (open, demoted) = Default::default();
        Self { plan, log, notifier, received, second: 1000, open, raised, demoted }
    }

    fn append(&mut self, event: Event) {
        self.notifier.fold(&event);
        self.log.push(event);
    }

    fn plan(&mut self) {
        let planned = self.notifier.plan(at(self.second), &|_| false, &|_| true);
        planned.events.into_iter().for_each(|event| self.append(event));
    }

    fn receive(&mut self, notice: &Notice) {
        let first = self.received.entry(notice.dedup_key.clone()).or_insert_with(|| notice.clone());
        assert_eq!(first.told(), notice.told(), "one key, two messages");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Fail(n) if self.open[*n].is_none() => {
                let (service, number) = (["a", "b", "c", "d", "e"][*n], self.log.len());
                let alert = AlertId::new(&format!("alr-{number}")).unwrap();
                let incident = IncidentId::new(&format!("inc-{number}")).unwrap();
                self.open[*n] = Some((alert.clone(), incident.clone()));
                self.raised.push((alert.clone(), service.to_owned(), false));
                let data = AlertRaised {
                    condition: None,
                    alert,
                    incident,
                    policy: PolicyId::new("default").unwrap(),
                    severity: Severity::Critical,
                    failures: 3,
                    first_failure_at: at(self.second),
                    reason: "refused".into(),
                    evidence: Vec::new(),
                };
                self.append(event(&format!("raised-{number}"), service, self.second, data));
            }
            Act::Resolve(n) => {
                let Some((alert, incident)) = self.open[*n].take() else { return };
                self.raised.iter_mut().filter(|(id, ..)| *id == alert).for_each(|(.., resolved)| *resolved = true);
                let id = format!("resolved-{alert}");
                let policy = PolicyId::new("default").unwrap();
                let data = AlertResolved {
                    alert,
                    incident,
                    policy,
                    recovered_at: at(self.second),
                    successes: 2,
                    condition: None,
                };
                self.append(event(&id, ["a", "b", "c", "d", "e"][*n], self.second, data));
            }
            Act::Acknowledge(n) => {
                let Some((_, incident)) = self.open[*n].clone() else { return };
                let id = format!("acknowledged-{incident}");
                let data = IncidentAcknowledged { incident, by: "ann".into(), automated: false, comment: None };
                self.append(event(&id, ["a", "b", "c", "d", "e"][*n], self.second, data));
            }
            Act::Demote(n) => {
                let Some((_, incident)) = self.open[*n].clone() else { return };
                let said = demotion(["a", "b", "c", "d", "e"][*n], &incident, self.second);
                said.into_iter().for_each(|event| self.append(event));
                self.demoted.insert(incident);
            }
            Act::Deliver { taken, acknowledged } => {
                self.plan();
                for notice in self.notifier.due() {
                    if *taken {
                        self.receive(&notice);
                    }
                    match (taken, acknowledged) {
                        (true, true) => self.append(notice.sent(1, at(self.second))),
                        // It was taken, or will be; nobody knows, so it is told again.
                        _ => continue,
                    }
                }
            }
            Act::Redeliver(n) => {
                if let Some(event) = self.log.get(*n).cloned() {
                    self.notifier.fold(&event);
                }
            }
            Act::Restart { by_partition } => {
                self.notifier = Notifier::new(self.plan.clone());
                let mut log = self.log.clone();
                if *by_partition {
                    log.sort_by(|a, b| a.subject.cmp(&b.subject));
                }
                log.iter().for_each(|event| self.notifier.fold(event));
            }
            Act::Wait(seconds) => self.second += seconds,
            Act::Fail(_) => {}
        }
    }

    /// Delivers until nothing is left.
    fn drain(&mut self) {
        for _ in 0..20 {
            self.second += 61;
            self.act(&Act::Deliver { taken: true, acknowledged: true });
        }
    }
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// Each transition is told at least once, and at most once to a receiver that drops repeats by the key.
    #[test]
    fn each_transition_is_told_exactly_once(acts in acts()) {
        thread_local!(static PARSED: Arc<Plan> = testing::plan(PLAN));
        let mut world = World::new(PARSED.with(Arc::clone));
        acts.iter().for_each(|act| world.act(act));
        world.drain();
        let mut told: BTreeMap<(ChannelId, Told), u32> = BTreeMap::new();
        for notice in world.received.values() {
            for one in notice.told() {
                *told.entry((notice.channel.clone(), one)).or_default() += 1;
            }
        }
        prop_assert!(told.values().all(|times| *times == 1), "told twice: {told:?}");
        let count = |alert: &AlertId, channel: &str, transition| {
            told.keys().filter(|(c, t)| c.as_str() == channel && t.alert == *alert && t.transition == transition).count()
        };
        for (alert, service, resolved) in &world.raised {
            let channels: &[&str] = if matches!(service.as_str(), "d" | "e") { &["ops", "boss"] } else { &["ops"] };
            for channel in ["ops", "boss"] {
                let opened = channels.contains(&channel) || count(alert, channel, Transition::Unacknowledged) > 0;
                prop_assert_eq!(count(alert, channel, Transition::Raised), usize::from(channels.contains(&channel)));
                let want = usize::from(*resolved && opened);
                prop_assert_eq!(count(alert, channel, Transition::Resolved), want, "{} on {}", alert, channel);
            }
        }
        for (alert, incident) in world.open.iter().flatten() {
            for (channel, told) in [("ops", true), ("boss", count(alert, "boss", Transition::Unacknowledged) > 0)] {
                let raised = told || count(alert, channel, Transition::Raised) > 0;
                let want = usize::from(raised && world.demoted.contains(incident));
                prop_assert_eq!(count(alert, channel, Transition::Demoted), want, "{} on {}", alert, channel);
            }
        }
        // What was settled is let go of.
        prop_assert_eq!(world.notifier.alerts.len(), world.raised.iter().filter(|(.., resolved)| !resolved).count());
        prop_assert!(world.notifier.messages.is_empty());
        // What was told is not due again, should anything but its settling be redelivered.
        let settles = |event: &Event| matches!(event.data, EventData::NotificationSent(_));
        world.log.clone().iter().filter(|event| !settles(event)).for_each(|event| world.notifier.fold(event));
        world.plan();
        prop_assert_eq!(world.notifier.due(), vec![]);
    }
}

#[test]
fn a_group_waits_and_then_tells_all_that_changed() {
    let mut world = World::new(testing::plan(PLAN));
    world.act(&Act::Fail(0));
    world.second += 3;
    world.act(&Act::Fail(1));
    let planned = world.notifier.plan(at(world.second), &|_| false, &|_| true);
    assert_eq!((planned.events.len(), planned.next), (0, Some(at(1005))), "the group waits 5 s from its first change");
    world.second = 1005;
    world.act(&Act::Deliver { taken: true, acknowledged: true });
    let notice = world.received.values().next().unwrap().clone();
    assert_eq!(notice.title(), "2 have failed at primary: a, b");
    assert_eq!(notice.members.len(), 2);
    world.second = 1010;
    world.act(&Act::Resolve(0));
    let planned = world.notifier.plan(at(world.second), &|_| false, &|_| true);
    assert_eq!(planned.next, Some(at(1025)), "20 s after it last spoke");
}

#[test]
fn nobody_taking_an_incident_calls_the_next_and_an_acknowledgement_stops_that() {
    for acknowledged in [false, true] {
        let mut world = World::new(testing::plan(PLAN));
        world.act(&Act::Fail(0));
        world.second += 5;
        world.act(&Act::Deliver { taken: true, acknowledged: true });
        if acknowledged {
            world.act(&Act::Acknowledge(0));
        }
        world.second = 1040;
        world.act(&Act::Deliver { taken: true, acknowledged: true });
        let boss: Vec<_> = world.received.values().filter(|notice| notice.channel.as_str() == "boss").collect();
        assert_eq!(boss.len(), usize::from(!acknowledged));
        assert!(
            boss.iter()
                .map(|notice| &notice.first().told)
                .all(|told| told.transition == Transition::Unacknowledged && told.repeat == 1)
        );
    }
}

#[test]
fn a_message_that_was_given_up_can_be_retried_under_its_key() {
    let mut world = World::new(testing::plan(PLAN));
    world.act(&Act::Fail(3));
    world.plan();
    let due = world.notifier.due();
    due.iter().for_each(|notice| world.append(notice.failed(5, "refused".into(), at(1001))));
    assert!(world.notifier.due().is_empty());
    let retried = |round| {
        let dedup_key = due[0].dedup_key.clone();
        event("again", "d", 1002, rebound_schemas::event::NotificationRetried { dedup_key, round, by: "ann".into() })
    };
    world.append(retried(1));
    assert!(world.notifier.due().is_empty(), "that round never failed");
    world.append(retried(0));
    world.append(retried(0));
    let again = world.notifier.due();
    assert_eq!((again.len(), &again[0].dedup_key, again[0].round), (1, &due[0].dedup_key, 1));
    assert!(again[0].over.is_empty(), "its alert is open still");
    let failed = again[0].failed(5, "refused".into(), at(1003));
    assert_eq!(failed.id.as_str(), format!("{}:failed:1", due[0].dedup_key));
    world.append(failed);
    world.append(retried(0));
    assert!(world.notifier.due().is_empty(), "redelivered: the first retry is over");
    world.act(&Act::Resolve(3));
    world.append(retried(1));
    let again = world.notifier.due();
    assert_eq!(again[0].over.len(), 1, "it is over now");
    world.append(again[0].sent(1, at(1004)));
    world.append(retried(1));
    assert!(world.notifier.due().is_empty());
}

/// Group messages are fenced by the partition of their first service only. In the moment of a hand-over the old owner
/// may plan a group with a service that is already another's, who plans it too: both tell it, under one key of its own.
#[test]
fn two_instances_that_change_places_tell_a_change_under_one_key() {
    let plan = testing::plan(PLAN);
    let mut world = World::new(plan.clone());
    world.act(&Act::Fail(0));
    world.act(&Act::Fail(1));
    let mut heir = Notifier::new(plan);
    world.log.iter().for_each(|event| heir.fold(event));
    let now = at(world.second + 5);
    let old = world.notifier.plan(now, &|_| false, &|_| true).events;
    let new = heir.plan(now, &|_| false, &|service| service.as_str() == "b").events;
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (notifier, own, other) in [(&mut world.notifier, &old, &new), (&mut heir, &new, &old)] {
        // Each sends its own, and folds the other's a moment later.
        own.iter().for_each(|event| notifier.fold(event));
        for notice in notifier.due() {
            for member in &notice.members {
                told.entry(member.key(&notice.channel)).or_default().insert(notice.dedup_key.clone());
            }
            notifier.fold(&notice.sent(1, now));
        }
        other.iter().for_each(|event| notifier.fold(event));
        notifier.due().iter().for_each(|notice| notifier.fold(&notice.sent(1, now)));
        assert!(notifier.plan(now, &|_| false, &|_| true).events.is_empty(), "both are told");
    }
    // Two changes, two keys; the one of them came in two messages.
    assert_eq!(told.values().map(BTreeSet::len).collect::<BTreeSet<_>>(), [1, 2].into());
    assert_eq!(told.len(), 2);
}
