//! What must hold between the parts of a plan: no cycles, an order that works, objectives that can be met.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::{Action, Plan, Policy, Procedure, Service};
use super::order;
use super::protect::Group;
use super::reader::{Reader, words};
use super::section::Section;
use crate::ids::{PolicyId, ServiceId};

/// The longest probe interval under each policy.
pub(super) fn longest_every<'p>(
    services: impl IntoIterator<Item = (&'p Service, Duration)>,
) -> BTreeMap<PolicyId, Duration> {
    let mut longest = BTreeMap::new();
    for (service, every) in services {
        let entry = longest.entry(service.policy.clone()).or_insert(every);
        *entry = every.max(*entry);
    }
    longest
}

/// The start order: as `start_order` says, services that it doesn't list as early as their dependencies allow.
/// `written` is the order of the services in the plan.
pub(super) fn start_order(
    root: &Section<'_>,
    written: &[ServiceId],
    services: &BTreeMap<ServiceId, Service>,
    groups: &BTreeMap<String, Group>,
    listed: &[ServiceId],
) -> Vec<ServiceId> {
    let index: BTreeMap<&ServiceId, usize> = written.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let at = |id: &ServiceId| index.get(id).copied();
    // Who needs a group starts after all of its members.
    let depends = |id: &ServiceId| -> Vec<&ServiceId> {
        let Some(service) = services.get(id) else { return Vec::new() };
        let members = service.depends_on_groups.iter().filter_map(|group| groups.get(group));
        let members = members.flat_map(|group| &group.services).filter(|member| *member != id);
        service.depends_on.iter().chain(members).collect()
    };
    let mut needs: Vec<Vec<usize>> =
        written.iter().map(|id| depends(id).into_iter().filter_map(at).collect()).collect();
    let sorted = order::sort(&needs);
    for cycle in &sorted.cycles {
        let names: Vec<&str> = cycle.iter().map(|n| written[*n].as_str()).collect();
        let key = format!("service.{}.depends_on", names[0]);
        let remedy = "none of them could ever be started first: drop one of these dependencies";
        root.reader.fault(&key, format!("a cycle of dependencies: {}", order::arrows(&names)), remedy);
    }
    if !sorted.cycles.is_empty() {
        return Vec::new();
    }
    let mut direct = false;
    for (n, id) in listed.iter().enumerate() {
        let needs = depends(id);
        for late in listed[n + 1..].iter().filter(|other| needs.contains(other)) {
            let message = format!("{:?} comes before {:?}, which it depends on", id.as_str(), late.as_str());
            root.fault("start_order", message, format!("put {:?} first", late.as_str()));
            direct = true;
        }
    }
    for pair in listed.windows(2) {
        if let (Some(first), Some(second)) = (at(&pair[0]), at(&pair[1])) {
            needs[second].push(first);
        }
    }
    let sorted = order::sort(&needs);
    if let (Some(cycle), false) = (sorted.cycles.first(), direct) {
        let names: Vec<&str> = cycle.iter().map(|n| written[*n].as_str()).collect();
        let message = format!("does not fit the dependencies: {}", order::arrows(&names));
        root.fault("start_order", message, "put each service after what it depends on");
    }
    sorted.order.into_iter().map(|n| written[n].clone()).collect()
}

/// Steps of one recovery at most, nested ones and repetitions counted.
pub const MOST_STEPS: usize = 1000;

/// Procedures that are steps of one another, and nesting that never ends in a number of steps anybody would run.
fn nesting(plan: &Plan, reader: &Reader<'_>) {
    let procedures: Vec<&Procedure> = plan.procedures.values().collect();
    let nested = |procedure: &Procedure| {
        let ids = procedure.steps.iter().filter_map(|step| match &step.action {
            Action::Procedure { procedure } => Some(procedure.clone()),
            _ => None,
        });
        ids.filter_map(|id| procedures.iter().position(|other| other.id == id)).collect::<Vec<usize>>()
    };
    let needs: Vec<Vec<usize>> = procedures.iter().map(|procedure| nested(procedure)).collect();
    let sorted = order::sort(&needs);
    for cycle in &sorted.cycles {
        let names: Vec<&str> = cycle.iter().map(|n| procedures[*n].id.as_str()).collect();
        let key = format!("procedure.{}", names[0]);
        let message = format!("procedures that are steps of one another: {}", order::arrows(&names));
        reader.fault(&key, message, "none of them could ever end: drop one of these steps");
    }
    if !sorted.cycles.is_empty() {
        return;
    }
    let mut counts = vec![0usize; procedures.len()];
    for n in sorted.order {
        let own = procedures[n].steps.iter().map(|step| match (&step.action, step.each) {
            (Action::Procedure { .. }, _) => 0,
            (_, Some(_)) => plan.services.len(),
            _ => 1,
        });
        counts[n] = own.sum::<usize>() + procedures[n].rollback.len();
        counts[n] = needs[n].iter().fold(counts[n], |sum, inner| sum.saturating_add(counts[*inner]));
        if counts[n] > MOST_STEPS {
            let message = format!("is {} steps long, nested and repeated ones counted", counts[n]);
            let remedy = format!("a recovery has at most {MOST_STEPS}: make it shorter");
            reader.fault(&format!("procedure.{}", procedures[n].id), message, remedy);
        }
    }
}

/// Objectives that can't be met and policies that can't work, with the services that show it.
pub(super) fn check(plan: &Plan, reader: &Reader<'_>) {
    nesting(plan, reader);
    for service in plan.services.values() {
        let Some(policy) = plan.policies.get(&service.policy) else { continue };
        let probes: Vec<_> = plan.probes_of(&service.id).collect();
        let Some(shortest) = probes.iter().map(|probe| probe.every).min() else { continue };
        let at = |key: &str| format!("service.{}.{key}", service.id);
        let of_policy = |key: &str| format!("policy.{}.{key}", policy.id);
        let detect = shortest.saturating_mul(policy.failures);
        let detect = detect.saturating_add(policy.hold);
        let least = detect.saturating_add(policy.verify_within);
        if service.rto < least && reader.sound(&[&at("rto"), &of_policy("failures"), &of_policy("verify_within")]) {
            let message = format!(
                "{} can't be met: {} failures {} apart{} and verify_within {} already take up to {}",
                words(service.rto),
                policy.failures,
                words(shortest),
                if policy.hold.is_zero() { String::new() } else { format!(", hold {}", words(policy.hold)) },
                words(policy.verify_within),
                words(least)
            );
            let remedy =
                format!("probe more often, lower failures or verify_within of policy {:?}", policy.id.as_str());
            reader.fault(&at("rto"), message, format!("{remedy}, or write a longer rto"));
        }
        let longest = probes.iter().map(|probe| probe.every).max().unwrap_or(shortest);
        if policy.silent_after <= longest && reader.sound(&[&of_policy("silent_after")]) {
            let message = format!(
                "{} is not longer than the {} between probes of {:?}: it would go silent between any two",
                words(policy.silent_after),
                words(longest),
                service.id.as_str()
            );
            let remedy = format!("write {} or more", words(longest.saturating_mul(3)));
            reader.fault(&of_policy("silent_after"), message, remedy);
        }
        quorum(policy, service, &probes, reader);
    }
}

fn quorum(policy: &Policy, service: &Service, probes: &[&super::model::Probe], reader: &Reader<'_>) {
    let sites: BTreeSet<_> = probes.iter().map(|probe| probe.site.as_ref().unwrap_or(&service.site)).collect();
    let key = format!("policy.{}.sites", policy.id);
    if (policy.sites as usize) > sites.len() && reader.sound(&[&key]) {
        let plural = if sites.len() == 1 { "site" } else { "sites" };
        let message = format!(
            "{} sites can't agree about {:?}, which is probed from {} {plural}",
            policy.sites,
            service.id.as_str(),
            sites.len()
        );
        reader.fault(&key, message, "add probes with another site = \"…\", or write a smaller number");
    }
}
