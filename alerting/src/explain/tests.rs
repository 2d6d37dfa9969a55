//! Histories lived by the engine, and what is told of them: one for every reason; and that no history, however cut,
//! shuffled or repeated, makes the explanation panic or name an event that was not there.

mod lived;

use proptest::prelude::*;
use rebound_schemas::ChannelId;
use rebound_schemas::event::{
    MaintenanceScheduled, NotificationFailed, NotificationSent, RecoveryApproved, RecoveryOutcome, RecoveryPaused,
    RecoveryTriggered, RecoveryWithheld, SilenceCreated, Transition, WithheldReason,
};

use self::lived::{Lived, PLAN, answer, at, corrected, facts, named_events};
use super::*;

#[test]
fn an_outage_is_told_from_its_first_failure_to_its_end() {
    let lived = Lived::new().probes("db", "SSSSSFFF").finish(RecoveryOutcome::Succeeded).probes("db", "SS");
    let told = lived.of_incident();
    assert_eq!(told.title, "outage of db, critical, over after 35 s");
    assert_eq!(
        answer(&told, "why it fired"),
        "connection refused; 3 failures; policy default asks for 3 failures in a row; first failure at 08:01:00, \
         decided 20 s later; it last answered at 08:00:50"
    );
    let recovery = lived.triggered().recovery;
    assert_eq!(answer(&told, "what was done"), format!("{recovery} succeeded"));
    assert_eq!(answer(&told, "how it ended"), format!("well since 08:01:35, brought back by {recovery}"));
    assert_eq!(
        facts(&told),
        [
            "probe db answered",
            "probe db answered · and 3 more before it",
            "probe db failed: connection refused · failure 1 of 3: SOFT",
            "probe db failed: connection refused · failure 2 of 3: SOFT",
            "probe db failed: connection refused · failure 3 of 3: HARD",
            "incident opened, critical, by policy default: connection refused",
            "alert raised, critical, after 3 failures: connection refused",
            "recovery 1 triggered: procedure restart",
            "recovery started by runner-1",
            "step s: run /bin/true",
            "step s succeeded in 1 min 12 s",
            "verified",
            "recovery 1 succeeded after 4.2 s",
            "probe db answered · success 1 of 2",
            "probe db answered · success 2 of 2: OK",
            "alert resolved after 2 successes",
            &format!("incident resolved: well since 08:01:35, brought back by {recovery}"),
        ]
    );
    assert!(told.notes.is_empty(), "{:?}", told.notes);
    let alert = lived.last(|data| match data {
        EventData::AlertRaised(data) => Some(data.alert.clone()),
        _ => None,
    });
    let told = lived.told(&Subject::Alert(alert));
    assert!(!facts(&told).iter().any(|fact| fact.starts_with("step")), "an alert is told without the recovery's steps");
    let told = lived.told(&Subject::Recovery(recovery));
    assert_eq!(told.title, "recovery of db by restart, attempt 1, succeeded");
    assert_eq!(
        answer(&told, "why it was triggered"),
        "connection refused, failing since 08:01:00; policy default allows 3 within 1 h"
    );
    assert_eq!(answer(&told, "how it went"), "succeeded after 4 s, 1 step, verified");
}

#[test]
fn a_silence_is_told_with_its_author_and_reason() {
    let silence = SilenceCreated {
        silence: "deploy".into(),
        services: vec![ServiceId::new("api").unwrap()],
        matchers: vec![],
        from: at(0),
        until: at(100),
        by: "ann".into(),
        reason: "rolling out 4.2".into(),
    };
    let lived = Lived::new().then("api", "s-1", silence).probes("api", "FFF");
    let told = lived.of_incident();
    let words = "silence deploy from 08:00:00 to 08:01:40, by ann: rolling out 4.2";
    assert_eq!(answer(&told, "why it was quiet"), words);
    assert_eq!(answer(&told, "why none was triggered"), "08:00:31 the silence deploy covers it until 08:01:40");
    assert!(facts(&told).contains(&words));
    assert_eq!(answer(&lived.of_service("api"), "why it is quiet"), words);
    let told = lived.probes("api", "FFFFFFF").of_incident();
    assert_eq!(answer(&told, "why it was quiet"), format!("{words}; told after all at 08:01:41"));
    assert_eq!(answer(&told, "why not sooner"), "08:00:31 the silence deploy covers it until 08:01:40; until 08:01:41");
}

#[test]
fn each_reason_that_withholds_a_recovery_is_told() {
    let work = MaintenanceScheduled {
        maintenance: "work".into(),
        services: vec![ServiceId::new("api").unwrap()],
        from: at(0),
        until: at(1000),
        by: "bob".into(),
        reason: "new disks".into(),
    };
    let table: [(Lived, &str); 9] = [
        (
            Lived::new().then("api", "m", work).probes("api", "FFF"),
            "the maintenance window work covers it until 08:16:40",
        ),
        (Lived::new().probes("db", "FFF").probes("api", "FFF"), "db, which it depends on, has failed and comes first"),
        (
            Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Failed),
            "it waits until 08:00:50 (back-off) (15s after the last of 1 recoveries: 15s doubled each time, at most 5m)",
        ),
        (
            Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Failed).probes("db", "S"),
            "it answers again (1 of the 2 successes in a row that resolve it)",
        ),
        (
            Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Interrupted),
            "the last recovery was interrupted: what it did is not known",
        ),
        (
            Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Cancelled),
            "a person had refused the last recovery or called it off",
        ),
        (
            (0..3).fold(Lived::new().probes("db", "FFF"), |lived, _| {
                lived.finish(RecoveryOutcome::Failed).probes("db", "FFFFF")
            }),
            "the budget is spent (3 recoveries within 1h are the most that the policy default allows)",
        ),
        (Lived::new().probes("lone", "FFFFFFFFFFF"), "the policy window triggers no recovery"),
        ((0..6).fold(Lived::new(), |lived, _| lived.probes("db", "FFFSS")), "flapping from 30 % on until 20 %)"),
    ];
    for (lived, words) in table {
        let told = lived.of_withheld();
        let said = told
            .answers
            .iter()
            .find(|answer| answer.question.starts_with("why no") || answer.question.starts_with("why it waits"));
        let said = &said.unwrap_or_else(|| panic!("{words}: {:#?}", told.answers)).text;
        assert!(said.contains(words), "{words}: {said}");
        assert!(told.facts.iter().any(|fact| fact.kind == "recovery.withheld" && fact.text.contains(words)), "{words}");
    }
}

/// Every word of the closed set has a sentence of its own.
#[test]
fn every_reason_has_its_own_words() {
    let mut seen = BTreeSet::new();
    for reason in WithheldReason::ALL {
        let data = RecoveryWithheld {
            recovery: RecoveryId::new("rec-1").unwrap(),
            incident: IncidentId::new("inc-1").unwrap(),
            attempt: 1,
            change: 1,
            reason: *reason,
            by: Some("x".into()),
            until: Some(at(60)),
            detail: None,
            evidence: vec![],
        };
        let text = words::withheld(&data, at(0));
        assert!(!text.is_empty() && seen.insert(text.clone()), "{reason}: {text}");
    }
}

#[test]
fn what_waits_for_a_person_and_who_said_what_is_told() {
    let lived = Lived::new().probes("db", "FFF");
    let RecoveryTriggered { recovery, incident, .. } = lived.triggered();
    let waits = |reason, change, by: Option<&str>| RecoveryWithheld {
        recovery: recovery.clone(),
        incident: incident.clone(),
        attempt: 1,
        change,
        reason,
        by: by.map(str::to_owned),
        until: None,
        detail: None,
        evidence: vec![],
    };
    let paused: RecoveryPaused = serde_json::from_value(serde_json::json!({ "by": "cat", "reason": "audit" })).unwrap();
    let lived = lived
        .then("db", "w-1", waits(WithheldReason::Approval, 1, None))
        .then("automation", "p-1", paused)
        .then("db", "w-2", waits(WithheldReason::Paused, 2, Some("cat")));
    let told = lived.told(&Subject::Recovery(recovery.clone()));
    assert_eq!(answer(&told, "why it waits"), "08:00:31 it waits for approval; 08:00:33 cat paused automation");
    assert_eq!(answer(&lived.of_service("db"), "what is paused"), "cat paused everything: audit");
    let approved: RecoveryApproved =
        serde_json::from_value(serde_json::json!({ "recovery": recovery.as_str(), "by": "dan" })).unwrap();
    let lived = lived.then("db", "a-1", approved).finish(RecoveryOutcome::Succeeded);
    let told = lived.told(&Subject::Recovery(recovery));
    assert_eq!(answer(&told, "who decided"), "dan approved");
    assert!(answer(&told, "why not sooner").ends_with("; until 08:00:35"), "{:?}", told.answers);
}

#[test]
fn messages_are_told_with_their_keys_and_what_became_of_them() {
    let lived = Lived::new().probes("db", "FFF");
    let (incident, alert) = lived.last(|data| match data {
        EventData::AlertRaised(data) => Some((data.incident.clone(), data.alert.clone())),
        _ => None,
    });
    let channel = |name: &str| ChannelId::new(name).unwrap();
    let sent = NotificationSent {
        dedup_key: "ntf-1".into(),
        alert: alert.clone(),
        incident: incident.clone(),
        channel: channel("ops"),
        transition: Transition::Raised,
        attempt: 2,
        members: vec![],
    };
    let failed = NotificationFailed {
        dedup_key: "ntf-2".into(),
        alert,
        incident,
        channel: channel("mail"),
        transition: Transition::Raised,
        attempts: 3,
        error: "no route".into(),
        round: 0,
        members: vec![],
    };
    let told = lived.then("db", "n-1", sent).then("db", "n-2", failed).of_incident();
    assert_eq!(answer(&told, "who was told"), "ops (raised); not delivered to mail (no route)");
    let facts = facts(&told);
    assert!(facts.contains(&"told ops: raised (attempt 2) · key ntf-1"), "{facts:?}");
    assert!(facts.contains(&"could not tell mail after 3 attempts: no route · key ntf-2"), "{facts:?}");
}

#[test]
fn a_correction_is_told_beside_the_original_figures() {
    let lived = Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Succeeded).probes("db", "SS");
    let correction = corrected(&lived, "the clock was wrong", false);
    let told = lived.then("db", "c-1", correction).of_incident();
    assert_eq!(answer(&told, "what was restated"), "began 08:00:05, was 08:00:10; by eve (the clock was wrong)");
    assert_eq!(facts(&told).last(), Some(&"restated by eve (the clock was wrong) as first failure at 08:00:05"));
}

#[test]
fn why_nothing_happened_is_told_by_service() {
    let table = [
        (Lived::new().probes("db", "SSS"), "db", "well", "it answers; last seen 0 ms before"),
        (
            Lived::new().probes("db", "SFF"),
            "db",
            "failing (SOFT)",
            "2 of 3 failures in a row since 08:00:20: connection refused: below the threshold of policy default",
        ),
        (
            Lived::new().probes("lone", "FFFF"),
            "lone",
            "failed (HARD)",
            "failed since 08:00:10: connection refused; an incident opens once that has lasted 1 min",
        ),
        (
            Lived::new().probes("lone", "FSFS"),
            "lone",
            "failing (SOFT)",
            "2 of 3 failures among the last 5 observations since 08:00:10: connection refused: below the threshold of \
             policy window",
        ),
        (
            Lived::new().probes("db", "SD"),
            "db",
            "degraded",
            "it answers badly, which counts neither way; last seen 0 ms before",
        ),
    ];
    for (lived, service, state, seen) in table {
        let told = lived.of_service(service);
        assert!(told.title.starts_with(state), "{}", told.title);
        assert_eq!(answer(&told, "what was seen"), seen);
    }
    let mut lived = Lived::new().probes("db", "SS");
    lived.second += 60;
    assert_eq!(
        answer(&lived.of_service("db"), "what was seen"),
        "last seen 1 min before; after 1 min of silence it is neither up nor down"
    );
    assert_eq!(
        answer(&Lived::new().probes("lone", "S").of_service("lone"), "what never happens by itself"),
        "its policy triggers no recovery"
    );
}

#[test]
fn a_service_of_which_there_is_nothing_is_unobserved_and_one_that_the_plan_lacks_is_unknown() {
    let lived = Lived::new().probes("api", "S");
    let told = lived.of_service("db");
    assert!(told.title.starts_with("unobserved at "), "{}", told.title);
    let seen = "nothing was seen of it; after 1 min of silence it is neither up nor down";
    assert_eq!(answer(&told, "what was seen"), seen);
    let [note] = &told.notes[..] else { panic!("{:?}", told.notes) };
    assert!(note.starts_with("nothing was observed or decided in the 1 h before: --within "), "{note}");
    assert!(lived.of_service("api").notes.is_empty());
    let (service, within) = (ServiceId::new("db").unwrap(), TimeDelta::hours(1));
    let subject = |service: &ServiceId| Subject::Service { service: service.clone(), at: at(10), within };
    assert_eq!(explain(&subject(&service), &lived.log, None, at(10)), None, "without a plan");
    let unknown = ServiceId::new("none").unwrap();
    assert_eq!(explain(&subject(&unknown), &lived.log, Some(lived.plan.as_ref()), at(10)), None);
}

#[test]
fn a_silence_with_the_name_of_a_dependency_is_not_taken_for_it() {
    let silence = SilenceCreated {
        silence: "db".into(),
        services: vec![ServiceId::new("api").unwrap()],
        matchers: vec![],
        from: at(0),
        until: at(20),
        by: "ann".into(),
        reason: "moving racks".into(),
    };
    let lived = Lived::new().then("api", "s", silence).probes("db", "FFF").probes("api", "FFF");
    assert_eq!(answer(&lived.of_service("api"), "why it is quiet"), "dependency db");
}

#[test]
fn without_the_plan_that_decided_no_threshold_is_invented() {
    let lived = Lived::new().probes("db", "FFF");
    let other = Plan::parse(&PLAN.replace("intensity = 3", "intensity = 9"), "plan.toml").unwrap();
    for plan in [None, Some(&other)] {
        let subject = Subject::Incident(lived.incident());
        let told = explain(&subject, &lived.log, plan, at(100)).unwrap();
        assert!(told.notes[0].contains("no thresholds are shown"), "{:?}", told.notes);
        assert!(answer(&told, "why it fired").contains("policy default decided"), "{:?}", told.answers);
        assert!(facts(&told).contains(&"probe db failed: connection refused"));
    }
    assert_eq!(explain(&Subject::Incident(IncidentId::new("inc-no").unwrap()), &lived.log, None, at(0)), None);
}

#[test]
fn what_is_reached_for_is_bounded() {
    let lived = Lived::new().probes("db", "FFF").finish(RecoveryOutcome::Failed);
    let subject = Subject::Incident(lived.incident());
    assert_eq!(reach(&subject, &[], at(0)), Reach::default());
    let reach = reach(&subject, &lived.log, at(1_000_000));
    assert_eq!(reach.spans.len(), 2, "around its beginning and its end, not all that lies between");
    assert!(reach.spans.iter().all(|(from, until)| *until - *from < TimeDelta::hours(1)), "{:?}", reach.spans);
    assert!(reach.recoveries.contains(&lived.triggered().recovery));
    assert_eq!(reach.service.as_ref().map(ServiceId::as_str), Some("db"));
}

#[test]
fn times_and_lengths_read_well() {
    let table = [
        (0, "0 ms"),
        (340, "340 ms"),
        (4_000, "4 s"),
        (4_040, "4 s"),
        (4_200, "4.2 s"),
        (60_000, "1 min"),
        (72_500, "1 min 12 s"),
        (7_500_000, "2 h 5 min"),
        (273_600_000, "3 d 4 h"),
        (-5, "0 ms"),
    ];
    for (ms, words) in table {
        assert_eq!(span(TimeDelta::milliseconds(ms)), words);
    }
    assert_eq!(clock(at(0), at(5)), "08:00:00");
    assert_eq!(clock(at(0), at(86_400)), "2027-01-15 08:00:00");
}

/// A long history with everything in it, for the properties.
fn everything() -> &'static Lived {
    static LIVED: std::sync::OnceLock<Lived> = std::sync::OnceLock::new();
    LIVED.get_or_init(|| {
        let lived = Lived::new().probes("db", "SSFFF").finish(RecoveryOutcome::Failed).probes("db", "FFFF");
        let correction = corrected(&lived, "x", true);
        let silence = SilenceCreated {
            silence: "s".into(),
            services: vec![ServiceId::new("api").unwrap()],
            matchers: vec![],
            from: at(0),
            until: at(1000),
            by: "ann".into(),
            reason: "y".into(),
        };
        lived
            .then("db", "c", correction)
            .then("api", "s", silence)
            .probes("api", "FFFFF")
            .finish(RecoveryOutcome::Succeeded)
            .probes("db", "SSSFFF")
            .finish(RecoveryOutcome::Interrupted)
            .probes("db", "FSFSFSFSFSFS")
            .probes("api", "SS")
            .probes("lone", "FFSFFFFFFFFF")
    })
}

/// What that history can be asked about, and what it knows nothing of.
fn subjects() -> &'static [Subject] {
    static SUBJECTS: std::sync::OnceLock<Vec<Subject>> = std::sync::OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let lived = everything();
        let mut subjects = vec![Subject::Incident(IncidentId::new("inc-none").unwrap())];
        for event in &lived.log {
            let Named { incident, alert, recovery } = named(event);
            let named = [incident.map(Subject::Incident), alert.map(Subject::Alert), recovery.map(Subject::Recovery)];
            subjects.extend(named.into_iter().flatten());
        }
        for service in ["db", "api", "lone", "none"] {
            let service = ServiceId::new(service).unwrap();
            subjects.push(Subject::Service { service, at: at(lived.second / 2), within: TimeDelta::minutes(5) });
        }
        subjects
    })
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// Any part of a history, in any order, delivered as often as you like: it is told without a panic, every event
    /// that is named was there, and the order in which they came changes nothing.
    #[test]
    fn no_history_makes_it_panic_or_name_what_is_not_there(
        keep in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
        order in any::<u64>(),
        about in any::<prop::sample::Index>(),
        with_plan in any::<bool>(),
    ) {
        let lived = everything();
        let events: Vec<Event> = keep.iter().map(|at| at.get(&lived.log).clone()).collect();
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|event| (event.id.as_str().len() as u64).wrapping_mul(order | 1) ^ order.rotate_left(event.occurred_at.timestamp() as u32 % 64));
        let subject = about.get(subjects());
        let plan = Some(lived.plan.as_ref()).filter(|_| with_plan);
        let told = explain(subject, &events, plan, at(lived.second));
        prop_assert_eq!(&told, &explain(subject, &shuffled, plan, at(lived.second)));
        let _ = reach(subject, &events, at(lived.second));
        if let Some(told) = told {
            for of in named_events(&told) {
                prop_assert!(events.iter().any(|event| event.source == of.source && event.id == of.id), "{:?}", of);
            }
        }
    }
}
