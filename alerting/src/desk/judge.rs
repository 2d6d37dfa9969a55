//! Whether what a person says makes sense now, and the event that says it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound, Utc};
use rebound_schemas::codec::format_time;
use rebound_schemas::event::{
    ProcedurePromoted, RecoveryApproved, RecoveryCancelled, RecoveryPaused, RecoveryRejected, RecoveryRequested,
    RecoveryResumed, Restraint, TriggerMode,
};
use rebound_schemas::plan::{Plan, check_input, suggest};
use rebound_schemas::{Event, EventData, EventId, ProcedureId, RecoveryId, ServiceId, Source, StepId};
use sha2::{Digest, Sha256};

use super::words::{Refusal, Said, Target, Word};
use super::{Desk, Entry, SOURCE};
use crate::explain;
use crate::pause::Scope;

/// The subject of what concerns no single service.
const EVERYTHING: &str = "automation";
/// Longest name, and longest comment, in bytes.
const NAME_BYTES: usize = 200;
const COMMENT_BYTES: usize = 2_000;

/// `key-…-…`: the digest of who and key, and the digest of what was asked.
pub(super) fn key_of(id: &EventId) -> Option<(&str, &str)> {
    id.as_str().strip_prefix("key-")?.split_once('-')
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    data_encoding::BASE32_NOPAD.encode(&hash.finalize()[..15]).to_lowercase()
}

impl Said {
    fn keyed_id(&self) -> Result<Option<EventId>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        let parts = (digest(&[&key.owner, &key.key]), digest(&[&key.asked]));
        let id = EventId::new(&format!("key-{}-{}", parts.0, parts.1));
        id.map(Some).map_err(|error| Refusal::invalid(error.to_string(), "choose another key"))
    }

    /// Whether it is told who says so, and why.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), Refusal> {
        let plain =
            |text: &str, most| !text.trim().is_empty() && text.len() <= most && !text.contains(char::is_control);
        if !plain(&self.by, NAME_BYTES) {
            let remedy = format!("write a name of one line and at most {NAME_BYTES} bytes in \"by\" (--by NAME)");
            return Err(Refusal::invalid("who says so is not told", remedy));
        }
        let needs_comment = !matches!(self.word, Word::Approve { .. });
        match &self.comment {
            None if needs_comment => {
                let remedy = "write a \"comment\" (--comment WHY): it is kept with the event";
                Err(Refusal::invalid("why is not told", remedy))
            }
            Some(comment) if comment.trim().is_empty() || comment.len() > COMMENT_BYTES => Err(Refusal::invalid(
                "the comment says nothing, or too much",
                format!("write at most {COMMENT_BYTES} bytes"),
            )),
            _ => Ok(()),
        }
    }
}

impl Desk {
    /// The event that was made when the same was said under the same key; an error if that key was used for another
    /// word.
    ///
    /// # Errors
    /// The key was used for another word.
    pub fn repeated(&self, said: &Said) -> Result<Option<EventId>, Refusal> {
        let Some(id) = said.keyed_id()? else { return Ok(None) };
        let known = key_of(&id).and_then(|(key, _)| self.known(key));
        match known {
            Some(known) if *known == id => Ok(Some(id)),
            Some(_) => {
                let remedy = "choose a new key for each word, and repeat a word only as it was";
                Err(Refusal::invalid("this key was used for another word", remedy))
            }
            None => Ok(None),
        }
    }

    /// The event that says it, or why it is not said.
    ///
    /// | word | is taken when |
    /// |---|---|
    /// | run | the plan has it, the procedure has such inputs, and no recovery of the service waits or runs; a dry run at any time |
    /// | approve | it waits for approval, its time is not over, and nobody has approved or refused it |
    /// | approve a step | that step waits, and nobody has approved this attempt at it |
    /// | reject | it waits for approval |
    /// | cancel | it has not ended and was not called off before; with `now`, also if it was called off without |
    /// | pause | the plan has what it names |
    /// | resume | exactly this scope is paused |
    /// | promote | the procedure is demoted |
    ///
    /// # Errors
    /// What is wrong, and what to do instead.
    pub fn judge(&self, plan: Option<&Plan>, said: &Said, now: DateTime<Utc>) -> Result<Event, Refusal> {
        said.check()?;
        let now = now.trunc_subsecs(6);
        let by = said.by.clone();
        let comment = said.comment.clone();
        let reason = comment.clone().unwrap_or_default();
        let (subject, at, what, data): (ServiceId, _, String, EventData) = match &said.word {
            Word::Run { target, inputs, dry_run, overrides } => {
                let (service, procedure) = self.target(plan, target, inputs, *dry_run)?;
                let overrides: BTreeSet<Restraint> = overrides.iter().copied().collect();
                let data = RecoveryRequested {
                    by,
                    comment: reason,
                    procedure,
                    inputs: inputs.clone(),
                    dry_run: *dry_run,
                    overrides: overrides.into_iter().collect(),
                };
                (service, now, format!("requested-{}", now.timestamp_micros()), data.into())
            }
            Word::Approve { recovery, step: None } => {
                let entry = self.waiting(recovery, now)?;
                // The approver's clock may be behind the one that triggered.
                let at = entry.trigger.as_ref().map_or(now, |(_, triggered_at)| now.max(*triggered_at));
                let data = RecoveryApproved { recovery: recovery.clone(), by, comment, step: None };
                (entry.service.clone(), at, "approved".into(), data.into())
            }
            Word::Approve { recovery, step: Some(step) } => {
                let (entry, attempt, since) = self.waiting_step(recovery, step)?;
                let data = RecoveryApproved { recovery: recovery.clone(), by, comment, step: Some(step.clone()) };
                (entry.service.clone(), now.max(since), format!("approved-{step}-{attempt}"), data.into())
            }
            Word::Reject { recovery } => {
                let entry = self.waiting(recovery, now)?;
                let data = RecoveryRejected { recovery: recovery.clone(), by, reason };
                (entry.service.clone(), now, "rejected".into(), data.into())
            }
            Word::Cancel { recovery, now: kill } => {
                let entry = self.open(recovery)?;
                if let Some(words) = entry.refused.as_ref() {
                    return Err(Refusal::conflict(format!("{recovery} does not run: {words}"), "nothing need be done"));
                }
                match &entry.cancelled {
                    Some((words, false)) if !kill => {
                        let remedy = "wait for the end of its step, or cancel it with --now to kill the step";
                        return Err(Refusal::conflict(format!("{recovery} was called off before: {words}"), remedy));
                    }
                    Some((words, true)) => {
                        let detail = format!("{recovery} was called off before: {words}");
                        return Err(Refusal::conflict(detail, "what runs is being killed: wait for its end"));
                    }
                    _ => {}
                }
                let data = RecoveryCancelled { recovery: recovery.clone(), by, reason, now: *kill };
                let what = if *kill { "cancelled-now" } else { "cancelled" };
                (entry.service.clone(), now, what.into(), data.into())
            }
            Word::Pause { scope, until } => {
                // Without a plan, anything may be paused.
                if let Some((detail, remedy)) = plan.and_then(|plan| scope.fault(plan)) {
                    return Err(Refusal::unknown(detail, remedy));
                }
                if until.is_some_and(|until| until <= now) {
                    let remedy = "write a time to come in \"until\", or how long in \"for\"";
                    return Err(Refusal::invalid("the pause would be over already", remedy));
                }
                let Scope { site, service, tier, procedure } = scope.clone();
                let subject = subject_of(service.as_ref());
                let data = RecoveryPaused { site, service, tier, procedure, until: *until, by, reason };
                (subject, now, format!("paused-{}", now.timestamp_micros()), data.into())
            }
            Word::Resume { scope } => {
                if !self.pauses.in_force(now).any(|(paused, ..)| paused == scope) {
                    let paused: Vec<String> = self.pauses.in_force(now).map(|(scope, ..)| scope.to_string()).collect();
                    let remedy = match paused.is_empty() {
                        true => "nothing is paused".to_owned(),
                        false => format!("what is paused is {}: resume that, as it was paused", paused.join("; ")),
                    };
                    return Err(Refusal::conflict(format!("{scope} is not paused"), remedy));
                }
                let Scope { site, service, tier, procedure } = scope.clone();
                let subject = subject_of(service.as_ref());
                let data = RecoveryResumed { site, service, tier, procedure, by, reason };
                (subject, now, format!("resumed-{}", now.timestamp_micros()), data.into())
            }
            Word::Promote { procedure } => {
                self.demoted(plan, procedure)?;
                let data = ProcedurePromoted { procedure: procedure.clone(), by, comment: reason };
                (subject_of(None), now, format!("promoted-{procedure}-{}", now.timestamp_micros()), data.into())
            }
        };
        let about = data.recovery().map_or_else(|| subject.to_string(), ToString::to_string);
        let id = said.keyed_id()?.unwrap_or_else(|| EventId::derive(&about, &what));
        let source = Source::new(SOURCE).expect("the source's name follows the rule for sources");
        let plan = plan.map(|plan| plan.version().clone());
        Ok(Event { id, source, subject, occurred_at: at, plan, data })
    }

    /// A recovery that has not ended.
    fn open(&self, recovery: &RecoveryId) -> Result<&Entry, Refusal> {
        let Some(entry) = self.entries.get(recovery).filter(|entry| !entry.is_stranger()) else {
            if let Some((service, known)) = self.not_triggered(recovery) {
                let why = explain::withheld(&known.data, known.at);
                let remedy = format!("`rebound recovery run {service}` asks for it all the same");
                return Err(Refusal::conflict(format!("{recovery} was not triggered: {why}"), remedy));
            }
            let remedy = "`rebound recovery list` shows those that are";
            return Err(Refusal::unknown(format!("no recovery {recovery} is known"), remedy));
        };
        let Some((data, _)) = &entry.finished else { return Ok(entry) };
        let why = data.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let newer = self.entries.iter().find(|(id, other)| {
            let of = other.trigger.as_ref().map(|(trigger, _)| &trigger.incident);
            *id != recovery && of == Some(&data.incident) && other.finished.is_none()
        });
        let remedy = match newer {
            Some((id, _)) => format!("the attempt at its incident that has not ended is {id}: name that one"),
            None => "nothing more can be said about it; `rebound recovery run` asks for a new one".to_owned(),
        };
        Err(Refusal::conflict(format!("{recovery} has ended: {}{why}", data.outcome), remedy))
    }

    /// A recovery that waits for a person to approve it.
    fn waiting(&self, recovery: &RecoveryId, now: DateTime<Utc>) -> Result<&Entry, Refusal> {
        let entry = self.open(recovery)?;
        if entry.started.is_some() {
            let gates = entry.gates();
            let remedy = match gates.first() {
                Some(gate) => format!("its step {} waits for approval: name that with --step {}", gate.step, gate.step),
                None => "`rebound recovery cancel` stops it".to_owned(),
            };
            return Err(Refusal::conflict(format!("{recovery} has begun"), remedy));
        }
        if let Some(words) = entry.refused.as_ref().or(entry.cancelled.as_ref().map(|(words, _)| words)) {
            let remedy = "`rebound recovery run` asks for a new one";
            return Err(Refusal::conflict(format!("{recovery} does not run: {words}"), remedy));
        }
        if let Some(super::WordLine { by, at, .. }) = entry.approved() {
            let at = format_time(*at);
            let remedy = "it begins when its turn comes; `rebound recovery cancel` calls it off";
            return Err(Refusal::conflict(format!("{by} approved {recovery} at {at}"), remedy));
        }
        let trigger = entry.trigger.as_ref().map(|(data, _)| data);
        if !trigger.is_some_and(|data| matches!(data.mode, TriggerMode::Approve | TriggerMode::Off)) {
            let remedy = "it begins when its turn comes; `rebound recovery cancel` calls it off";
            return Err(Refusal::conflict(format!("{recovery} needs no approval"), remedy));
        }
        if let Some(until) = trigger.and_then(|data| data.approve_until).filter(|until| now >= *until) {
            let until = format_time(until);
            let remedy = "people were asked instead; `rebound recovery run` asks for a new one";
            return Err(Refusal::conflict(format!("{recovery} could be approved until {until}"), remedy));
        }
        Ok(entry)
    }

    /// A recovery's step that waits for a person, which attempt at it, and since when.
    fn waiting_step(&self, recovery: &RecoveryId, step: &StepId) -> Result<(&Entry, u32, DateTime<Utc>), Refusal> {
        let entry = self.open(recovery)?;
        if entry.started.is_none() {
            let remedy = format!("approve step {step} when it waits");
            return Err(Refusal::conflict(format!("{recovery} has not begun"), remedy));
        }
        let Some((attempt, since)) = entry.waits_at(step) else {
            let gates: Vec<String> = entry.gates().iter().map(|gate| gate.step.to_string()).collect();
            let remedy = match gates.is_empty() {
                true => "no step of it waits now: approve it when it does".to_owned(),
                false => format!("what waits is {}", gates.join(", ")),
            };
            return Err(Refusal::conflict(format!("step {step} of {recovery} does not wait for approval"), remedy));
        };
        if let Some(super::WordLine { by, at, .. }) = entry.approved_step(step, since) {
            let at = format_time(*at);
            let detail = format!("{by} approved step {step} of {recovery} at {at}");
            return Err(Refusal::conflict(detail, "it goes on by itself"));
        }
        Ok((entry, attempt, since))
    }

    /// Whether a procedure waits for a person to promote it.
    fn demoted(&self, plan: Option<&Plan>, procedure: &ProcedureId) -> Result<(), Refusal> {
        if self.demoted_since(procedure).is_some() {
            return Ok(());
        }
        let scope = Scope { procedure: Some(procedure.clone()), ..Scope::default() };
        if let Some((detail, remedy)) = plan.and_then(|plan| scope.fault(plan)) {
            return Err(Refusal::unknown(detail, remedy));
        }
        let detail = format!("procedure {procedure} is not demoted");
        let remedy = "nothing need be done: its recoveries are triggered as their policies say";
        Err(Refusal::conflict(detail, remedy))
    }

    /// The service and the procedure that are meant.
    fn target(
        &self,
        plan: Option<&Plan>,
        target: &Target,
        inputs: &BTreeMap<String, String>,
        dry_run: bool,
    ) -> Result<(ServiceId, Option<ProcedureId>), Refusal> {
        let Some(plan) = plan else {
            return Err(Refusal::conflict("there is no plan here", "start Rebound with --plan FILE"));
        };
        let (mut service, mut procedure) = (target.service.clone(), target.procedure.clone());
        if let Some(name) = &target.name {
            if let Some((id, _)) = plan.services().get_key_value(name.as_str()).filter(|_| service.is_none()) {
                service = Some(id.clone());
            } else if let Some((id, _)) = plan.procedures().get_key_value(name.as_str()).filter(|_| procedure.is_none())
            {
                procedure = Some(id.clone());
            } else {
                let known = plan.services().keys().map(ServiceId::as_str);
                let remedy = suggest(name, known.chain(plan.procedures().keys().map(ProcedureId::as_str)));
                let detail = format!("{name} is neither a service nor a procedure of the plan");
                return Err(Refusal::unknown(detail, remedy));
            }
        }
        if let Some(id) = procedure.as_ref().filter(|id| !plan.procedures().contains_key(*id)) {
            let remedy = suggest(id.as_str(), plan.procedures().keys().map(ProcedureId::as_str));
            return Err(Refusal::unknown(format!("the plan has no procedure {id}"), remedy));
        }
        let service = match (service, &procedure) {
            (Some(id), _) => id,
            (None, None) => {
                return Err(Refusal::invalid("what is to be run is not told", "name a service or a procedure"));
            }
            (None, Some(procedure)) => {
                let mut by = plan.services().values().filter(|s| s.procedure.as_ref() == Some(procedure));
                match (by.next(), by.next()) {
                    (Some(only), None) => only.id.clone(),
                    (None, _) => {
                        let detail = format!("no service is recovered by procedure {procedure} of its own");
                        return Err(Refusal::invalid(detail, "say for which: --service NAME"));
                    }
                    (Some(one), Some(other)) => {
                        let detail =
                            format!("procedure {procedure} is that of {}, {} and perhaps others", one.id, other.id);
                        return Err(Refusal::invalid(detail, "say for which: --service NAME"));
                    }
                }
            }
        };
        let Some(known) = plan.services().get(&service) else {
            let remedy = suggest(service.as_str(), plan.services().keys().map(ServiceId::as_str));
            return Err(Refusal::unknown(format!("the plan has no service {service}"), remedy));
        };
        let Some(run) = procedure.as_ref().or(known.procedure.as_ref()).and_then(|id| plan.procedures().get(id)) else {
            return Err(Refusal::invalid(format!("{service} has no procedure"), "name one: --procedure NAME"));
        };
        for (name, value) in inputs {
            if !run.inputs.contains_key(name) {
                let known: Vec<&str> = run.inputs.keys().map(String::as_str).collect();
                let remedy =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
                return Err(Refusal::invalid(format!("{name} is not an input of procedure {}", run.id), remedy));
            }
            check_input(value)
                .map_err(|remedy| Refusal::invalid(format!("the input {name} can't be {value:?}"), remedy))?;
        }
        if let Some((id, entry)) = self.at_it(&service).filter(|_| !dry_run) {
            let does = if entry.started.is_some() { "runs" } else { "waits" };
            let remedy = "let it end, approve it if it waits for that, or cancel it";
            return Err(Refusal::conflict(format!("{id} of {service} {does} already"), remedy));
        }
        Ok((service, procedure))
    }
}

fn subject_of(service: Option<&ServiceId>) -> ServiceId {
    service.cloned().unwrap_or_else(|| ServiceId::new(EVERYTHING).expect("a literal id"))
}
