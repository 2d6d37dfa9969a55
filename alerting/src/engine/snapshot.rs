//! What was observed of services, written down and taken up again, so that a start need not read it all anew.
//!
//! A snapshot is a cache and no truth: state is what the topics say. It holds the half of the state that comes of
//! observations, a service a line; what was decided is always folded from its own topics. It is of use only together
//! with the plan, the place in the topic and the format that it was written under, which the shell keeps beside it and
//! compares; whatever does not read as it was written is no snapshot.
//!
//! Services may be written down at different times, some thousands after the others, while observations go on: one
//! that is folded again after its service took it up changes nothing. So a shell that noted where it stood *before* it
//! began writes at its leisure, and reads on from there:
//!
//! 1. [`Engine::fold`] the decisions,
//! 2. [`Engine::restore`],
//! 3. [`Engine::fold`] the observations from where it stood before the first service was written down.

use std::ops::Range;

use chrono::{DateTime, Utc};
use rebound_schemas::{IncidentId, ProbeId, ServiceId};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::condition::Watch;
use crate::threshold::{ProbeState, Verdict};

/// Raised whenever a rule, or what is written down, changes so that an older snapshot is none of this program's states.
pub const FORMAT: u32 = 1;

/// A snapshot's line can't be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {source}")]
pub struct Unreadable {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    source: serde_json::Error,
}

/// What was observed of some services.
#[derive(Debug)]
pub struct Observed(Vec<Kept>);

impl Observed {
    /// Of lines that [`Engine::write_observed`] wrote. Errors: one of them is damaged, or of another format.
    pub fn read(lines: &[u8]) -> Result<Self, Unreadable> {
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let kept = lines
            .zip(1..)
            .map(|(text, line)| serde_json::from_slice(text).map_err(|source| Unreadable { line, source }));
        kept.collect::<Result<_, _>>().map(Self)
    }

    /// How many services these are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One service, as it is written; [`Kept`] has the same members.
#[derive(Serialize)]
struct Written<'a> {
    service: &'a ServiceId,
    probes: &'a [(ProbeId, ProbeState)],
    watches: &'a [Watch],
    turned: Option<(Verdict, DateTime<Utc>)>,
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    heard_at: Option<DateTime<Utc>>,
    /// The open incident, where it was folded without the observations that it rests on, and they were not seen yet.
    inherited: Option<&'a IncidentId>,
}

/// One service, as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    service: ServiceId,
    probes: Vec<(ProbeId, ProbeState)>,
    watches: Vec<Watch>,
    turned: Option<(Verdict, DateTime<Utc>)>,
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    heard_at: Option<DateTime<Utc>>,
    inherited: Option<IncidentId>,
}

impl Engine {
    /// How many services the plan has: they are numbered from 0, in the order of their ids.
    #[must_use]
    pub fn services(&self) -> usize {
        self.watched.len()
    }

    /// Writes down what was observed of the services numbered `numbers` that are owned: a line each, which is handed to
    /// `take`. That nothing was seen of one is worth a line too: nothing that is decided about it rests on what is older.
    pub fn write_observed(&self, numbers: Range<usize>, mut take: impl FnMut(&ServiceId, &[u8])) {
        let end = numbers.end.min(self.watched.len());
        let numbers = numbers.start.min(end)..end;
        let mut line = Vec::new();
        for (watched, state) in self.watched[numbers.clone()].iter().zip(&self.states[numbers]) {
            if !state.owned {
                continue;
            }
            let written = Written {
                service: &watched.id,
                probes: &state.probes,
                watches: &state.watches,
                turned: state.turned,
                heard_at: state.heard_at,
                inherited: state.inherited(),
            };
            line.clear();
            serde_json::to_writer(&mut line, &written).expect("a state has text keys and is written to memory");
            line.push(b'\n');
            take(&watched.id, &line);
        }
    }

    /// Takes up what was observed of owned services; answers of how many. The decisions must have been folded before,
    /// and no observation. Services of another plan are passed over: they begin with what is folded.
    pub fn restore(&mut self, observed: Observed) -> usize {
        let mut taken = 0;
        for kept in observed.0 {
            let Some(at) = self.index.get(&kept.service).copied() else { continue };
            let state = &mut self.states[at as usize];
            if !state.owned || state.watches.len() != kept.watches.len() {
                continue;
            }
            state.probes = kept.probes;
            state.watches.iter_mut().zip(kept.watches).for_each(|(watch, kept)| watch.restore(kept));
            (state.turned, state.heard_at) = (kept.turned, kept.heard_at);
            state.inherit(kept.inherited.as_ref());
            self.wake(at);
            taken += 1;
        }
        taken
    }
}
