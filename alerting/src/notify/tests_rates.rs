//! Channels that take so many messages: what waits, what is told together, and that nothing is lost.

use rebound_schemas::event::{AlertRaised, AlertResolved};

use super::*;
use crate::SOURCE;
use crate::testing;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000 + second, 0).unwrap()
}

struct World {
    plan: Arc<Plan>,
    log: Vec<Event>,
    notifier: Notifier,
}

impl World {
    fn new(rate: &str, services: u32) -> Self {
        let mut text = format!("[[channel]]\nid = \"ops\"\nkind = \"log\"\n{rate}\n[[site]]\nid = \"here\"\n");
        for n in 0..services {
            text += &format!("[[service]]\nid = \"s{n}\"\n");
        }
        let plan = testing::plan(&text);
        Self { notifier: Notifier::new(plan.clone()), plan, log: Vec::new() }
    }

    fn append(&mut self, event: Event) {
        self.notifier.fold(&event);
        self.log.push(event);
    }

    fn event(&mut self, n: u32, second: i64, data: impl Into<EventData>) {
        let id = format!("e{}", self.log.len());
        self.append(testing::event(SOURCE, &id, &format!("s{n}"), at(second), data));
    }

    fn raise(&mut self, n: u32, second: i64, severity: Severity) {
        let data = AlertRaised {
            alert: AlertId::new(&format!("a{n}")).unwrap(),
            incident: IncidentId::new(&format!("i{n}")).unwrap(),
            policy: PolicyId::new("default").unwrap(),
            condition: None,
            severity,
            failures: 3,
            first_failure_at: at(second),
            reason: "refused".into(),
            evidence: Vec::new(),
        };
        self.event(n, second, data);
    }

    fn resolve(&mut self, n: u32, second: i64) {
        let data = AlertResolved {
            alert: AlertId::new(&format!("a{n}")).unwrap(),
            incident: IncidentId::new(&format!("i{n}")).unwrap(),
            policy: PolicyId::new("default").unwrap(),
            condition: None,
            recovered_at: at(second),
            successes: 2,
        };
        self.event(n, second, data);
    }

    /// Sizes and titles of what goes out, and when to look again.
    fn tell(&mut self, second: i64) -> (Vec<(usize, String)>, Option<i64>) {
        let planned = self.notifier.plan(at(second), &|_| false, &|_| true);
        planned.events.into_iter().for_each(|event| self.append(event));
        let mut due = self.notifier.due();
        due.iter().for_each(|notice| self.append(notice.sent(1, at(second))));
        due.sort_by_key(|notice| notice.members.len());
        let told = due.iter().map(|notice| (notice.members.len(), notice.title())).collect();
        (told, planned.next.map(|next| (next - at(0)).num_seconds()))
    }
}

fn of(count: usize, title: &str) -> (usize, String) {
    (count, title.to_owned())
}

#[test]
fn what_is_too_much_is_told_in_one() {
    let mut world = World::new("rate = \"10/min\"\nburst = 3", 50);
    (0..20).for_each(|n| world.raise(n, i64::from(n), Severity::Warning));
    let (told, next) = world.tell(20);
    let more = of(18, "18 have failed at here: s2, s3, s4 and 15 more");
    assert_eq!(told, [of(1, "s0 has failed at here"), of(1, "s1 has failed at here"), more]);
    assert_eq!(next, None);
    // No token until 26: what happens meanwhile waits, and a raise is told with its resolve.
    world.raise(30, 21, Severity::Warning);
    world.resolve(30, 22);
    world.resolve(3, 22);
    assert_eq!(world.tell(22), (vec![], Some(26)));
    let title = "1 has failed at here: s30; 2 have recovered at here: s30, s3";
    assert_eq!(world.tell(26), (vec![of(3, title)], None));
}

#[test]
fn a_critical_page_waits_half_a_minute_at_most_and_takes_the_rest_along() {
    let mut world = World::new("rate = \"1/h\"", 10);
    world.raise(0, 0, Severity::Critical);
    assert_eq!(world.tell(0).0.len(), 1);
    world.raise(1, 1, Severity::Warning);
    assert_eq!(world.tell(1), (vec![], Some(3600)), "a warning has time");
    world.raise(2, 10, Severity::Critical);
    world.resolve(0, 12);
    assert_eq!(world.tell(12), (vec![], Some(40)));
    let title = "2 have failed at here: s1, s2; 1 has recovered at here: s0";
    assert_eq!(world.tell(40), (vec![of(3, title)], None));
    // It owes nothing for that: the next token comes an hour after.
    world.resolve(1, 41);
    assert_eq!(world.tell(41), (vec![], Some(3640)));
    assert_eq!(world.tell(3640).0, [of(1, "s1 has recovered at here, after 40s")]);
}

#[test]
fn another_instance_folds_the_same_limit() {
    let mut world = World::new("rate = \"2/min\"", 10);
    (0..2).for_each(|n| world.raise(n, 0, Severity::Warning));
    assert_eq!(world.tell(0).0.len(), 2);
    world.notifier = Notifier::new(world.plan.clone());
    world.log.iter().for_each(|event| world.notifier.fold(event));
    world.log.clone().iter().for_each(|event| world.notifier.fold(event));
    world.raise(5, 1, Severity::Warning);
    assert_eq!(world.tell(1), (vec![], Some(30)));
    assert_eq!(world.tell(30).0.len(), 1);
}

#[test]
fn a_message_is_never_too_large_for_an_event() {
    let mut world = World::new("rate = \"1/min\"", 1200);
    (0..1200).for_each(|n| world.raise(n, 0, Severity::Critical));
    let (told, _) = world.tell(0);
    assert_eq!(told.iter().map(|(members, _)| *members).collect::<Vec<_>>(), [200, 500, 500]);
    let largest = world.log.iter().map(|event| rebound_schemas::encode(event).len()).max().unwrap();
    assert!(largest < 256 * 1024, "{largest} bytes");
}
