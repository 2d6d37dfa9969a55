//! The words in cells: services, severities, outcomes and causes as other systems name them.

use std::collections::{BTreeMap, HashMap};

use rebound_schemas::ServiceId;
use rebound_schemas::event::{ErrorClass, Outcome, Severity};
use rebound_schemas::plan::Plan;

/// Which service a name means: as the mapping says, or one of the plan (by id or name, in upper or lower case), or
/// else the name itself with what an id does not allow replaced by `-`.
#[derive(Debug, Clone, Default)]
pub struct Services {
    mapped: BTreeMap<String, ServiceId>,
    planned: HashMap<String, ServiceId>,
    has_plan: bool,
    /// Names that had to be changed, and into what.
    pub renamed: BTreeMap<String, ServiceId>,
    /// Services that the plan does not know; empty without a plan.
    pub unplanned: BTreeMap<ServiceId, u64>,
}

impl Services {
    /// By the mapping's own words and the plan, where there are any.
    #[must_use]
    pub fn new(mapped: BTreeMap<String, ServiceId>, plan: Option<&Plan>) -> Self {
        let mut planned = HashMap::new();
        for (id, service) in plan.into_iter().flat_map(|plan| plan.services()) {
            planned.entry(service.name.to_lowercase()).or_insert_with(|| id.clone());
        }
        for id in plan.into_iter().flat_map(|plan| plan.services().keys()) {
            planned.insert(id.as_str().to_lowercase(), id.clone());
        }
        Self { mapped, planned, has_plan: plan.is_some(), ..Self::default() }
    }

    /// The service of this name.
    pub(super) fn of(&mut self, name: &str) -> Result<ServiceId, String> {
        let service = match self.mapped.get(name).or_else(|| self.planned.get(&name.to_lowercase())) {
            Some(service) => service.clone(),
            None => match ServiceId::new(name) {
                Ok(service) => service,
                Err(_) => self.rename(name)?,
            },
        };
        if self.has_plan && !self.planned.contains_key(&service.as_str().to_lowercase()) {
            *self.unplanned.entry(service.clone()).or_default() += 1;
        }
        Ok(service)
    }

    fn rename(&mut self, name: &str) -> Result<ServiceId, String> {
        let mut id = String::new();
        for c in name.trim().chars() {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/') {
                id.push(c);
            } else if !id.ends_with('-') {
                id.push('-');
            }
        }
        let id = id.trim_matches('-');
        let service = ServiceId::new(id).map_err(|error| {
            format!("{name:?} can't be made the id of a service ({error}): name it under [services] of a mapping file")
        })?;
        self.renamed.insert(name.to_owned(), service.clone());
        Ok(service)
    }
}

/// How bad, by the words that trackers use; `None` for others.
pub(super) fn severity(text: &str) -> Option<Severity> {
    let word = text.to_lowercase();
    // "1 - Critical", "P2", "Sev-3": what counts is the number, or else the word.
    let stem = word.split(" - ").next().unwrap_or_default();
    let stem = stem.trim_start_matches("sev").trim_start_matches("erity").trim_start_matches(['p', '-', ' ']);
    Some(match stem {
        "0" | "1" => Severity::Critical,
        "2" | "3" => Severity::Warning,
        "4" | "5" => Severity::Info,
        _ => match word.as_str() {
            "critical" | "blocker" | "highest" | "high" | "major" | "emergency" | "urgent" | "severe" => {
                Severity::Critical
            }
            "warning" | "minor" | "medium" | "moderate" | "normal" | "error" => Severity::Warning,
            "info" | "informational" | "information" | "low" | "lowest" | "trivial" | "none" | "maintenance"
            | "planning" => Severity::Info,
            _ => return None,
        },
    })
}

/// What a probe found, by the words that monitors use; `None` for others.
pub(super) fn outcome(text: &str) -> Option<Outcome> {
    Some(match text.to_lowercase().as_str() {
        "healthy" | "up" | "ok" | "success" | "successful" | "succeeded" | "passed" | "pass" | "passing" | "good"
        | "operational" | "available" | "online" | "alive" | "true" | "1" => Outcome::Healthy,
        "degraded" | "degraded_performance" | "warning" | "warn" | "slow" | "partial" => Outcome::Degraded,
        "failed" | "fail" | "failure" | "failing" | "down" | "critical" | "error" | "unhealthy" | "unavailable"
        | "offline" | "major_outage" | "dead" | "timeout" | "false" | "0" => Outcome::Failed,
        _ => return None,
    })
}

/// The class of a cause: the class's own name, or what the mapping says of it.
pub(super) fn error_class(cause: &str, mapped: &BTreeMap<String, ErrorClass>) -> ErrorClass {
    let word = cause.to_lowercase().replace([' ', '-'], "_");
    mapped.get(cause).copied().or_else(|| ErrorClass::parse(&word)).unwrap_or(ErrorClass::Unknown)
}
