//! The continuity plan: what is protected, how it is watched, and how it is brought back.
//!
//! [`Plan::parse`] reads TOML and gives a plan that holds together, or every fault at once, each with line, key and
//! remedy. A `Plan` can't be built otherwise, so whoever has one need not check again: ids are unique, references
//! lead somewhere, dependencies have no cycle. [`Plan::version`] is the content hash that decisions carry.

mod adopted;
mod condition;
mod error;
mod explain;
mod explain_procedure;
mod inputs;
mod limits;
mod model;
mod order;
mod protect;
mod rate;
mod read;
mod read_channel;
mod read_probe;
mod read_procedure;
mod read_template;
mod read_validation;
mod reader;
mod relations;
mod route;
mod section;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_folder;
#[cfg(all(test, unix))]
mod tests_stand_ins;
mod when;

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeTable;

pub use condition::{Condition, DegradedAs, Effect, Limit, Measure, Pace, missed};
pub use error::{PlanError, PlanErrors};
pub use inputs::{MOST_INPUT_BYTES, check_input};
pub use limits::{Limits, Reach, StopAbove};
pub use model::*;
pub use protect::{Group, Maintenance, Times};
pub use rate::Rate;
pub use reader::nearest;
pub use relations::MOST_STEPS;
pub use route::{EscalationStep, GroupBy, Grouping, Route};
pub use template::{Change, Escape, MAX_OUTPUT_BYTES, Template, TemplateError, Templates, Variables};
pub use when::{When, name_in_conditions};

use crate::event::Severity;
use crate::ids::{PlanVersion, ProbeId, ServiceId};
use read::{DEFAULT_CHANNEL, DEFAULT_POLICY, DEFAULT_SITE, DEFAULT_TIER, Reading, by_id, literal, probe_names};
pub use reader::suggest;
use reader::{Names, Reader};
use section::Section;

/// Gives the text of a file, by its absolute path, or says why it can't be read.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Plan {
    /// Reads a plan in which every path is absolute. `file` names the text in faults.
    ///
    /// # Errors
    /// Every fault of the text, by line.
    pub fn parse(text: &str, file: &str) -> Result<Self, PlanErrors> {
        Self::parse_in(text, file, "")
    }

    /// Reads a plan whose `./…` paths are meant within the folder `base`, an absolute path. Nothing is looked up
    /// in the file system.
    ///
    /// # Errors
    /// Every fault of the text, by line.
    pub fn parse_in(text: &str, file: &str, base: &str) -> Result<Self, PlanErrors> {
        Self::parse_with(text, file, base, &|_| Err("no files are read here".to_owned()))
    }

    /// As [`Plan::parse_in`]; `files` gives the text of a file that the plan names (a message's template), by its
    /// absolute path.
    ///
    /// # Errors
    /// Every fault of the text and of those files, by line.
    pub fn parse_with(text: &str, file: &str, base: &str, files: Files<'_>) -> Result<Self, PlanErrors> {
        let reader = Reader::new(text, file);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // A document that isn't TOML has no keys worth judging.
            for error in errors {
                reader.fault_at(error.span().map_or(0, |span| span.start), "", error.message(), "");
            }
            return Err(reader.into_errors());
        }
        let plan = read_plan(&Section::new(&reader, String::new(), 0, document.get_ref()), text, base, files);
        // What could not be read is missing from the plan, and has left a fault.
        reader.finish().map(|()| plan)
    }
}

fn read_plan(root: &Section<'_>, text: &str, base: &str, files: Files<'_>) -> Plan {
    let reader = root.reader;
    let or_default = |mut names: Names, default: &str| {
        if names.is_empty() {
            names.add(default);
        }
        names
    };
    let mut policies = root.names("policy", "policy");
    policies.add(DEFAULT_POLICY);
    let mut reading = Reading {
        reader,
        base,
        files,
        allow: Vec::new(),
        sites: or_default(root.names("site", "site"), DEFAULT_SITE),
        tiers: or_default(root.names("tier", "tier"), DEFAULT_TIER),
        services: root.names("service", "service"),
        probes: probe_names(root),
        policies,
        channels: or_default(root.names("channel", "channel"), DEFAULT_CHANNEL),
        procedures: root.names("procedure", "procedure"),
        backups: root.names("backup", "backup"),
        levels: root.names("service_level", "service level"),
        needable: Names::default(),
    };
    let groups = root.names("group", "group");
    reading.needable = Names::of(if groups.is_empty() { "service" } else { "service or group" });
    for name in reading.services.iter().chain(groups.iter()) {
        reading.needable.add(name);
    }
    for (at, path) in root.texts("allow").unwrap_or_default() {
        reading.allow.extend(reading.path(at, "allow", &path));
    }
    let reading = reading;

    let name = root.words("name").unwrap_or_else(|| "plan".to_owned());
    let listed: Vec<ServiceId> = root.references("start_order", &reading.services).unwrap_or_default();
    let mut sites: Vec<(Site, Reach)> =
        root.sections("site").iter().filter_map(|section| reading.site(section)).collect();
    if sites.is_empty() {
        let site = Site {
            id: literal(DEFAULT_SITE),
            purpose: "where everything runs".to_owned(),
            recovery_time: Duration::ZERO,
            capacity: 1.0,
            failover: None,
            failback: None,
        };
        sites.push((site, Reach::default()));
    }
    let mut tiers: Vec<Tier> = root.sections("tier").iter().filter_map(|section| reading.tier(section)).collect();
    if tiers.is_empty() {
        tiers.push(Tier { id: literal(DEFAULT_TIER), name: "tier 1".to_owned(), severity: Severity::Critical });
    }
    if root.sections("service").is_empty() && reader.sound(&["service"]) {
        let remedy = "write [[service]] with an id and, under it, [[service.probe]] with http = \"https://…\"";
        reader.fault_at(0, "service", "the plan protects nothing", remedy);
    }
    let (services, probes): (Vec<Service>, Vec<Vec<Probe>>) =
        root.sections("service").iter().filter_map(|section| reading.service(section)).unzip();
    let intervals = services
        .iter()
        .zip(&probes)
        .filter_map(|(service, probes)| Some((service, probes.iter().map(|probe| probe.every).max()?)));
    let longest = relations::longest_every(intervals);
    let every = |policy: &str| longest.get(policy).copied().unwrap_or_default();
    let mut policies: Vec<Policy> = Vec::new();
    for section in root.sections("policy") {
        let id = section.raw_text("id").unwrap_or_default();
        policies.extend(reading.policy(&section, every(&id)));
    }
    if !root.names("policy", "policy").has(DEFAULT_POLICY) {
        policies.push(reading.default_policy(every(DEFAULT_POLICY)));
    }
    let mut channels: Vec<Channel> =
        root.sections("channel").iter().filter_map(|section| reading.channel(section)).collect();
    if channels.is_empty() {
        channels.push(read_channel::default_channel());
    }
    let routes = reading.routes(root, None, 1);
    let procedures = root.sections("procedure");
    let procedures = procedures.iter().filter_map(|section| reading.procedure(section)).collect::<Vec<_>>();
    let backups: Vec<Backup> = root.sections("backup").iter().filter_map(|section| reading.backup(section)).collect();
    let levels = root.sections("service_level");
    let levels = levels.iter().filter_map(|section| reading.service_level(section)).collect::<Vec<_>>();
    named(root, "validation", "validation");
    let validations = root.sections("validation");
    let validations = validations.iter().filter_map(|section| reading.validation(section, &levels)).collect::<Vec<_>>();
    named(root, "maintenance", "maintenance window");
    let maintenance = root.sections("maintenance");
    let maintenance = maintenance.iter().filter_map(|section| reading.maintenance(section)).collect::<Vec<_>>();
    let groups: Vec<Group> = root.sections("group").iter().filter_map(|section| reading.group(section)).collect();
    named(root, "drill", "drill");
    let drills: Vec<Drill> = root.sections("drill").iter().filter_map(|section| reading.drill(section)).collect();
    let written: Vec<ServiceId> = services.iter().map(|service| service.id.clone()).collect();
    let services: BTreeMap<ServiceId, Service> = by_id(services, |service| service.id.clone());
    let limits = limits::read(root, &reading, &sites, &services);
    root.finish("a plan");

    let groups = by_id(groups, |group| group.id.clone());
    let start_order = relations::start_order(root, &written, &services, &groups, &listed);
    let probes = by_id(probes.into_iter().flatten(), |probe| probe.id.clone());
    let mut probes_of: BTreeMap<ServiceId, Vec<ProbeId>> = BTreeMap::new();
    for probe in probes.values() {
        probes_of.entry(probe.service.clone()).or_default().push(probe.id.clone());
    }
    let mut dependants_of: BTreeMap<ServiceId, Vec<ServiceId>> = BTreeMap::new();
    for service in services.values() {
        for need in &service.depends_on {
            dependants_of.entry(need.clone()).or_default().push(service.id.clone());
        }
    }
    let plan = Plan {
        version: PlanVersion::of_text(text),
        name,
        sites: by_id(sites.into_iter().map(|(site, _)| site), |site| site.id.clone()),
        limits,
        tiers: by_id(tiers, |tier| tier.id.clone()),
        services,
        probes,
        policies: by_id(policies, |policy| policy.id.clone()),
        routes,
        channels: by_id(channels, |channel| channel.id.clone()),
        procedures: by_id(procedures, |procedure| procedure.id.clone()),
        backups: by_id(backups, |backup| backup.id.clone()),
        service_levels: by_id(levels, |level| level.id.clone()),
        validations: by_id(validations, |validation| validation.id.clone()),
        drills: by_id(drills, |drill| drill.id.clone()),
        groups,
        maintenance: by_id(maintenance, |window| window.id.clone()),
        start_order,
        allow: reading.allow,
        probes_of,
        dependants_of,
    };
    relations::check(&plan, reader);
    plan
}

/// Reports duplicate ids of things that nothing refers to.
fn named(root: &Section<'_>, key: &str, what: &'static str) {
    drop(root.names(key, what));
}
