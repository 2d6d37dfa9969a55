//! Which move, what must hold before it, and what became of it: rows of the tables.

use rebound_schemas::StepId;
use rebound_schemas::event::{
    Asked, FailoverFinished, RecoveryDeclined, RecoveryFinished, RecoveryPaused, RecoveryRequested, RecoveryTriggered,
    StepFinished, TriggerMode,
};

use super::*;
use crate::testing;

/// Two services at a, of which web needs db; one at b. Moves from a to b and to c, and back from b.
fn plan() -> Plan {
    let site =
        |id: &str, more: &str| format!("[[site]]\nid = \"{id}\"\npurpose = \"x\"\nrecovery_time = \"1h\"\n{more}");
    let service = |id: &str, more: &str| format!("[[service]]\nid = \"{id}\"\n{more}\n");
    let procedure = |id: &str, failover: &str| {
        format!(
            "[[procedure]]\nid = \"{id}\"\nfailover = {{ {failover} }}\n[[procedure.step]]\nid = \"stop\"\ncommand = [\"/bin/stop\", \"{{service}}\"]\n\
             [[procedure.step]]\nid = \"start\"\neach = \"all\"\ncommand = [\"/bin/start\", \"{{each}}\", \"{{steps.stop.output}}\"]\n"
        )
    };
    let text = "allow = [\"/bin/stop\", \"/bin/start\"]\n".to_owned()
        + &site("a", "")
        + &site("b", "failback = \"home\"\n")
        + &site("c", "failover = \"second\"\n")
        + &service("web", "site = \"a\"\ndepends_on = [\"db\"]")
        + &service("db", "site = \"a\"")
        + &service("mail", "site = \"b\"")
        + &procedure("away", "from = \"a\", to = \"b\", healthy_sites_at_least = 2")
        + &procedure("first", "to = \"c\"")
        + &procedure("second", "from = \"a\", to = \"c\"")
        + &procedure("home", "from = \"b\", to = \"a\", back = true");
    Plan::parse(&text, "plan.toml").unwrap()
}

/// `what to procedure`, `back` before it for a failback: what is chosen, or the error.
fn chosen(plan: &Plan, line: &str) -> String {
    let (back, line) = line.strip_prefix("back ").map_or((false, line), |line| (true, line));
    let mut words = line.split(' ');
    let (what, to) = (words.next().unwrap(), SiteId::new(words.next().unwrap()).unwrap());
    let procedure = words.next().map(|name| ProcedureId::new(name).unwrap());
    match choose(plan, what, &to, back, procedure.as_ref()) {
        Ok(moving) => {
            let services: Vec<_> = moving.services.iter().map(|service| service.as_str()).collect();
            let Move { from, to, .. } = &moving.moved;
            format!("{}: {from} to {to}, {} carries {}", moving.procedure.id, moving.carrier, services.join(" "))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_plan_says_how_a_site_or_a_service_is_moved() {
    let plan = plan();
    for (asked, answer) in [
        ("a b", "away: a to b, db carries db web"),
        ("site=a b", "away: a to b, db carries db web"),
        ("db b", "away: a to b, db carries db web"),
        ("web b", "away: a to b, web carries web"),
        ("service=web b", "away: a to b, web carries web"),
        // Two would do: the site's own.
        ("a c", "second: a to c, db carries db web"),
        ("a c first", "first: a to c, db carries db web"),
        ("mail c", "first: b to c, mail carries mail"),
        ("back b a", "home: b to a, db carries db web"),
        ("back web a", "home: b to a, web carries web"),
        ("nowhere b", "nowhere is neither a site nor a service of the plan: its sites are a, b, c"),
        ("a nowhere", "nowhere is not a site of the plan: its sites are a, b, c"),
        ("a a", "the load of a is to be moved to a, where it belongs: name another site with --to"),
        ("web a", "the load of web is to be moved to a, where it belongs: name another site with --to"),
        ("c a", "no service of the plan runs at c: there is no load to move"),
    ] {
        assert_eq!(chosen(&plan, asked), answer, "{asked}");
    }
    let none = chosen(&plan, "b a");
    assert!(
        none.starts_with("no procedure of the plan moves the load from b to a: away moves it from a to b, "),
        "{none}"
    );
    let other = chosen(&plan, "a b second");
    assert!(other.starts_with("procedure second does not move the load from a to b; "), "{other}");
}

#[test]
fn services_start_in_the_plans_order() {
    let plan = plan();
    let moving = choose(&plan, "a", &SiteId::new("b").unwrap(), false, None).unwrap();
    let steps = moving.steps(&plan, DateTime::UNIX_EPOCH).unwrap();
    let told: Vec<_> = steps.iter().map(|ahead| format!("{}: {}", ahead.step, ahead.action)).collect();
    let expected = [
        "stop: run /bin/stop db",
        "start/db: run /bin/start db {steps.stop.output}",
        "start/mail: run /bin/start mail {steps.stop.output}",
        "start/web: run /bin/start web {steps.stop.output}",
    ];
    let mut sorted = told.clone();
    sorted.sort();
    let mut wanted = expected.map(str::to_owned).to_vec();
    wanted.sort();
    assert_eq!(sorted, wanted);
    let place = |step: &str| told.iter().position(|line| line.starts_with(step)).unwrap();
    assert!(place("stop") == 0 && place("start/db") < place("start/web"), "{told:?}");
}

fn event(id: &str, data: impl Into<EventData>) -> Event {
    testing::event("t", id, "db", DateTime::from_timestamp(5, 0).unwrap(), data)
}

#[test]
fn what_must_hold_before() {
    let plan = plan();
    let to = |site: &str| SiteId::new(site).unwrap();
    let moving = choose(&plan, "a", &to("b"), false, None).unwrap();
    let home = choose(&plan, "b", &to("a"), true, None).unwrap();
    let (mut sites, mut pauses) = (Sites::default(), Pauses::default());
    let now = DateTime::from_timestamp(10, 0).unwrap();
    let not_held = |moving: &Moving<'_>, sites: &Sites, pauses: &Pauses, under_way: Option<&RecoveryId>| {
        let all = moving.readiness(&plan, sites, pauses, under_way, now);
        assert_eq!(
            all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["sites", "load", "automation", "recovery"]
        );
        all.into_iter().filter(|c| !c.held).map(|c| c.detail).collect::<Vec<_>>()
    };
    assert!(not_held(&moving, &sites, &pauses, None).is_empty());
    let was_not = "the load of a was not moved away: if it was by hand, say so with failover.finished";
    assert_eq!(not_held(&home, &sites, &pauses, None), [was_not]);
    let under_way = RecoveryId::new("rec-1").unwrap();
    let waits = "rec-1 of db is under way: let it end, or cancel it";
    assert_eq!(not_held(&moving, &sites, &pauses, Some(&under_way)), [waits]);
    let data = RecoveryPaused {
        site: None,
        service: None,
        tier: None,
        procedure: None,
        until: None,
        by: "ann".into(),
        reason: "network".into(),
    };
    pauses.evolve(&event("p", data));
    assert_eq!(not_held(&moving, &sites, &pauses, None), ["ann paused it: network"]);
    let pauses = Pauses::default();
    let (from_site, to_site, duration_ms, data_until, reason) = (to("a"), to("b"), 1, None, None);
    let data =
        FailoverFinished { failover: "f".into(), from_site, to_site, succeeded: true, duration_ms, data_until, reason };
    sites.evolve(&event("f", data));
    assert_eq!(not_held(&moving, &sites, &pauses, None), ["the load of a is at b"]);
    assert!(not_held(&home, &sites, &pauses, None).is_empty());
}

#[test]
fn a_request_is_followed_to_its_end() {
    let requested = |id: &str| {
        let (by, comment) = ("ann".to_owned(), "flood".to_owned());
        let (procedure, inputs, dry_run, overrides) = (None, BTreeMap::new(), false, vec![]);
        event(id, RecoveryRequested { by, comment, procedure, inputs, dry_run, overrides })
    };
    let id = |id: &str| EventId::new(id).unwrap();
    let recovery = RecoveryId::new("rec-1").unwrap();
    let (incident, procedure) = (IncidentId::new("inc-1").unwrap(), ProcedureId::new("away").unwrap());
    let asked = Asked { request: id("r"), comment: "flood".into(), inputs: BTreeMap::new(), overrides: vec![] };
    let mut courses = Courses::default();
    courses.evolve(&requested("r"));
    courses.evolve(&requested("other"));
    assert_eq!(courses.of(&id("r")), Some(&Course::default()));
    courses.evolve(&event(
        "t",
        RecoveryTriggered {
            recovery: recovery.clone(),
            incident: incident.clone(),
            attempt: 1,
            procedure: procedure.clone(),
            method: None,
            mode: TriggerMode::Auto,
            first_failure_at: DateTime::UNIX_EPOCH,
            not_before: None,
            by: Some("ann".into()),
            reason: None,
            error_class: None,
            approve_until: None,
            asked: Some(asked),
        },
    ));
    let step = StepFinished {
        recovery: recovery.clone(),
        incident: incident.clone(),
        step: StepId::new("stop").unwrap(),
        index: 0,
        attempt: 1,
        outcome: StepOutcome::Failed,
        duration_ms: 7,
        code: Some(1),
        output: None,
        error: Some("no".into()),
    };
    courses.evolve(&event("s", step));
    assert_eq!(courses.of(&id("r")).unwrap().succeeded(), None);
    courses.evolve(&event(
        "f",
        RecoveryFinished {
            recovery: recovery.clone(),
            incident,
            attempt: 1,
            procedure,
            method: None,
            outcome: RecoveryOutcome::Failed,
            duration_ms: 9,
            error_class: None,
            reason: Some("step stop: no".into()),
        },
    ));
    let course = courses.of(&id("r")).unwrap();
    let told = ["triggered: rec-1 by procedure away", "step stop: failed after 7 ms: no", "failed: step stop: no"];
    assert_eq!((course.lines.as_slice(), course.succeeded()), (told.map(str::to_owned).as_slice(), Some(false)));
    let (by, reason) = ("ann".into(), "too late".into());
    courses.evolve(&event("d", RecoveryDeclined { request: id("other"), by, reason, restraint: None }));
    assert_eq!(courses.of(&id("other")).unwrap().lines, ["declined: too late"]);
    for n in 0..REMEMBERED {
        courses.evolve(&requested(&format!("more-{n}")));
    }
    assert_eq!((courses.of(&id("r")), courses.courses.len(), courses.requests.len()), (None, REMEMBERED, 0));
}
