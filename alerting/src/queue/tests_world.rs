//! A small world of instances that crash, take over and read things again.

use proptest::prelude::*;

use super::tests::{at, map, queue, recovery, resolved, started, told, trigger};
use super::*;

#[derive(Debug, Clone)]
enum Op {
    Trigger(usize),
    Resolve(usize),
    /// Decide and act on every command; crash after so many journal records, if that many are made.
    Work(Option<usize>),
    /// The oldest running recovery ends; its end is journalled, or not, as the runner died.
    End(bool),
    /// The owner dies, another takes over.
    Crash,
    /// Another takes over while the old owner still believes that it owns, and acts on what it decides.
    Pause,
    /// The bus delivers a stretch of the log again.
    Redeliver(usize, usize),
}

const NAMES: [&str; 4] = ["db", "api", "web", "cache"];

/// One partition's log, its owner, and what was executed.
#[derive(Debug)]
struct World {
    log: Vec<Event>,
    owner: Queue,
    executed: BTreeMap<RecoveryId, u32>,
    attempts: [u32; 4],
    clock: i64,
}

impl World {
    fn append(&mut self, event: Event) {
        self.owner.evolve(&event);
        self.log.push(event);
    }

    fn take_over(&mut self) {
        self.owner = queue(&self.log);
    }

    /// Acts on what the owner decides; false if it crashed on the way.
    fn work(&mut self, mut records: usize) -> bool {
        let mut crash = || {
            records = records.saturating_sub(1);
            records == 0
        };
        for command in self.owner.decide(&map(), at(self.clock), |_| true) {
            match command {
                Command::Start { triggered } => {
                    let EventData::RecoveryTriggered(data) = &triggered.data else { panic!() };
                    let id = data.recovery.clone();
                    self.owner.begin(&id);
                    self.append(started(triggered.subject.as_str(), data.attempt, self.clock));
                    if crash() {
                        return false;
                    }
                    *self.executed.entry(id).or_default() += 1;
                }
                Command::Expire { events } => {
                    events.into_iter().for_each(|event| self.append(event));
                    if crash() {
                        return false;
                    }
                }
                Command::Finish { finished } => {
                    self.append(*finished);
                    if crash() {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn end(&mut self, journalled: bool) {
        let Some(id) = self.owner.running().next().cloned() else { return };
        if journalled {
            let entry = &self.owner.entries[&id];
            let outcome = RecoveryOutcome::Succeeded;
            let finished = self.owner.finished(&id, entry, outcome, "", &map(), at(self.clock));
            self.append(finished);
        }
        self.owner.end(&id, journalled);
    }

    fn step(&mut self, op: &Op) {
        self.clock += 1;
        match op {
            Op::Trigger(which) => {
                self.attempts[*which] += 1;
                let event = trigger(NAMES[*which], self.attempts[*which], self.clock, TriggerMode::Auto, None);
                self.append(event);
            }
            Op::Resolve(which) => self.append(resolved(NAMES[*which], self.clock)),
            Op::Work(crash_after) => {
                if !self.work(crash_after.map_or(usize::MAX, |n| n + 1)) {
                    self.take_over();
                }
            }
            Op::End(journalled) => self.end(*journalled),
            Op::Crash => self.take_over(),
            Op::Pause => {
                // What the old owner decides from now on is refused by the journal, so it executes nothing; what it
                // decided may not change what the new owner sees.
                let mut old = self.owner.clone();
                self.take_over();
                for command in old.decide(&map(), at(self.clock), |_| true) {
                    if let Command::Start { triggered } = command
                        && let EventData::RecoveryTriggered(data) = &triggered.data
                    {
                        old.begin(&data.recovery);
                        old.end(&data.recovery, false);
                    }
                }
                // It rejoins later and reads what happened meanwhile: it becomes the owner again.
                self.log.iter().for_each(|event| old.evolve(event));
                let running: Vec<_> = old.running().cloned().collect();
                running.iter().for_each(|id| old.end(id, false));
                self.owner = old;
            }
            Op::Redeliver(from, count) => {
                let from = from % self.log.len().max(1);
                let stretch: Vec<Event> = self.log.iter().skip(from).take(*count).cloned().collect();
                stretch.iter().for_each(|event| self.owner.evolve(event));
            }
        }
    }

    fn ends(&self, id: &RecoveryId) -> Vec<RecoveryOutcome> {
        let outcome = |event: &Event| match &event.data {
            EventData::RecoveryFinished(data) if data.recovery == *id => Some(data.outcome),
            _ => None,
        };
        self.log.iter().filter_map(outcome).collect()
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4usize).prop_map(Op::Trigger),
        1 => (0..4usize).prop_map(Op::Resolve),
        6 => proptest::option::of(0..3usize).prop_map(Op::Work),
        4 => any::<bool>().prop_map(Op::End),
        1 => Just(Op::Crash),
        1 => Just(Op::Pause),
        2 => (any::<usize>(), 0..20usize).prop_map(|(from, count)| Op::Redeliver(from, count)),
    ]
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    #[test]
    fn every_recovery_runs_at_most_once_and_ends_exactly_once(ops in proptest::collection::vec(any_op(), 0..50)) {
        let mut world = World {
            log: vec![], owner: queue(&[]), executed: BTreeMap::new(), attempts: [0; 4], clock: 0,
        };
        for op in &ops {
            world.step(op);
            prop_assert!(world.executed.values().all(|n| *n <= 1), "{:?} after {op:?}", world.executed);
        }
        // Left alone, everything comes to an end: nothing is forgotten, and nothing ends twice.
        for _ in 0..1000 {
            world.step(&Op::Work(None));
            world.step(&Op::End(true));
            if world.owner.pending() == 0 && world.owner.running().next().is_none() {
                break;
            }
        }
        prop_assert_eq!(world.owner.pending(), 0);
        for (name, attempts) in NAMES.iter().zip(world.attempts) {
            for attempt in 1..=attempts {
                let id = recovery(name, attempt);
                let ends = world.ends(&id);
                prop_assert_eq!(ends.len(), 1, "{} ended as {:?}", id, ends);
                let ran = world.executed.get(&id).copied().unwrap_or_default();
                prop_assert!(ran <= 1 && (ends[0] != RecoveryOutcome::Succeeded || ran == 1));
                prop_assert!(ends[0] != RecoveryOutcome::Cancelled || ran == 0);
            }
        }
    }

    #[test]
    fn a_queue_rebuilt_from_the_log_decides_the_same(ops in proptest::collection::vec(any_op(), 0..60)) {
        let mut world = World {
            log: vec![], owner: queue(&[]), executed: BTreeMap::new(), attempts: [0; 4], clock: 0,
        };
        ops.iter().for_each(|op| world.step(op));
        // Only what is running here is known to this instance alone.
        while world.owner.running().next().is_some() {
            world.end(true);
        }
        let rebuilt = queue(&world.log);
        let decide = |queue: &Queue| told(&queue.decide(&map(), at(world.clock), |_| true));
        prop_assert_eq!(decide(&rebuilt), decide(&world.owner));
    }
}
