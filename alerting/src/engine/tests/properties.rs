//! Properties over generated histories: failures, successes, silences, dependencies, recoveries that end in every
//! way, pauses, promotions, redeliveries, restarts anywhere; under a plan without limits and under one with them. Ten
//! thousand cases each; `PROPTEST_CASES` asks for others.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use proptest::prelude::*;
use rebound_schemas::event::Transition;

use super::lived::{Lived, Step, op, restarted, sorted, step};
use super::world::guarded_plan;
use super::*;
use crate::notify::Notifier;
use crate::threshold::{ProbeState, Rule};

fn plan_messages(notifier: &Notifier, now: DateTime<Utc>) -> Vec<Event> {
    notifier.plan(now, &|_| false, &|_| true).events
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// Killed anywhere, an engine that folded the history decides the same as one that lived on; and folding
    /// decides nothing, neither at once nor when time is told.
    #[test]
    fn a_restart_changes_no_decision(
        ops in prop::collection::vec(op(), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        by_topic in any::<bool>(),
        guarded in any::<bool>(),
    ) {
        let plan = if guarded { guarded_plan() } else { plan() };
        let mut lived = Lived::live_by(plan.clone(), &ops);
        lived.heal();
        for cut in cuts {
            let cut = cut.index(lived.steps.len());
            let past = lived.steps[..cut].iter().flat_map(|step| step.input.iter().chain(&step.decided));
            let mut engine = restarted(&plan, past, by_topic);
            if let Some(last) = cut.checked_sub(1) {
                prop_assert_eq!(engine.tick(lived.steps[last].now), vec![], "replay decided");
            }
            for Step { now, input, decided } in &lived.steps[cut..] {
                // Of several services whose time has come at once, either may be first.
                prop_assert_eq!(sorted(&step(&mut engine, *now, input.as_ref())), sorted(decided), "at {}", now);
            }
        }
    }

    /// Ids are unique, one trigger an attempt, attempts count up, and everything that opened closes once.
    #[test]
    fn every_transition_happens_once_and_every_alert_resolves(
        ops in prop::collection::vec(op(), 1..40),
        guarded in any::<bool>(),
    ) {
        let mut lived = Lived::live_by(if guarded { guarded_plan() } else { plan() }, &ops);
        lived.heal();
        let mut ids = BTreeSet::new();
        let mut attempts: BTreeMap<IncidentId, u32> = BTreeMap::new();
        let (mut opened, mut resolved) = (BTreeSet::new(), BTreeSet::new());
        let (mut alerts, mut quiet) = (BTreeSet::new(), BTreeSet::new());
        for event in lived.decided() {
            prop_assert!(ids.insert(event.id.clone()), "{} was decided twice", event.id);
            prop_assert_eq!(event.source.as_str(), crate::SOURCE);
            prop_assert_eq!(event.plan.as_ref(), Some(lived.engine.plan().version()));
            match &event.data {
                EventData::RecoveryTriggered(data) => {
                    let last = attempts.entry(data.incident.clone()).or_default();
                    prop_assert_eq!(data.attempt, *last + 1);
                    *last += 1;
                }
                EventData::RecoveryWithheld(data) => {
                    let before = lived.log.iter().take_while(|known| known.id != event.id);
                    let known: BTreeSet<_> = before.map(|known| (&known.source, &known.id)).collect();
                    prop_assert!(data.evidence.iter().all(|of| known.contains(&(&of.source, &of.id))), "{:?}", data);
                }
                EventData::IncidentOpened(data) => prop_assert!(opened.insert(data.incident.clone())),
                EventData::AlertRaised(data) => prop_assert!(alerts.insert(data.alert.clone())),
                EventData::AlertSuppressed(data) => {
                    prop_assert!(!alerts.contains(&data.alert), "suppressed after it was told");
                    quiet.insert(data.alert.clone());
                }
                EventData::AlertResolved(data) => {
                    let raised = alerts.remove(&data.alert);
                    prop_assert!(quiet.remove(&data.alert) || raised, "resolved what was neither raised nor suppressed");
                }
                EventData::IncidentResolved(data) => {
                    prop_assert!(opened.contains(&data.incident));
                    prop_assert!(resolved.insert(data.incident.clone()));
                }
                _ => {}
            }
        }
        prop_assert!(alerts.is_empty() && quiet.is_empty(), "never resolved: {alerts:?} {quiet:?}");
        prop_assert_eq!(opened, resolved);
    }

    /// Everything delivered once more, in order, while live: nothing is decided and nothing changes.
    #[test]
    fn redelivery_changes_nothing(
        ops in prop::collection::vec(op(), 1..40),
        from in any::<prop::sample::Index>(),
        guarded in any::<bool>(),
    ) {
        let mut lived = Lived::live_by(if guarded { guarded_plan() } else { plan() }, &ops);
        lived.step(None);
        let now = at(lived.second);
        let before: Vec<_> = lived.engine.statuses(now).collect();
        let from = from.index(lived.log.len().max(1));
        for event in lived.log.get(from..).unwrap_or_default() {
            prop_assert_eq!(lived.engine.handle(event, now), vec![]);
        }
        prop_assert_eq!(lived.engine.statuses(now).collect::<Vec<_>>(), before);
        prop_assert_eq!(lived.engine.tick(now), vec![]);
    }

    /// Whatever is told or triggered has no silence and no failed, observed dependency at that time.
    #[test]
    fn nothing_is_told_or_triggered_while_suppressed(ops in prop::collection::vec(op(), 1..40)) {
        let lived = Lived::live(&ops);
        let mut db_open = false;
        let mut silenced: BTreeMap<String, (DateTime<Utc>, DateTime<Utc>)> = BTreeMap::new();
        for event in &lived.log {
            let told = matches!(event.kind(), Kind::AlertRaised | Kind::RecoveryTriggered);
            if event.source.as_str() == crate::SOURCE && told && lived_first(&lived.log, event) {
                // Time is told before the event of the same moment: what it called for comes first.
                let until = silenced.get(event.subject.as_str());
                prop_assert!(until.is_none_or(|(from, until)| *until <= event.occurred_at || event.occurred_at <= *from), "{event:?} in a silence");
                // The dependency suppresses while observed; its incident outlives that by as long as it is silent.
                if event.subject.as_str() == "api" && db_open {
                    let heard = lived.log.iter().filter(|e| e.kind() == Kind::ProbeCompleted);
                    let heard = heard.filter(|e| e.subject.as_str() == "db" && e.occurred_at < event.occurred_at);
                    let heard = heard.map(|e| e.occurred_at).max().unwrap();
                    prop_assert!(event.occurred_at - heard >= TimeDelta::seconds(60), "{event:?} before db");
                }
            }
            match &event.data {
                EventData::SilenceCreated(data) => {
                    let until = silenced.entry(event.subject.to_string()).or_insert((data.from, data.until));
                    if lived_first(&lived.log, event) {
                        *until = (data.from, data.until);
                    }
                }
                EventData::IncidentOpened(_) if event.subject.as_str() == "db" && lived_first(&lived.log, event) => {
                    db_open = true;
                }
                EventData::IncidentResolved(_) if event.subject.as_str() == "db" && lived_first(&lived.log, event) => {
                    db_open = false;
                }
                _ => {}
            }
        }
    }

    /// Nothing is triggered while a pause covers it, and every pause is over at the time that it says.
    #[test]
    fn nothing_is_triggered_while_paused(ops in prop::collection::vec(op(), 1..40)) {
        let lived = Lived::live(&ops);
        let mut pauses = crate::pause::Pauses::default();
        for Step { now, input, decided } in &lived.steps {
            // Time is told before the event of the same moment, and what is said is in force when it decides.
            let before = pauses.clone();
            if let Some(event) = input {
                pauses.evolve(event);
            }
            for event in decided.iter().filter(|event| event.kind() == Kind::RecoveryTriggered) {
                let held = |pauses: &crate::pause::Pauses| {
                    let (service, site, tier, procedure) = (&event.subject, None, None, None);
                    pauses.active(crate::pause::Target { service, site, tier, procedure }, *now).is_some()
                };
                prop_assert!(!held(&before) || !held(&pauses), "{event:?}");
            }
        }
    }

    /// With more than one service down nothing is triggered by itself, and nothing is by a demoted procedure; a stop is
    /// told at most once an incident, and only while there is one.
    #[test]
    fn nothing_runs_by_itself_beyond_the_limits(ops in prop::collection::vec(op(), 1..40)) {
        let lived = Lived::live_by(guarded_plan(), &ops);
        let mut down: BTreeMap<String, IncidentId> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let (mut failures, mut demoted, mut told) = (Vec::new(), false, BTreeSet::new());
        for event in lived.log.iter().filter(|event| seen.insert((event.source.clone(), event.id.clone()))) {
            match &event.data {
                EventData::IncidentOpened(data) => drop(down.insert(event.subject.to_string(), data.incident.clone())),
                EventData::IncidentResolved(data) => down.retain(|_, incident| *incident != data.incident),
                EventData::RecoveryFinished(data) => failures.push(match data.outcome {
                    RecoveryOutcome::Failed | RecoveryOutcome::Interrupted => true,
                    RecoveryOutcome::Succeeded => false,
                    _ => continue,
                }),
                EventData::ProcedureDemoted(data) => {
                    let newest = failures.iter().rev().take(3).filter(|failed| **failed).count();
                    prop_assert!(newest > 0 && !demoted, "{data:?}");
                    demoted = true;
                }
                EventData::ProcedurePromoted(_) => {
                    demoted = false;
                    failures.clear();
                }
                EventData::RecoveryTriggered(data) if data.mode == TriggerMode::Auto => {
                    prop_assert!(down.len() <= 1, "{data:?} with {down:?} down");
                    prop_assert!(!demoted, "{data:?}");
                }
                EventData::RecoveryEscalated(data) => if let Some(stopped) = &data.stopped {
                    prop_assert!(down.len() > 1 && stopped.down as usize == down.len(), "{data:?}");
                    prop_assert!(told.insert(data.incident.clone()), "twice: {data:?}");
                },
                _ => {}
            }
        }
    }

    /// Each channel learns of each told alert once, and of its resolve once, after it; restarts between.
    #[test]
    fn every_told_transition_is_told_once(
        ops in prop::collection::vec(op(), 1..40),
        lose in prop::collection::vec(prop::bool::weighted(0.15), 16),
    ) {
        let mut lived = Lived::live(&ops);
        lived.heal();
        let mut notifier = Notifier::new(plan());
        let mut history: Vec<Event> = Vec::new();
        let mut told: BTreeMap<(String, String), Vec<Transition>> = BTreeMap::new();
        for (n, step) in lived.steps.iter().enumerate() {
            for event in step.input.iter().chain(&step.decided) {
                notifier.fold(event);
                history.push(event.clone());
            }
            // A resolve is due once its raise is settled, so a second look may find more; a third never does.
            for _ in 0..2 {
                for event in plan_messages(&notifier, step.now) {
                    notifier.fold(&event);
                    history.push(event);
                }
                for notice in notifier.due() {
                    let transitions = told.entry((notice.first().told.alert.to_string(), notice.channel.to_string())).or_default();
                    transitions.push(notice.first().told.transition);
                    let event = match n % 5 {
                        0 => notice.failed(3, "gone".into(), step.now),
                        _ => notice.sent(1, step.now),
                    };
                    notifier.fold(&event);
                    history.push(event);
                }
            }
            prop_assert!(plan_messages(&notifier, step.now).is_empty(), "due again");
            if lose[n % lose.len()] {
                notifier = Notifier::new(plan());
                history.iter().for_each(|event| notifier.fold(event));
                prop_assert!(plan_messages(&notifier, step.now).is_empty(), "due again after a restart");
            }
        }
        let raised: BTreeSet<_> = lived.decided().filter_map(|event| match &event.data {
            EventData::AlertRaised(data) => Some(data.alert.to_string()),
            _ => None,
        }).collect();
        prop_assert_eq!(told.len(), raised.len() * 2, "two channels an alert");
        for ((alert, _), transitions) in told {
            prop_assert!(raised.contains(&alert));
            prop_assert_eq!(transitions.first(), Some(&Transition::Raised));
            prop_assert_eq!(transitions.last(), Some(&Transition::Resolved));
            let count = |wanted| transitions.iter().filter(|transition| **transition == wanted).count();
            prop_assert_eq!((count(Transition::Raised), count(Transition::Resolved)), (1, 1));
            prop_assert!(count(Transition::Escalated) <= 1);
        }
    }
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// The machine of one probe agrees with the definition written down over whole lists.
    #[test]
    fn a_probe_is_hard_when_the_definition_says_so(
        failures in 1..6_u32,
        more in prop::option::of(0..6_u32),
        recoveries in 1..4_u32,
        outcomes in prop::collection::vec(prop::sample::select("FFFSSD".chars().collect::<Vec<_>>()), 0..80),
    ) {
        let of = more.map(|more| failures + more);
        let rule = Rule { failures, of, recoveries, sites: 1, silent_after: TimeDelta::seconds(60), degraded_fails: false };
        let mut probe = ProbeState::default();
        let (mut hard, mut counted) = (false, Vec::new());
        for (second, letter) in outcomes.iter().enumerate() {
            let event = probe_from("db", "db", None, second as i64, outcome_of(*letter));
            let EventData::ProbeCompleted(data) = &event.data else { unreachable!() };
            prop_assert!(probe.observe(&rule, &event, data));
            prop_assert!(!probe.observe(&rule, &event, data), "a second time");
            if *letter != 'D' {
                counted.push(*letter);
            }
            let newest = |n: u32| counted.iter().rev().take(n as usize);
            if hard {
                if counted.len() >= recoveries as usize && newest(recoveries).all(|l| *l == 'S') {
                    hard = false;
                    counted.clear();
                }
            } else {
                let window = of.unwrap_or(failures);
                hard = newest(window).filter(|l| **l == 'F').count() >= failures as usize;
            }
            prop_assert_eq!(probe.is_hard(), hard, "after {:?}", &outcomes[..=second]);
        }
    }
}

/// Whether this is the first of its deliveries.
fn lived_first(log: &[Event], event: &Event) -> bool {
    log.iter()
        .find(|known| known.source == event.source && known.id == event.id)
        .is_some_and(|k| std::ptr::eq(k, event))
}
