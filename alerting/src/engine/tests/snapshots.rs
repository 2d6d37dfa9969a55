//! A snapshot changes nothing: taken anywhere, and taken up after a kill anywhere, the state is that of an engine that
//! lived on, and so is everything that is decided from then on.

use proptest::prelude::*;
use rebound_schemas::Topic;

use super::lived::{Lived, Step, op, sorted, step};
use super::world::guarded_plan;
use super::*;
use crate::engine::snapshot::Observed;

/// Everything that was observed, written down.
pub(super) fn observed(engine: &Engine) -> Vec<u8> {
    let mut lines = Vec::new();
    write(engine, 0..engine.services(), &mut lines);
    lines
}

fn write(engine: &Engine, numbers: std::ops::Range<usize>, to: &mut Vec<u8>) {
    engine.write_observed(numbers, |_, line| to.extend(line));
}

/// An engine that folds the decisions, takes up the snapshot, and folds the observations that came since it was begun.
pub(super) fn resumed<'a>(
    mut engine: Engine,
    decided: impl Iterator<Item = &'a Event> + Clone,
    snapshot: &[u8],
    since: impl Iterator<Item = &'a Event>,
) -> Engine {
    engine.own_where(|_| true);
    for topic in [Topic::Alerts, Topic::Recoveries] {
        decided.clone().filter(|event| event.kind().topic() == topic).for_each(|event| engine.fold(event));
    }
    engine.restore(Observed::read(snapshot).unwrap());
    since.filter(|event| event.kind().topic() == Topic::Observations).for_each(|event| engine.fold(event));
    engine
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    #[test]
    fn an_engine_that_takes_up_a_snapshot_goes_on_as_if_it_had_lived(
        ops in prop::collection::vec(op(), 1..30),
        begun in any::<prop::sample::Index>(),
        pace in 0..4_usize,
        killed in any::<prop::sample::Index>(),
        guarded in any::<bool>(),
    ) {
        let plan = if guarded { guarded_plan() } else { plan() };
        let mut lived = Lived::live_by(plan.clone(), &ops);
        lived.heal();
        // Lived again, to write services down one after the other, `pace` steps apart, from `begun` on.
        let mut engine = Engine::new(plan.clone());
        engine.own_where(|_| true);
        let begun = begun.index(lived.steps.len());
        let (mut snapshot, mut written) = (Vec::new(), 0);
        let mut killed = begun + killed.index(lived.steps.len() - begun);
        for (n, Step { now, input, .. }) in lived.steps.iter().enumerate() {
            while written < engine.services() && n >= begun + written * pace {
                write(&engine, written..written + 1, &mut snapshot);
                written += 1;
            }
            if n >= killed && written == engine.services() {
                killed = n;
                break;
            }
            step(&mut engine, *now, input.as_ref());
        }
        if written < engine.services() {
            return Ok(());
        }
        let past = lived.steps[..killed].iter().flat_map(|step| step.input.iter().chain(&step.decided));
        let since = lived.steps[begun..killed].iter().flat_map(|step| &step.input);
        let mut again = resumed(Engine::new(plan), past, &snapshot, since);
        prop_assert_eq!(String::from_utf8(observed(&again)).unwrap(), String::from_utf8(observed(&engine)).unwrap());
        if let Some(last) = killed.checked_sub(1) {
            prop_assert_eq!(again.tick(lived.steps[last].now), vec![], "what was over is decided again");
        }
        for Step { now, input, decided } in &lived.steps[killed..] {
            prop_assert_eq!(sorted(&step(&mut again, *now, input.as_ref())), sorted(decided), "at {}", now);
        }
    }
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    /// The same of what is measured, of what time brings about, and of budgets.
    #[test]
    fn conditions_that_are_taken_up_hold_what_they_held(
        ops in prop::collection::vec(conditions::op(), 1..12),
        begun in any::<prop::sample::Index>(),
    ) {
        let mut world = conditions::world(conditions::ALL);
        let begun = begun.index(ops.len());
        let (mut snapshot, mut stood) = (Vec::new(), 0);
        for (n, op) in ops.into_iter().enumerate() {
            if n == begun {
                (snapshot, stood) = (observed(&world.engine), world.log.len());
            }
            conditions::apply(&mut world, op);
        }
        let mut again = Engine::new(world.engine.plan().clone());
        again.seen_since(at(0));
        let mut again = resumed(again, world.log.iter(), &snapshot, world.log[stood..].iter());
        prop_assert_eq!(String::from_utf8(observed(&again)).unwrap(), String::from_utf8(observed(&world.engine)).unwrap());
        prop_assert_eq!(again.tick(at(world.second)), vec![]);
    }
}

#[test]
fn what_is_damaged_or_of_another_format_is_no_snapshot() {
    let mut world = World::new();
    world.probes("db", "SFF");
    world.probes("api", "S");
    let lines = observed(&world.engine);
    assert_eq!(Observed::read(&lines).unwrap().len(), world.engine.services());
    assert!(Observed::read(b"").unwrap().is_empty());
    let text = String::from_utf8(lines.clone()).unwrap();
    for (from, to) in
        [("\"turned\"", "\"turn\""), ("\"heard_at\":", "\"heard_at\":x"), ("\"probes\":[", "\"probes\":[[")]
    {
        let error = Observed::read(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 1: "), "{error}");
    }
    let error = Observed::read(&lines[..lines.len() - 9]).unwrap_err();
    assert!(error.to_string().starts_with("line 4: "), "{error}");
}

#[test]
fn services_that_are_not_owned_or_not_in_the_plan_are_passed_over() {
    let mut world = World::new();
    world.probes("db", "SFF");
    world.probes("api", "FFF");
    let lines =
        String::from_utf8(observed(&world.engine)).unwrap().replace("\"service\":\"db\"", "\"service\":\"gone\"");
    let read = || Observed::read(lines.as_bytes()).unwrap();
    let mut engine = Engine::new(plan());
    assert_eq!(engine.restore(read()), 0, "nothing is owned");
    engine.own_where(|_| true);
    assert_eq!(engine.restore(read()), 3);
    assert_eq!(engine.status(&service("api"), at(world.second)).unwrap().failures, 3);
    assert_eq!(engine.status(&service("db"), at(world.second)).unwrap().failures, 0);
}
