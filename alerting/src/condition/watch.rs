//! What was seen of a condition at one service, and what was decided about it: whether it holds, since when, when time
//! alone will change that, and what shows it.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{EventRef, Outcome, ProbeCompleted, SuppressionCause};
use rebound_schemas::plan::{Effect, Limit, Measure, Pace};
use rebound_schemas::{AlertId, Event, EventData, IncidentId};
use serde::{Deserialize, Serialize};

use super::{Judge, Objectives, percent};
use crate::burn::Burn;
use crate::delta;
use crate::hold::Signal;
use crate::threshold::ProbeState;

/// Streams that one condition tells apart at one service; what comes beyond is not judged.
const MAX_STREAMS: usize = 64;

/// What a condition warns of, from when it first fires to its resolve.
#[derive(Debug)]
pub struct Warning {
    /// Its alert.
    pub alert: AlertId,
    /// The name under which it is tracked, where an outage has its incident.
    pub matter: IncidentId,
    /// `alert.raised` was decided: somebody is told.
    pub told: bool,
    /// A bit a cause that `alert.suppressed` was decided for.
    pub suppressed: u8,
}

/// What was seen of a condition at one service, and what was decided about it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Whether it fails the service.
    fails: bool,
    streams: Vec<(Box<str>, ProbeState)>,
    /// Of each stream the time that it states, and when it was said.
    times: Vec<(Box<str>, DateTime<Utc>, DateTime<Utc>)>,
    burn: Option<Box<Burn>>,
    signal: Option<Signal>,
    /// The observation that last turned the signal on.
    turned_by: Option<EventRef>,
    /// The open warning.
    #[serde(skip)]
    pub warning: Option<Box<Warning>>,
    /// The last one that was, and when it ended.
    #[serde(skip)]
    pub closed: Option<Box<(AlertId, DateTime<Utc>)>>,
}

/// What a watch is judged by besides what it saw.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The service's.
    pub objectives: &'a Objectives,
    /// When the service was last heard of.
    pub heard_at: Option<DateTime<Utc>>,
    /// From when on everything was seen.
    pub since: Option<DateTime<Utc>>,
    /// The service's `silent_after`.
    pub silent_after: TimeDelta,
}

impl Watch {
    /// Nothing seen.
    #[must_use]
    pub fn new(judge: &Judge) -> Self {
        Self {
            fails: judge.condition.effect == Effect::Fail,
            streams: Vec::new(),
            times: Vec::new(),
            burn: None,
            signal: None,
            turned_by: None,
            warning: None,
            closed: None,
        }
    }

    /// Takes what `other` has seen for its own; what was decided stays.
    pub(crate) fn restore(&mut self, other: Self) {
        let (warning, closed) = (self.warning.take(), self.closed.take());
        *self = Self { warning, closed, ..other };
    }

    /// Forgets what was seen; what was decided stays.
    pub fn forget(&mut self) {
        (self.streams, self.times, self.burn) = (Vec::new(), Vec::new(), None);
        (self.signal, self.turned_by) = (None, None);
    }

    /// Takes one observation of its service; `false` if it changed nothing. What comes of a probe must have been
    /// counted by it, so that nothing delivered twice counts twice.
    pub fn observe(&mut self, judge: &Judge, of: &Objectives, event: &Event, inherited: bool) -> bool {
        if let Some((stream, time)) = judge.time(event) {
            return self.note(stream, time, event.occurred_at);
        }
        if let (Measure::BurnRate(objective, pace), EventData::ProbeCompleted(data)) =
            (&judge.condition.measure, &event.data)
        {
            return self.burn(judge, *objective, *pace, event, data);
        }
        let Some((stream, seen)) = judge.see(of, &event.subject, &event.data) else { return false };
        let at = match self.streams.iter().position(|(known, _)| **known == *stream) {
            Some(at) => at,
            None if self.streams.len() == MAX_STREAMS => return false,
            None => {
                let fresh = if self.fails && inherited { ProbeState::inherited() } else { ProbeState::default() };
                self.streams.push((stream.into(), fresh));
                self.streams.len() - 1
            }
        };
        if !self.streams[at].1.take(&judge.rule, event, &seen) {
            return false;
        }
        let holds = self.streams.iter().any(|(_, state)| state.is_hard());
        self.turn(event, holds);
        true
    }

    fn turn(&mut self, event: &Event, holds: bool) {
        if holds && self.signal.is_none_or(|signal| !signal.holds) {
            self.turned_by = Some(EventRef::from(event));
        }
        Signal::turn(&mut self.signal, event.occurred_at, holds);
    }

    fn note(&mut self, stream: &str, time: DateTime<Utc>, said_at: DateTime<Utc>) -> bool {
        let full = self.times.len() == MAX_STREAMS;
        match self.times.iter_mut().find(|(known, ..)| **known == *stream) {
            Some((_, held, at)) if *at < said_at => (*held, *at) = (time, said_at),
            Some(_) => return false,
            None if full => return false,
            None => self.times.push((stream.into(), time, said_at)),
        }
        true
    }

    fn burn(&mut self, judge: &Judge, objective: f64, pace: Pace, event: &Event, data: &ProbeCompleted) -> bool {
        if data.outcome == Outcome::Degraded {
            return false;
        }
        let burn = self.burn.get_or_insert_with(|| Box::new(Burn::new(pace)));
        burn.observe(event.occurred_at, data.outcome == Outcome::Failed);
        let holds = burn.burning(objective, judge.condition.at_least).is_some();
        self.turn(event, holds);
        true
    }

    /// When time brings the condition about; `None` if it doesn't.
    fn due(&self, judge: &Judge, context: Context<'_>) -> Option<DateTime<Utc>> {
        let of = context.objectives;
        let after = |at: Option<DateTime<Utc>>, limit| at?.checked_add_signed(limit);
        match &judge.condition.measure {
            Measure::Unobserved => after(context.heard_at.max(context.since), context.silent_after),
            Measure::CertificateExpiresWithin(within) => {
                self.times.iter().filter_map(|(_, until, _)| until.checked_sub_signed(delta(*within))).min()
            }
            Measure::BackupAge { above, backup, .. } => {
                let due = |id: Option<&str>| self.backup_due(*above, id, context);
                match backup {
                    Some(id) if of.backups.iter().any(|(known, _)| **known == **id) => due(Some(id)),
                    Some(_) => None,
                    None if *above == Limit::Schedule => of.backups.iter().filter_map(|(id, _)| due(Some(id))).min(),
                    None if of.backups.is_empty() => None,
                    None => due(None),
                }
            }
            _ => None,
        }
    }

    /// The newest time that a stream states; of all of them, where none is named.
    fn newest(&self, stream: Option<&str>) -> Option<DateTime<Utc>> {
        let of = self.times.iter().filter(|(known, ..)| stream.is_none_or(|stream| **known == *stream));
        of.map(|(_, at, _)| *at).max()
    }

    /// When the newest backup of a schedule, or of all, is too old.
    fn backup_due(&self, above: Limit, schedule: Option<&str>, context: Context<'_>) -> Option<DateTime<Utc>> {
        let newest = self.newest(schedule).or(context.since)?;
        newest.checked_add_signed(context.objectives.limit(above, schedule))
    }

    /// Whether the condition holds at `now`, and since when; `None` while nothing is known.
    #[must_use]
    pub fn signal(&self, judge: &Judge, context: Context<'_>, now: DateTime<Utc>) -> Option<Signal> {
        if !judge.condition.measure.is_timed() || self.burn.is_some() {
            return self.signal;
        }
        let due = self.due(judge, context);
        match due {
            Some(due) if due <= now => Some(Signal { holds: true, since: due }),
            _ => {
                let said = self.times.iter().map(|(.., at)| *at).max();
                let since = if judge.condition.measure == Measure::Unobserved { context.heard_at } else { said };
                Some(Signal { holds: false, since: since? })
            }
        }
    }

    /// Whether it fires at `now`, given what was decided, and when time alone changes that.
    #[must_use]
    pub fn fires(
        &self,
        judge: &Judge,
        context: Context<'_>,
        now: DateTime<Utc>,
    ) -> (Option<Signal>, bool, Option<DateTime<Utc>>) {
        let fired = self.warning.is_some();
        let signal = self.signal(judge, context, now);
        let fires = signal.map_or(fired, |signal| judge.hold.fires(fired, signal, now));
        let begins = self.due(judge, context).filter(|due| *due > now);
        let held = signal.and_then(|signal| judge.hold.due(fired, signal)).filter(|due| *due > now);
        (signal, fires, [begins, held].into_iter().flatten().min())
    }

    /// States that fail the service.
    pub fn judges(&self) -> impl Iterator<Item = &ProbeState> {
        self.streams.iter().filter(|_| self.fails).map(|(_, state)| state)
    }

    /// Takes every stream for what it was seen to be.
    pub fn trust(&mut self) {
        self.streams.iter_mut().for_each(|(_, state)| state.trust());
    }

    /// What makes it hold, in words, with the observations that say so (at most 20) and their number.
    #[must_use]
    pub fn evidence(&self, judge: &Judge, context: Context<'_>, now: DateTime<Utc>) -> (String, Vec<EventRef>, u32) {
        let hard = self.streams.iter().map(|(_, state)| state).find(|state| state.is_hard());
        if let Some(streak) = hard.and_then(ProbeState::streak) {
            return (streak.reason.to_string(), streak.events(), streak.failures);
        }
        let by: Vec<EventRef> = self.turned_by.iter().cloned().collect();
        let since = |at: Option<DateTime<Utc>>| at.map_or_else(|| "ever".to_owned(), |at| minutes(now - at));
        match &judge.condition.measure {
            Measure::Unobserved => (format!("nothing was observed for {}", since(context.heard_at)), by, 0),
            Measure::CertificateExpiresWithin(_) => {
                let first = self.times.iter().min_by_key(|(_, until, _)| *until);
                let words = first.map(|(name, until, _)| format!("the certificate of {name} expires at {until}"));
                (words.unwrap_or_else(|| "a certificate expires".to_owned()), by, 0)
            }
            Measure::BackupAge { backup, .. } => {
                let schedule = backup.as_deref().or_else(|| self.overdue(judge, context, now));
                let of = schedule.map(|id| format!(" of {id}")).unwrap_or_default();
                let words = match self.newest(schedule) {
                    Some(at) => format!("the newest good backup{of} is {} old", minutes(now - at)),
                    None => format!("no good backup{of} was seen"),
                };
                (words, by, 0)
            }
            Measure::BurnRate(objective, _) => {
                let burning = self.burn.as_ref().and_then(|burn| burn.burning(*objective, judge.condition.at_least));
                let words = burning.map(|burning| {
                    let (rate, hours) = ((burning.rate * 10.0).round() / 10.0, burning.pair.long / 60);
                    format!("the error budget of {} % burns {rate} times too fast over {hours}h", percent(*objective))
                });
                (words.unwrap_or_else(|| "the error budget burns too fast".to_owned()), by, 0)
            }
            _ => (format!("{} holds", judge.condition.id), by, 0),
        }
    }

    /// The first schedule that is overdue, where each is judged on its own.
    fn overdue<'a>(&self, judge: &Judge, context: Context<'a>, now: DateTime<Utc>) -> Option<&'a str> {
        let Measure::BackupAge { above: Limit::Schedule, .. } = judge.condition.measure else { return None };
        let due = |id: &str| self.backup_due(Limit::Schedule, Some(id), context);
        let ids = context.objectives.backups.iter().map(|(id, _)| &**id);
        ids.filter(|id| due(id).is_some_and(|due| due <= now)).min_by_key(|id| due(id))
    }

    /// Folds `alert.raised` or `alert.suppressed` about this condition; `false` if it is old or known.
    pub fn fold_open(
        &mut self,
        alert: &AlertId,
        matter: &IncidentId,
        at: DateTime<Utc>,
        cause: Option<SuppressionCause>,
        bit: impl Fn(SuppressionCause) -> u8,
    ) -> bool {
        if self.closed.as_ref().is_some_and(|closed| closed.0 == *alert || at <= closed.1) {
            return false;
        }
        if self.warning.as_ref().is_some_and(|known| known.alert != *alert) {
            return false;
        }
        let warning = self.warning.get_or_insert_with(|| {
            Box::new(Warning { alert: alert.clone(), matter: matter.clone(), told: false, suppressed: 0 })
        });
        let before = (warning.told, warning.suppressed);
        match cause {
            None => warning.told = true,
            Some(cause) => warning.suppressed |= bit(cause),
        }
        before != (warning.told, warning.suppressed)
    }

    /// Folds `alert.resolved` about this condition; `false` if it is old or known.
    pub fn fold_resolved(&mut self, alert: &AlertId, at: DateTime<Utc>) -> bool {
        let known = self.warning.take_if(|warning| warning.alert == *alert).is_some();
        if known {
            self.closed = Some(Box::new((alert.clone(), at)));
        }
        known
    }
}

/// `3d`, `17m`: whole units, coarsely.
fn minutes(age: TimeDelta) -> String {
    match age.num_minutes() {
        m if m >= 2 * 1440 => format!("{}d", m / 1440),
        m if m >= 120 => format!("{}h", m / 60),
        m if m >= 2 => format!("{m}m"),
        _ => format!("{}s", age.num_seconds()),
    }
}
