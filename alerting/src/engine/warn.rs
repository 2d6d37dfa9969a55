//! What follows from conditions that warn: raise, suppress, resolve. No incident, no trigger, no figure.

use chrono::{DateTime, Utc};
use rebound_schemas::event::{AlertRaised, AlertResolved, AlertSuppressed};
use rebound_schemas::plan::Effect;
use rebound_schemas::{AlertId, Event, EventId, IncidentId};

use super::Engine;
use super::service::cause_bit;
use crate::condition::Context;

impl Engine {
    pub(super) fn context(&self, at: u32) -> Context<'_> {
        Context {
            objectives: &self.watched(at).objectives,
            heard_at: self.states[at as usize].heard_at,
            since: self.since,
            silent_after: self.rules(at).rule.silent_after,
        }
    }

    /// Brings the warnings of one service up to date, and has their next deadline noted.
    ///
    /// | condition | warning | suppressed | decided |
    /// |---|---|---|---|
    /// | fires | none, or not told | no | `alert.raised` |
    /// | fires | none, or not told | yes | `alert.suppressed`, once a cause |
    /// | fires | told | | |
    /// | doesn't | told or suppressed | | `alert.resolved` |
    pub(super) fn warn(&mut self, at: u32, now: DateTime<Utc>, decided: &mut Vec<Event>) {
        let mut next: Option<DateTime<Utc>> = None;
        for n in 0..self.states[at as usize].watches.len() {
            let (watch, judge) = (&self.states[at as usize].watches[n], &self.rules(at).judges[n]);
            if judge.condition.effect == Effect::Fail {
                continue;
            }
            let (signal, fires, due) = watch.fires(judge, self.context(at), now);
            let open = watch.warning.as_ref().map(|w| (w.alert.clone(), w.matter.clone(), w.told, w.suppressed));
            match (fires, open) {
                (true, open) => {
                    let Some(signal) = signal else { continue };
                    self.warn_of(at, n, open, signal.since, now, decided);
                    if self.states[at as usize].watches[n].warning.as_ref().is_some_and(|w| !w.told) {
                        next = next.into_iter().chain(self.windows.next_change(&self.watched(at).id, now)).min();
                    }
                }
                (false, Some((alert, incident, ..))) => {
                    let recovered_at = signal.map_or(now, |signal| signal.since);
                    let (policy, condition) = (self.rules(at).id.clone(), Some(judge.condition.id.clone()));
                    let id = EventId::derive(alert.as_str(), "resolved");
                    let data = AlertResolved { alert, incident, policy, condition, recovered_at, successes: 0 };
                    self.append(at, id, now, data.into(), decided);
                }
                (false, None) => {}
            }
            // What was decided may have set another deadline.
            let (watch, judge) = (&self.states[at as usize].watches[n], &self.rules(at).judges[n]);
            let due = watch.fires(judge, self.context(at), now).2.into_iter().chain(due).min();
            next = next.into_iter().chain(due).min();
        }
        if let Some(due) = next {
            self.schedule(at, due);
        }
    }

    fn warn_of(
        &mut self,
        at: u32,
        n: usize,
        open: Option<(AlertId, IncidentId, bool, u8)>,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
        decided: &mut Vec<Event>,
    ) {
        let (state, rules) = (&self.states[at as usize], self.rules(at));
        let (watch, judge) = (&state.watches[n], &rules.judges[n]);
        let condition = &judge.condition;
        let (alert, incident, told, suppressed) = open.unwrap_or_else(|| {
            // The same condition holding since the same moment is the same warning, whoever decides it.
            let name = EventId::derive(&condition.id, &since.timestamp_micros().to_string());
            let matter = IncidentId::derive(&self.watched(at).id, &self.source, &name);
            (AlertId::derive(&rules.id, &matter), matter, false, 0)
        });
        if told || watch.closed.as_ref().is_some_and(|closed| closed.0 == alert) {
            return;
        }
        let (policy, named) = (rules.id.clone(), Some(condition.id.clone()));
        let severity = condition.warning_severity();
        if let Some(by) = self.suppression(at, now, severity) {
            if suppressed & cause_bit(by.cause) == 0 {
                self.announce(at, &by, now, decided);
                let id = EventId::derive(alert.as_str(), &format!("suppressed-{}", by.cause));
                let data = AlertSuppressed { alert, incident, policy, condition: named, cause: by.cause, by: by.by };
                self.append(at, id, now, data.into(), decided);
            }
            return;
        }
        let (reason, evidence, failures) = watch.evidence(judge, self.context(at), now);
        let id = EventId::derive(alert.as_str(), "raised");
        let data = AlertRaised {
            alert,
            incident,
            policy,
            condition: named,
            severity,
            failures,
            first_failure_at: since,
            reason,
            evidence,
        };
        self.append(at, id, now, data.into(), decided);
    }
}
