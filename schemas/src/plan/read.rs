//! From the TOML document to the plan's types: every key, its default and what it may hold.
//!
//! Each default stands here once. References are checked against the ids that the whole document declares; what
//! holds *between* things (cycles, objectives that can't be met) is judged in `relations`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::condition::DegradedAs;
use super::limits::Reach;
use super::model::{Backup, Drill, Policy, Probe, Service, ServiceLevel, Site, Tier};
use super::reader::{Names, Reader};
use super::section::{Bounds, Section};
use crate::event::{BackupKind, RecoveryMethod, Severity, TriggerMode};
use crate::ids::{DrillId, IdError, PolicyId, ProbeId, ServiceId, TierId};

/// The policy of services that name none.
pub(super) const DEFAULT_POLICY: &str = "default";
/// The only site of a plan that declares none.
pub(super) const DEFAULT_SITE: &str = "primary";
/// The only tier of a plan that declares none.
pub(super) const DEFAULT_TIER: &str = "tier-1";
/// The only channel of a plan that declares none.
pub(super) const DEFAULT_CHANNEL: &str = "log";

const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const RTO: Duration = Duration::from_secs(3600);
const RPO: Duration = Duration::from_secs(24 * 3600);
const VERIFY_WITHIN: Duration = Duration::from_secs(60);
const SILENT_AFTER: Duration = Duration::from_secs(30);
const APPROVE_WITHIN: Duration = Duration::from_secs(30 * 60);
/// A trigger is good for a day: what has not begun by then is called off.
const LONGEST_APPROVAL: Duration = Duration::from_secs(23 * 3600);

/// Any share of a whole, 0 to 1.
const SHARE: Bounds = Bounds { least: 0.0, open: false, most: 1.0, example: 0.999 };

/// An id that is a literal of this crate.
pub(super) fn literal<T: FromStr<Err = IdError>>(text: &'static str) -> T {
    // Invariant: literal ids follow the rule for ids.
    text.parse().unwrap_or_else(|_| unreachable!("{text:?} is an id"))
}

/// The words of a closed set with their values.
macro_rules! set {
    ($type:ty) => {
        <$type>::ALL.iter().map(|value| (value.as_str(), *value)).collect::<Vec<_>>().as_slice()
    };
}
pub(super) use set;

/// What reading a plan needs besides the section at hand.
pub(super) struct Reading<'a> {
    pub(super) reader: &'a Reader<'a>,
    /// The plan's folder, which `./…` paths are relative to.
    pub(super) base: &'a str,
    /// Reads the files that the plan names.
    pub(super) files: super::Files<'a>,
    pub(super) allow: Vec<String>,
    pub(super) sites: Names,
    pub(super) tiers: Names,
    pub(super) services: Names,
    pub(super) probes: Names,
    pub(super) policies: Names,
    pub(super) channels: Names,
    pub(super) procedures: Names,
    pub(super) backups: Names,
    pub(super) levels: Names,
    /// Services and redundancy groups: what can be depended on.
    pub(super) needable: Names,
}

/// The probe ids of a plan, which are unique in all of it.
pub(super) fn probe_names(root: &Section<'_>) -> Names {
    let mut names = Names::of("probe");
    let mut services = Names::of("service");
    for service in root.sections("service") {
        // A service written twice has its own fault; its probes need not be told as well.
        if service.raw_text("id").is_some_and(|id| !services.add(&id)) {
            continue;
        }
        for probe in service.sections("probe") {
            let Some(id) = probe_id(&service, &probe) else { continue };
            if !names.add(&id) {
                let message = format!("{id:?} is the id of another probe already");
                probe.reader.fault_at(probe.at, &probe.path, message, "give each probe its own id = \"…\"");
            }
        }
    }
    names
}

/// A probe's id: as written, else `<service>/<kind>`.
pub(super) fn probe_id(service: &Section<'_>, probe: &Section<'_>) -> Option<String> {
    if probe.has("id") {
        return probe.raw_text("id");
    }
    let kind = super::read_probe::KINDS.iter().find(|kind| probe.has(kind))?;
    Some(format!("{}/{kind}", service.raw_text("id")?))
}

impl<'a> Reading<'a> {
    /// The places, and what each says of its limits.
    pub(super) fn site(&self, section: &Section<'a>) -> Option<(Site, Reach)> {
        let id = section.id("site");
        let purpose = section.words("purpose").unwrap_or_default();
        let recovery_time = section.duration_or_zero("recovery_time").unwrap_or_default();
        let bounds = Bounds { least: 0.0, open: true, most: 100.0, example: 1.0 };
        let capacity = section.number("capacity", bounds).unwrap_or(1.0);
        let failover = section.reference("failover", &self.procedures);
        let failback = section.reference("failback", &self.procedures);
        let reach = self.reach(section);
        section.finish("a site");
        Some((Site { id: id?, purpose, recovery_time, capacity, failover, failback }, reach))
    }

    /// The tiers.
    pub(super) fn tier(&self, section: &Section<'a>) -> Option<Tier> {
        let id: Option<TierId> = section.id("tier");
        let name = section.words("name");
        let severity = section.word("severity", set!(Severity)).unwrap_or(Severity::Critical);
        section.finish("a tier");
        let id = id?;
        Some(Tier { name: name.unwrap_or_else(|| id.to_string()), id, severity })
    }

    /// A service with its probes.
    pub(super) fn service(&self, section: &Section<'a>) -> Option<(Service, Vec<Probe>)> {
        let id: Option<ServiceId> = section.id("service");
        let name = section.words("name");
        let tier = section.reference("tier", &self.tiers);
        if !section.has("tier") && self.tiers.iter().count() > 1 {
            let tiers: Vec<_> = self.tiers.iter().map(|tier| format!("{tier:?}")).collect();
            section.required("tier", &format!("tier = {}", tiers.join(" or ")));
        }
        let tier = tier.or_else(|| self.tiers.iter().next()?.parse().ok());
        let site = section.reference("site", &self.sites);
        let site = site.or_else(|| self.sites.iter().next()?.parse().ok());
        let (depends_on, depends_on_groups) = self.dependencies(section);
        let rto = section.duration("rto").unwrap_or(RTO);
        let rpo = section.duration_or_zero("rpo").unwrap_or(RPO);
        let procedure = section.reference("procedure", &self.procedures);
        let method = section.word("method", set!(RecoveryMethod));
        let method = method.unwrap_or(match procedure {
            Some(_) => RecoveryMethod::ColdStandby,
            None => RecoveryMethod::ManualRestore,
        });
        let policy = section.reference("policy", &self.policies);
        let policy: PolicyId = policy.unwrap_or_else(|| literal(DEFAULT_POLICY));
        let probes = section.sections("probe");
        section.finish("a service");
        // The probes are read without an id too, for their own faults.
        let owner = id.clone().unwrap_or_else(|| literal("unnamed"));
        let probes = probes.iter().filter_map(|probe| self.probe(section, probe, &owner)).collect();
        let id = id?;
        let name = name.unwrap_or_else(|| id.to_string());
        Some((
            Service {
                name,
                tier: tier?,
                site: site?,
                depends_on,
                depends_on_groups,
                rto,
                rpo,
                method,
                policy,
                procedure,
                id,
            },
            probes,
        ))
    }

    /// What a service needs: services, and redundancy groups, which are told apart by their names.
    fn dependencies(&self, section: &Section<'a>) -> (Vec<ServiceId>, Vec<String>) {
        let needs: Vec<ServiceId> = section.references("depends_on", &self.needable).unwrap_or_default();
        let (services, groups): (Vec<_>, Vec<_>) = needs.into_iter().partition(|id| self.services.has(id.as_str()));
        (services, groups.into_iter().map(|id| id.to_string()).collect())
    }

    fn probe(&self, service: &Section<'a>, section: &Section<'a>, owner: &ServiceId) -> Option<Probe> {
        section.text("id");
        let id = probe_id(service, section);
        let id: Option<ProbeId> = id.and_then(|text| match text.parse::<ProbeId>() {
            Ok(id) => Some(id),
            Err(error) => {
                section.fault("id", error.to_string(), "");
                None
            }
        });
        let site = section.reference("site", &self.sites);
        let every = section.duration("every").unwrap_or(PROBE_EVERY);
        let timeout = section.duration("timeout").unwrap_or(PROBE_TIMEOUT.min(every));
        if timeout > every {
            let message = format!("{} is longer than every = {}", text(timeout), text(every));
            section.fault("timeout", message, "a probe must end before the next one starts: write it at most as long");
        }
        let degraded_above = section.duration("degraded_above");
        if let Some(limit) = degraded_above.filter(|limit| *limit >= timeout) {
            let message = format!("{} is not less than timeout = {}", text(limit), text(timeout));
            section.fault("degraded_above", message, "an answer that slow has failed already: write less");
        }
        let check = self.check(section);
        Some(Probe { id: id?, service: owner.clone(), site, every, timeout, degraded_above, check: check? })
    }

    /// A policy. Its times depend on how often the services under it are probed, unless written.
    pub(super) fn policy(&self, section: &Section<'a>, longest_every: Duration) -> Option<Policy> {
        let id = section.id("policy");
        let policy = self.policy_body(section, id, longest_every);
        section.finish("a policy");
        policy
    }

    fn policy_body(&self, section: &Section<'a>, id: Option<PolicyId>, every: Duration) -> Option<Policy> {
        let mut policy = self.default_policy(every);
        let least = |value: Option<u32>, default: u32| value.unwrap_or(default);
        policy.failures = least(section.count("failures", 1, 1000), policy.failures);
        policy.of = section.count("of", 1, 1000);
        if let Some(of) = policy.of.filter(|of| policy.failures > *of) {
            let message = format!("{} failures among the last {of} observations can't happen", policy.failures);
            section.fault("failures", message, format!("write failures = {of} at most, or a larger of"));
        }
        policy.recoveries = least(section.count("recoveries", 1, 1000), policy.recoveries);
        policy.sites = least(section.count("sites", 1, 100), policy.sites);
        policy.silent_after = section.duration("silent_after").unwrap_or(policy.silent_after);
        self.judgements(section, &mut policy);
        policy.repeat = section.duration("repeat");
        policy.severity = section.word("severity", set!(Severity));
        policy.notify = section.references("notify", &self.channels).unwrap_or(policy.notify);
        policy.trigger = section.word("trigger", set!(TriggerMode)).unwrap_or(policy.trigger);
        if let Some(within) = section.duration("approve_within") {
            policy.approve_within = within;
            let remedy = format!("write {} at most", text(LONGEST_APPROVAL));
            if within > LONGEST_APPROVAL {
                section.fault("approve_within", "is longer than a trigger is good for", remedy);
            } else if matches!(policy.trigger, TriggerMode::Off | TriggerMode::DryRun) {
                let message = format!("nothing waits for approval where trigger is {:?}", policy.trigger.as_str());
                section.fault("approve_within", message, "write trigger = \"approve\" with it, or leave it out");
            }
        }
        policy.intensity = least(section.count("intensity", 1, 1000), policy.intensity);
        policy.intensity_period = section.duration("intensity_period").unwrap_or(policy.intensity_period);
        let backoff = section.duration("backoff");
        let backoff_max = section.duration("backoff_max");
        policy.backoff = backoff.unwrap_or(policy.backoff.min(backoff_max.unwrap_or(policy.backoff)));
        policy.backoff_max = backoff_max.unwrap_or(policy.backoff_max.max(policy.backoff));
        if policy.backoff > policy.backoff_max {
            let message = format!("{} is longer than backoff_max = {}", text(policy.backoff), text(policy.backoff_max));
            section.fault("backoff", message, "write the first wait in backoff and the longest in backoff_max");
        }
        policy.backoff_reset = section.duration("backoff_reset").unwrap_or(policy.backoff_reset);
        policy.verify_within = section.duration("verify_within").unwrap_or(policy.verify_within);
        Some(Policy { id: id?, ..policy })
    }

    /// What a policy is where the plan says nothing.
    pub(super) fn default_policy(&self, longest_every: Duration) -> Policy {
        Policy {
            id: literal(DEFAULT_POLICY),
            failures: 3,
            of: None,
            recoveries: 2,
            sites: 1,
            silent_after: SILENT_AFTER.max(longest_every.saturating_mul(3)),
            hold: Duration::ZERO,
            keep_firing: Duration::ZERO,
            degraded: DegradedAs::default(),
            conditions: Vec::new(),
            repeat: None,
            severity: None,
            // Everybody is told unless a policy chooses.
            notify: self.channels.iter().filter_map(|id| id.parse().ok()).collect(),
            trigger: TriggerMode::Auto,
            approve_within: APPROVE_WITHIN,
            intensity: 3,
            intensity_period: Duration::from_secs(3600),
            backoff: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            backoff_reset: Duration::from_secs(600),
            verify_within: VERIFY_WITHIN.max(longest_every.saturating_mul(2)),
        }
    }

    /// A backup schedule.
    pub(super) fn backup(&self, section: &Section<'a>) -> Option<Backup> {
        let id = section.id::<ServiceId>("backup");
        section.required("service", "service = \"…\", whose data it holds");
        let service = section.reference("service", &self.services);
        section.required("kind", "kind = \"full\", \"incremental\" or \"snapshot\"");
        let kind = section.word("kind", set!(BackupKind));
        section.required("every", "every = \"1d\"");
        let every = section.duration("every");
        section.required("retention", "retention = \"30d\"");
        let retention = section.duration("retention");
        let verify_every = section.duration("verify_every");
        if let (Some(every), Some(retention)) = (every, retention)
            && retention < every
        {
            let message = format!("{} is shorter than every = {}", text(retention), text(every));
            section.fault("retention", message, "the last backup would be gone before the next: write it longer");
        }
        let restore = section.reference("restore", &self.procedures);
        section.finish("a backup");
        let every = every?;
        Some(Backup {
            id: id?.to_string(),
            service: service?,
            kind: kind?,
            every,
            retention: retention?,
            verify_every: verify_every.unwrap_or(every),
            restore,
        })
    }

    /// Service-level thresholds.
    pub(super) fn service_level(&self, section: &Section<'a>) -> Option<ServiceLevel> {
        let id = section.id::<ServiceId>("service level");
        let services = section.references("services", &self.services).unwrap_or_default();
        let rate = Bounds { least: 0.0, open: true, most: 1e12, example: 1000.0 };
        let level = ServiceLevel {
            id: String::new(),
            services,
            response_time: section.duration("response_time"),
            throughput_per_second: section.number("throughput_per_second", rate),
            error_rate: section.number("error_rate", Bounds { example: 0.01, ..SHARE }),
            availability: section.number("availability", SHARE),
        };
        const THRESHOLDS: [&str; 4] = ["response_time", "throughput_per_second", "error_rate", "availability"];
        if !THRESHOLDS.iter().any(|key| section.has(key)) {
            let remedy = format!("write at least one of {}", THRESHOLDS.join(", "));
            section.reader.fault_at(section.at, &section.path, "has no threshold", remedy);
        }
        section.finish("a service level");
        Some(ServiceLevel { id: id?.to_string(), ..level })
    }

    /// A recovery drill.
    pub(super) fn drill(&self, section: &Section<'a>) -> Option<Drill> {
        let id: Option<DrillId> = section.id("drill");
        let name = section.words("name");
        section.required("scenario", "scenario = \"…\", what is broken");
        let scenario = section.words("scenario");
        let services = section.references("services", &self.services).unwrap_or_default();
        section.required("detect_within", "detect_within = \"15m\"");
        let detect_within = section.duration("detect_within");
        section.required("recover_within", "recover_within = \"2h\"");
        let recover_within = section.duration("recover_within");
        if let (Some(detect), Some(recover)) = (detect_within, recover_within)
            && recover < detect
        {
            let message = format!("{} is shorter than detect_within = {}", text(recover), text(detect));
            section.fault("recover_within", message, "recovery includes detection: write it longer");
        }
        let integrity = section.number("integrity", SHARE);
        let data_loss_allowed = section.flag("data_loss_allowed").unwrap_or(false);
        let impact_on_others_allowed = section.flag("impact_on_others_allowed").unwrap_or(false);
        section.finish("a drill");
        let id = id?;
        Some(Drill {
            name: name.unwrap_or_else(|| id.to_string()),
            id,
            scenario: scenario?,
            services,
            detect_within: detect_within?,
            recover_within: recover_within?,
            integrity,
            data_loss_allowed,
            impact_on_others_allowed,
        })
    }

    /// An absolute path: as written, or `./…` within the plan's folder.
    pub(super) fn path(&self, at: usize, key: &str, text: &str) -> Option<String> {
        let fault = |message: &str, remedy: &str| {
            self.reader.fault_at(at, key, format!("{text:?} {message}"), remedy);
            None
        };
        if text.split('/').any(|part| part == "..") {
            return fault("goes up by \"..\"", "write the path without it");
        }
        match text.strip_prefix("./") {
            Some(_) if !self.base.starts_with('/') => {
                fault("is relative, and the plan's folder is not known", "write an absolute path")
            }
            Some(rest) if !rest.is_empty() => Some(format!("{}/{rest}", self.base.trim_end_matches('/'))),
            _ if text.len() > 1 && text.starts_with('/') => Some(text.to_owned()),
            _ => fault("is not an absolute path", "write it from \"/\", or from \"./\" for the plan's folder"),
        }
    }

    /// A program and its arguments: the program absolute and on the `allow` list.
    pub(super) fn argv(&self, section: &Section<'a>, key: &str) -> Option<Vec<String>> {
        let argv = section.texts(key)?;
        let path = section.key(key);
        for (at, _) in argv.iter().filter(|(_, argument)| argument.contains('\0')) {
            self.reader.fault_at(*at, &path, "an argument can't hold the character NUL", "write it without \\u0000");
        }
        let mut argv = argv.into_iter();
        let Some((at, program)) = argv.next() else {
            section.fault(key, "is empty", "write the program and its arguments, as in [\"/usr/bin/true\"]");
            return None;
        };
        let resolved = self.path(at, &path, &program)?;
        if !self.allow.contains(&resolved) {
            let message = format!("{program:?} is not on the plan's allow list");
            self.reader.fault_at(at, &path, message, format!("add it at the top: allow = [{program:?}]"));
        }
        let rest = argv.map(|(_, argument)| argument);
        Some(std::iter::once(resolved).chain(rest).collect())
    }
}

/// Things by their id.
pub(super) fn by_id<K: Ord + Clone, V>(items: impl IntoIterator<Item = V>, id: impl Fn(&V) -> K) -> BTreeMap<K, V> {
    items.into_iter().map(|item| (id(&item), item)).collect()
}

fn text(duration: Duration) -> String {
    super::reader::words(duration)
}
