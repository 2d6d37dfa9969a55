//! Moves of the load between sites that a person asks for: which procedure makes one, what is moved with it and in
//! which order, what must hold before it begins, and what became of it. Pure.
//!
//! Asking, deciding and running are the same as for any recovery (`recovery.requested`). The recovery is that of one
//! service, whose partition orders it and whose probes verify it: it carries the move.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use rebound_schemas::event::{ErrorClass, RecoveryOutcome, StepOutcome};
use rebound_schemas::plan::{Failover, Plan, Procedure};
use rebound_schemas::{Event, EventData, EventId, IncidentId, ProcedureId, RecoveryId, ServiceId, SiteId};
use serde::{Deserialize, Serialize};

use crate::pause::{Pauses, Target};
use crate::procedure::{Placeholders, describe, unfold};
use crate::runner::Move;
use crate::sites::{Load, Sites};

/// Requests whose course is remembered, for those who look.
const REMEMBERED: usize = 256;
/// Lines of one course at most.
const LINES: usize = 2000;

/// Why there is no such move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Neither a site nor a service.
    #[error("{0} is neither a site nor a service of the plan: its sites are {1}")]
    Unknown(String, String),
    /// A site and a service have the same name.
    #[error("{0} is a site and a service: write site={0} or service={0}")]
    Both(String),
    /// The target is not in the plan.
    #[error("{0} is not a site of the plan: its sites are {1}")]
    UnknownSite(SiteId, String),
    /// From a site to itself.
    #[error("the load of {0} is to be moved to {1}, where it belongs: name another site with --to")]
    Same(String, SiteId),
    /// No service can carry it.
    #[error("no service of the plan runs at {0}: there is no load to move")]
    Empty(SiteId),
    /// No procedure makes the move.
    #[error("no procedure of the plan moves the load from {from} to {to}: {known}")]
    NoProcedure {
        /// From here.
        from: SiteId,
        /// To here.
        to: SiteId,
        /// What there is, or what to write.
        known: String,
    },
    /// Several do.
    #[error("{0} move the load from {1} to {2}: choose one with --procedure")]
    Several(String, SiteId, SiteId),
    /// The named one does not.
    #[error("procedure {0} does not move the load from {1} to {2}; {3}")]
    OtherProcedure(ProcedureId, SiteId, SiteId, String),
    /// Its steps can't be put in order.
    #[error("{0}")]
    Steps(String),
}

/// A move as the plan has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Moving<'p> {
    /// What is run.
    pub procedure: &'p Procedure,
    /// The service whose recovery it is.
    pub carrier: &'p ServiceId,
    /// From where to where.
    pub moved: Move,
    /// The services whose load is moved, in the plan's start order.
    pub services: Vec<&'p ServiceId>,
}

/// One thing that must hold before a move begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What it is about.
    pub name: String,
    /// Whether it holds.
    pub held: bool,
    /// What was found, in words.
    pub detail: String,
}

/// One step that would be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAhead {
    /// The step.
    pub step: String,
    /// What it does, in words.
    pub action: String,
}

/// The move of `what`, a site or a service, to a site.
///
/// | `what` | moved from | carried by | moved with it |
/// |---|---|---|---|
/// | a site | it | the first of its services in the start order | all of its services |
/// | a service | where it runs | it | it, and what depends on it at that site |
/// | back: a site | it, where the load is now | the first service of the site that the load goes back to | all of those |
/// | back: a service | the site that the procedure names | it | it, and what depends on it at its site |
///
/// The procedure is the one that the site names (`failover` of the target, `failback` of the site that is left) if it
/// makes that move, else the only one that does.
///
/// # Errors
/// There is no such move, or more than one.
pub fn choose<'p>(
    plan: &'p Plan,
    what: &str,
    to: &SiteId,
    back: bool,
    procedure: Option<&ProcedureId>,
) -> Result<Moving<'p>, MoveError> {
    let sites = || plan.sites().keys().map(SiteId::as_str).collect::<Vec<_>>().join(", ");
    if !plan.sites().contains_key(to) {
        return Err(MoveError::UnknownSite(to.clone(), sites()));
    }
    let (site, service) = named(plan, what).ok_or_else(|| MoveError::Unknown(what.to_owned(), sites()))?;
    let (from, carrier) = match (site, service) {
        (Some(_), Some(_)) => return Err(MoveError::Both(what.to_owned())),
        (Some(site), None) => {
            if site == to {
                return Err(MoveError::Same(what.to_owned(), to.clone()));
            }
            let home = if back { to } else { site };
            let first = plan.start_order().iter().find(|id| plan.services().get(*id).is_some_and(|s| s.site == *home));
            (Some(site), first.ok_or_else(|| MoveError::Empty(home.clone()))?)
        }
        (None, service) => {
            let Some(service) = service.and_then(|id| plan.services().get(id)) else {
                return Err(MoveError::Unknown(what.to_owned(), sites()));
            };
            if !back && service.site == *to {
                return Err(MoveError::Same(what.to_owned(), to.clone()));
            }
            ((!back).then_some(&service.site), &service.id)
        }
    };
    let home = plan.services().get(carrier).map_or(to, |service| &service.site);
    let (procedure, failover) = procedure_of(plan, from, home, to, back, procedure)?;
    let moved = Move {
        from: failover.from.clone().or_else(|| from.cloned()).unwrap_or_else(|| home.clone()),
        to: to.clone(),
        back,
        healthy_sites_at_least: failover.healthy_sites_at_least,
    };
    let services = moved_with(plan, carrier, home, site.is_some());
    Ok(Moving { procedure, carrier, moved, services })
}

/// A name as a site, as a service; `None` when it is neither.
fn named<'p>(plan: &'p Plan, what: &str) -> Option<(Option<&'p SiteId>, Option<&'p ServiceId>)> {
    let site = |name: &str| plan.sites().keys().find(|site| site.as_str() == name);
    let service = |name: &str| plan.services().keys().find(|service| service.as_str() == name);
    let found = match what.split_once('=') {
        Some(("site", name)) => (site(name), None),
        Some(("service", name)) => (None, service(name)),
        _ => (site(what), service(what)),
    };
    (found.0.is_some() || found.1.is_some()).then_some(found)
}

fn procedure_of<'p>(
    plan: &'p Plan,
    from: Option<&SiteId>,
    home: &SiteId,
    to: &SiteId,
    back: bool,
    wanted: Option<&ProcedureId>,
) -> Result<(&'p Procedure, &'p Failover), MoveError> {
    let leaves = |failover: &Failover| match (from, &failover.from) {
        (Some(from), Some(by)) => from == by,
        (Some(from), None) => from == home,
        (None, _) => true,
    };
    let makes = |failover: &Failover| failover.back == back && failover.to == *to && leaves(failover);
    let all = || plan.procedures().values().filter_map(|p| Some((p, p.failover.as_ref()?)));
    let told = |(procedure, failover): (&Procedure, &Failover)| {
        let from = failover.from.as_ref().map_or("where the service runs", |from| from.as_str());
        let back = if failover.back { " back" } else { "" };
        format!("{} moves it{back} from {from} to {}", procedure.id, failover.to)
    };
    let known = || match all().map(told).collect::<Vec<_>>() {
        known if known.is_empty() => {
            "write failover = { from = \"…\", to = \"…\" } in one of its procedures".to_owned()
        }
        known => known.join(", "),
    };
    let left = || from.unwrap_or(home).clone();
    if let Some(wanted) = wanted {
        let found = all().find(|(procedure, failover)| procedure.id == *wanted && makes(failover));
        return found.ok_or_else(|| MoveError::OtherProcedure(wanted.clone(), left(), to.clone(), known()));
    }
    let fitting: Vec<_> = all().filter(|(_, failover)| makes(failover)).collect();
    let own = match back {
        true => from.and_then(|from| plan.sites().get(from)).and_then(|site| site.failback.as_ref()),
        false => plan.sites().get(to).and_then(|site| site.failover.as_ref()),
    };
    if let Some(found) = fitting.iter().find(|(procedure, _)| Some(&procedure.id) == own) {
        return Ok(*found);
    }
    match fitting.as_slice() {
        [one] => Ok(*one),
        [] => Err(MoveError::NoProcedure { from: left(), to: to.clone(), known: known() }),
        several => {
            let names: Vec<_> = several.iter().map(|(procedure, _)| procedure.id.as_str()).collect();
            Err(MoveError::Several(names.join(" and "), left(), to.clone()))
        }
    }
}

fn moved_with<'p>(plan: &'p Plan, carrier: &ServiceId, home: &SiteId, whole_site: bool) -> Vec<&'p ServiceId> {
    let mut reached: Vec<&ServiceId> = vec![carrier];
    let mut open = vec![carrier];
    while let Some(service) = open.pop() {
        for dependant in plan.dependants_of(service) {
            if !reached.contains(&&dependant.id) {
                reached.push(&dependant.id);
                open.push(&dependant.id);
            }
        }
    }
    let there = |id: &&ServiceId| plan.services().get(*id).is_some_and(|service| service.site == *home);
    plan.start_order().iter().filter(there).filter(|id| whole_site || reached.contains(id)).collect()
}

impl Moving<'_> {
    /// The steps in the order in which they would be run.
    ///
    /// # Errors
    /// They can't be put in an order.
    pub fn steps(&self, plan: &Plan, now: DateTime<Utc>) -> Result<Vec<StepAhead>, MoveError> {
        let request = EventId::derive(self.carrier.as_str(), "preview");
        let incident = IncidentId::of_request(self.carrier, &request);
        let site = plan.services().get(self.carrier).map_or_else(|| self.moved.from.clone(), |s| s.site.clone());
        let inputs = Placeholders {
            service: self.carrier.clone(),
            site,
            recovery: RecoveryId::dry_run_of_request(self.carrier, &request),
            incident,
            attempt: 1,
            reason: String::new(),
            error_class: ErrorClass::Unknown,
            first_failure_at: now,
            inputs: BTreeMap::new(),
        };
        let script = unfold(self.procedure, plan, &inputs).map_err(|error| MoveError::Steps(error.to_string()))?;
        let forward = script.steps.iter().filter(|ready| ready.undoes.is_none());
        let ahead = forward.map(|ready| {
            let each = ready.each.as_ref().map(ToString::to_string);
            let value = |name: &str| {
                let known = if name == "each" { each.clone() } else { script.inputs.value(name) };
                // What an earlier step will have printed is not known yet.
                Ok(known.unwrap_or_else(|| format!("{{{name}}}")))
            };
            let action = crate::procedure::fill_action(&ready.step.action, &value);
            let action = action.unwrap_or_else(|_: String| ready.step.action.clone());
            StepAhead { step: ready.step.id.to_string(), action: describe(&action) }
        });
        Ok(ahead.collect())
    }

    /// What must hold before it begins. The same is asked again when it does.
    ///
    /// | name | holds when |
    /// |---|---|
    /// | `sites` | enough healthy sites are left, and the target is one |
    /// | `load` | it is where it is to be moved from |
    /// | `automation` | it is not paused for the carrier |
    /// | `recovery` | none of the carrier waits or runs |
    #[must_use]
    pub fn readiness(
        &self,
        plan: &Plan,
        sites: &Sites,
        pauses: &Pauses,
        under_way: Option<&RecoveryId>,
        now: DateTime<Utc>,
    ) -> Vec<Readiness> {
        let Move { from, to, back, healthy_sites_at_least: least } = &self.moved;
        let check = |name: &str, result: Result<String, String>| {
            let held = result.is_ok();
            Readiness { name: name.to_owned(), held, detail: result.unwrap_or_else(|reason| reason) }
        };
        let left = sites.left(plan, &self.moved);
        let names = left.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(", ");
        let enough = sites.allow(plan, &self.moved).map(|()| format!("{names} are left healthy, {least} must be"));
        let home = if *back { to } else { from };
        let load = match (back, sites.load_of(home)) {
            (false, Load::Home) => Ok(format!("the load of {home} is there")),
            (true, Load::At(at) | Load::Leaving(at)) if at == from => Ok(format!("the load of {home} is at {at}")),
            (true, Load::Home) => {
                Err(format!("the load of {home} was not moved away: if it was by hand, say so with failover.finished"))
            }
            (_, Load::Leaving(at)) => Err(format!("the load of {home} is on its way to {at}")),
            (_, Load::At(at)) => Err(format!("the load of {home} is at {at}")),
        };
        let paused = pauses.active(Target::of(plan, self.carrier, Some(&self.procedure.id)), now);
        let automation = match paused {
            None => Ok("it is not paused".to_owned()),
            Some(pause) => Err(format!("{} paused it: {}", pause.by, pause.reason)),
        };
        let recovery = match under_way {
            None => Ok(format!("none of {} is under way", self.carrier)),
            Some(id) => Err(format!("{id} of {} is under way: let it end, or cancel it", self.carrier)),
        };
        vec![check("sites", enough), check("load", load), check("automation", automation), check("recovery", recovery)]
    }
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// What happened, a line each, in the order in which it was heard of.
    pub lines: Vec<String>,
    /// The recovery that answers it.
    pub recovery: Option<RecoveryId>,
    /// How it ended; `None` while it has not.
    pub outcome: Option<String>,
}

/// Follows requests to their end: a fold, for those who look.
#[derive(Debug, Default)]
pub struct Courses {
    courses: BTreeMap<EventId, Course>,
    order: VecDeque<EventId>,
    requests: BTreeMap<RecoveryId, EventId>,
}

impl Courses {
    /// Takes note of an event. One that is delivered again is told again, to whoever looks.
    pub fn evolve(&mut self, event: &Event) {
        match &event.data {
            EventData::RecoveryRequested(_) => drop(self.course(&event.id)),
            EventData::RecoveryDeclined(data) => {
                let course = self.course(&data.request);
                course.outcome = Some("declined".into());
                course.tell(format!("declined: {}", data.reason));
            }
            EventData::RecoveryTriggered(data) => {
                let Some(asked) = &data.asked else { return };
                self.requests.insert(data.recovery.clone(), asked.request.clone());
                let course = self.course(&asked.request);
                course.recovery = Some(data.recovery.clone());
                course.tell(format!("triggered: {} by procedure {}", data.recovery, data.procedure));
            }
            data => {
                let Some(course) = data.recovery().and_then(|id| self.requests.get(id)).cloned() else { return };
                let course = self.course(&course);
                match data {
                    EventData::StepFinished(data) => {
                        let error = data.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                        let time = match data.outcome {
                            StepOutcome::Skipped => String::new(),
                            _ => format!(" after {} ms", data.duration_ms),
                        };
                        course.tell(format!("step {}: {}{time}{error}", data.step, data.outcome));
                    }
                    EventData::StepStarted(data) if data.action.starts_with("wait for approval") => {
                        course.tell(format!("step {}: {}", data.step, data.action));
                    }
                    EventData::FailoverStarted(data) => {
                        course.tell(format!("moving from {} to {}", data.from_site, data.to_site));
                    }
                    EventData::RecoveryVerified(data) => {
                        let failed = data.checks.iter().filter(|check| !check.passed);
                        let failed = failed.map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
                        let passed = format!("verified: {} checks passed", data.checks.len());
                        course.tell(if data.passed { passed } else { format!("not verified: {failed}") });
                    }
                    EventData::RecoveryFinished(data) => {
                        let reason = data.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                        course.tell(format!("{}{reason}", data.outcome));
                        course.outcome = Some(data.outcome.to_string());
                    }
                    _ => {}
                }
            }
        }
    }

    /// What is known of a request; `None` if it is not, or was long ago.
    #[must_use]
    pub fn of(&self, request: &EventId) -> Option<&Course> {
        self.courses.get(request)
    }

    fn course(&mut self, request: &EventId) -> &mut Course {
        if !self.courses.contains_key(request) {
            self.order.push_back(request.clone());
            if self.order.len() > REMEMBERED
                && let Some(old) = self.order.pop_front()
            {
                self.courses.remove(&old);
                self.requests.retain(|_, request| *request != old);
            }
        }
        self.courses.entry(request.clone()).or_default()
    }
}

impl Course {
    fn tell(&mut self, line: String) {
        if self.lines.len() < LINES {
            self.lines.push(line);
        }
    }

    /// Whether it ended, and as it should.
    #[must_use]
    pub fn succeeded(&self) -> Option<bool> {
        let good = [RecoveryOutcome::Succeeded, RecoveryOutcome::DryRun];
        self.outcome.as_ref().map(|outcome| good.iter().any(|good| good.as_str() == outcome))
    }
}

#[cfg(test)]
mod tests;
