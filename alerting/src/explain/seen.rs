//! The facts of a story: decisions as they are, observations with their place against the threshold, and runs of
//! equal ones drawn together.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{EventRef, Outcome};
use rebound_schemas::plan::{Plan, Policy};
use rebound_schemas::{Event, EventData, ProbeId};

use super::choose::{Story, rank};
use super::{Fact, words};
use crate::threshold::{ProbeState, Rule};

/// Equal observations between two decisions that are told one by one; the rest is drawn together.
const ONE_BY_ONE: usize = 3;

/// A fact and its place among those of the same time.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) fact: Fact,
    pub(super) at: DateTime<Utc>,
    pub(super) rank: u8,
}

fn fact(story: &Story<'_>, event: &Event, text: String) -> Placed {
    let fact = Fact {
        at: event.occurred_at,
        event: EventRef::from(event),
        kind: event.kind().as_str(),
        depth: words::depth(&event.data),
        text,
        evidence: story.evidence(&event.data),
    };
    Placed { at: event.occurred_at, rank: rank(event), fact }
}

/// What an observation did to its probe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    text: String,
    /// The probe's state turned: told by itself, however many are like it.
    turned: bool,
    /// It turned to OK.
    recovered: bool,
}

/// Where each of a service's probe results stood against the policy; nothing without one.
fn marks(observed: &[&Event], policy: Option<&Policy>) -> HashMap<EventRef, Mark> {
    let mut marks = HashMap::new();
    let Some(policy) = policy else { return marks };
    let rule = Rule::from(policy);
    let mut probes: BTreeMap<&ProbeId, ProbeState> = BTreeMap::new();
    for event in observed {
        let EventData::ProbeCompleted(data) = &event.data else { continue };
        let probe = probes.entry(&data.probe).or_default();
        let before = (probe.is_hard(), probe.is_flapping(), probe.streak().map_or(0, |streak| streak.failures));
        if !probe.observe(&rule, event, data) {
            continue;
        }
        let failures = probe.streak().map_or(0, |streak| streak.failures);
        let of = rule.of.map(|of| format!(" among the last {of}")).unwrap_or_default();
        let text = match (before.0, probe.is_hard(), data.outcome) {
            (false, true, _) => format!("failure {failures} of {}{of}: HARD", rule.failures),
            (false, false, Outcome::Failed) => format!("failure {failures} of {}{of}: SOFT", rule.failures),
            (true, true, Outcome::Failed) => "still HARD".to_owned(),
            (true, true, Outcome::Healthy) => format!("success {} of {}", probe.successes(), rule.recoveries),
            (true, false, _) => format!("success {0} of {0}: OK", rule.recoveries),
            (false, false, Outcome::Healthy) if before.2 > 0 && failures == 0 => "counts from 0 again".to_owned(),
            _ => String::new(),
        };
        let flaps = match (before.1, probe.is_flapping()) {
            (false, true) => format!(" · begins to flap ({:.1} % changes)", probe.flapping_share() * 100.0),
            (true, false) => format!(" · no longer flaps ({:.1} % changes)", probe.flapping_share() * 100.0),
            _ => String::new(),
        };
        let turned = before.0 != probe.is_hard() || !flaps.is_empty();
        let recovered = before.0 && !probe.is_hard();
        marks.insert(EventRef::from(*event), Mark { text: format!("{text}{flaps}"), turned, recovered });
    }
    marks
}

/// What makes two observations alike.
type Likeness = (String, Option<Outcome>);

fn likeness(event: &Event) -> Likeness {
    match &event.data {
        EventData::ProbeCompleted(data) => (data.probe.to_string(), Some(data.outcome)),
        _ => (event.kind().as_str().to_owned(), None),
    }
}

/// Every fact, in no order yet.
pub(super) fn facts(story: &Story<'_>, plan: Option<&Plan>) -> Vec<Placed> {
    let told = story.decided.iter().chain(&story.others);
    let mut facts: Vec<Placed> = told.map(|event| fact(story, event, words::sentence(event))).collect();
    for (placed, event) in facts[story.decided.len()..].iter_mut().zip(&story.others) {
        placed.fact.depth = 1;
        if matches!(event.data, EventData::IncidentOpened(_) | EventData::IncidentResolved(_)) {
            placed.fact.text = format!("{}: {}", event.subject, placed.fact.text);
        }
    }
    let marks = marks(&story.watched, plan.and_then(|plan| plan.policy_of(&story.service)));
    let sentence = |event: &Event| match marks.get(&EventRef::from(event)).filter(|mark| !mark.text.is_empty()) {
        Some(mark) => format!("{} · {}", words::sentence(event), mark.text.trim_start_matches(" · ")),
        None => words::sentence(event),
    };
    // An earlier outage that ended before this one began is another story.
    let began = story.decided.iter().find_map(|event| match &event.data {
        EventData::IncidentOpened(data) => Some(data.first_failure_at),
        _ => None,
    });
    let recovered = |event: &&&Event| marks.get(&EventRef::from(**event)).is_some_and(|mark| mark.recovered);
    let earlier = story.observed.iter().filter(|event| began.is_some_and(|t0| event.occurred_at < t0));
    let cut = earlier.filter(recovered).map(|event| event.occurred_at).max().filter(|_| !story.of_service);
    let turns = |event: &Event| marks.get(&EventRef::from(event)).is_some_and(|mark| mark.turned);
    let mut decisions: Vec<DateTime<Utc>> = story.decided.iter().map(|event| event.occurred_at).collect();
    decisions.sort_unstable();
    // Between two decisions, alike ones are together; of their kind a turn begins anew.
    let mut stretches: BTreeMap<(usize, u32, Likeness), Vec<&Event>> = BTreeMap::new();
    let mut turned: BTreeMap<String, u32> = BTreeMap::new();
    for event in story.observed.iter().filter(|event| cut.is_none_or(|cut| event.occurred_at > cut)) {
        let like = likeness(event);
        let stretch = decisions.partition_point(|at| *at < event.occurred_at);
        if turns(event) {
            *turned.entry(like.0.clone()).or_default() += 1;
            facts.push(fact(story, event, sentence(event)));
            continue;
        }
        let turn = turned.get(&like.0).copied().unwrap_or_default();
        stretches.entry((stretch, turn, like)).or_default().push(event);
    }
    for alike in stretches.into_values() {
        let one_by_one = if alike.len() > ONE_BY_ONE { 1 } else { alike.len() };
        facts.extend(alike[..one_by_one].iter().map(|event| fact(story, event, sentence(event))));
        if let [middle @ .., last] = &alike[one_by_one..] {
            facts.push(fact(story, last, format!("{} · and {} more before it", sentence(last), middle.len())));
        }
    }
    facts
}
