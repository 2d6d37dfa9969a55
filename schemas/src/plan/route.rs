//! Routes: which channels are told of which alerts, in which groups, and who is told when nobody takes an incident.
//!
//! The rules are Alertmanager's. An alert enters at the top and takes the first route that matches it, and the next
//! matching ones too as long as those before say `continue`. Within a route its own routes are tried in the same way;
//! if none matches, the route itself is where the alert goes. What a route leaves out it has from its parent.
//!
//! | the plan's routes | told are |
//! |---|---|
//! | one or more match | their channels, each once: the first route that names a channel says how |
//! | none matches, or there are none | the policy's `notify`, each alert by itself, every `repeat` |

use std::time::Duration;

use super::model::{Plan, Policy};
use super::read::{Reading, set};
use super::reader::words;
use super::section::Section;
use super::template::Templates;
use crate::event::Severity;
use crate::ids::{ChannelId, PolicyId, ServiceId, SiteId, TierId};

const GROUP_WAIT: Duration = Duration::from_secs(30);
const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// Routes within routes at most.
const DEEPEST: usize = 8;

/// What alerts of one group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupBy {
    /// The severity.
    Severity,
    /// The service's tier.
    Tier,
    /// The service.
    Service,
    /// The service's site.
    Site,
    /// The policy.
    Policy,
}

const GROUP_BY: [(&str, GroupBy); 5] = [
    ("severity", GroupBy::Severity),
    ("tier", GroupBy::Tier),
    ("service", GroupBy::Service),
    ("site", GroupBy::Site),
    ("policy", GroupBy::Policy),
];

/// How alerts of a route are put together into messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// What alerts of one group share; nothing: all alerts of the route are one group.
    pub by: Vec<GroupBy>,
    /// From the first change of a quiet group to its message.
    pub wait: Duration,
    /// From one message of a group to its next.
    pub interval: Duration,
}

/// More people, when nobody has acknowledged an incident in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscalationStep {
    /// After the alert was raised.
    pub after: Duration,
    /// Who is told then.
    pub channels: Vec<ChannelId>,
}

/// One route; an empty list of a matcher matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it stands in the plan: `route[1].route[2]`, or by its id.
    pub path: String,
    /// Alerts of these severities.
    pub severities: Vec<Severity>,
    /// Of services of these tiers.
    pub tiers: Vec<TierId>,
    /// Of these services.
    pub services: Vec<ServiceId>,
    /// Of services at these sites.
    pub sites: Vec<SiteId>,
    /// That these policies raised.
    pub policies: Vec<PolicyId>,
    /// Who is told.
    pub channels: Vec<ChannelId>,
    /// Whether the routes after it are tried as well.
    pub go_on: bool,
    /// How alerts are grouped; without it, each is told by itself and at once.
    pub grouping: Option<Grouping>,
    /// A firing alert is told again after this; the policy's `repeat` without it.
    pub repeat: Option<Duration>,
    /// Its own words, before its channels' own.
    pub templates: Templates,
    /// Steps in order of their time.
    pub escalation: Vec<EscalationStep>,
    /// Routes within it.
    pub routes: Vec<Route>,
}

impl<'a> Reading<'a> {
    /// The routes under `section`, which inherit from `parent`.
    pub(super) fn routes(&self, section: &Section<'a>, parent: Option<&Route>, depth: usize) -> Vec<Route> {
        let routes = section.sections("route");
        if depth > DEEPEST {
            if let Some(first) = routes.first() {
                let message = format!("stands more than {DEEPEST} routes deep");
                first.reader.fault_at(first.at, &first.path, message, "write it further up");
            }
            return Vec::new();
        }
        routes.iter().map(|route| self.route(route, parent, depth)).collect()
    }

    fn route(&self, section: &Section<'a>, parent: Option<&Route>, depth: usize) -> Route {
        section.text("id");
        let severities = word_list(section, "severities", set!(Severity), "is not a severity", "one of");
        let inherited = |pick: fn(&Route) -> Option<Duration>| parent.and_then(pick);
        if !section.has("channels") && parent.is_none() {
            section.required("channels", "channels = [\"…\"], who is told; channels = [] for nobody");
        }
        let channels = section.references("channels", &self.channels);
        let mut route = Route {
            path: section.path.clone(),
            severities: severities.unwrap_or_default(),
            tiers: section.references("tiers", &self.tiers).unwrap_or_default(),
            services: section.references("services", &self.services).unwrap_or_default(),
            sites: section.references("sites", &self.sites).unwrap_or_default(),
            policies: section.references("policies", &self.policies).unwrap_or_default(),
            channels: channels.or_else(|| parent.map(|route| route.channels.clone())).unwrap_or_default(),
            go_on: section.flag("continue").unwrap_or(false),
            grouping: self.grouping(section, parent),
            repeat: section.duration("repeat_interval").or_else(|| inherited(|route| route.repeat)),
            templates: self.templates(section, None),
            escalation: Vec::new(),
            routes: Vec::new(),
        };
        if let Some(parent) = parent {
            route.templates = route.templates.or(&parent.templates);
        }
        route.escalation = match section.has("escalation") {
            true => self.escalation(section),
            false => parent.map(|route| route.escalation.clone()).unwrap_or_default(),
        };
        route.routes = self.routes(section, Some(&route), depth + 1);
        section.finish("a route");
        route
    }

    fn grouping(&self, section: &Section<'a>, parent: Option<&Route>) -> Option<Grouping> {
        let inherited = parent.and_then(|route| route.grouping.clone());
        let (wait, interval) = (section.duration_or_zero("group_wait"), section.duration("group_interval"));
        let by = word_list(section, "group_by", &GROUP_BY, "is nothing to group by", "one or more of");
        let by = by.or_else(|| inherited.as_ref().map(|grouping| grouping.by.clone()));
        let Some(by) = by else {
            for key in ["group_wait", "group_interval"].iter().filter(|key| section.has(key)) {
                section.fault(
                    key,
                    "says how long a group waits, but nothing is grouped",
                    "write group_by = [\"site\"]",
                );
            }
            return None;
        };
        let wait = wait.or(inherited.as_ref().map(|grouping| grouping.wait)).unwrap_or(GROUP_WAIT);
        let interval = interval.or(inherited.as_ref().map(|grouping| grouping.interval));
        Some(Grouping { by, wait, interval: interval.unwrap_or(GROUP_INTERVAL) })
    }

    fn escalation(&self, section: &Section<'a>) -> Vec<EscalationStep> {
        let mut steps: Vec<EscalationStep> = Vec::new();
        for step in section.sections("escalation") {
            step.required("after", "after = \"15m\"");
            step.required("channels", "channels = [\"…\"]");
            let after = step.duration("after");
            if let (Some(after), Some(last)) = (after, steps.last())
                && after <= last.after
            {
                let message = format!("{} is not after the step before it, at {}", words(after), words(last.after));
                step.fault("after", message, "write the steps in order of their time");
            }
            let channels = step.references("channels", &self.channels);
            if channels.as_ref().is_some_and(Vec::is_empty) && step.reader.sound(&[&step.key("channels")]) {
                step.fault("channels", "is empty", "write channels = [\"…\"] or leave the step out");
            }
            step.finish("an escalation step");
            steps.extend(after.zip(channels).map(|(after, channels)| EscalationStep { after, channels }));
        }
        steps
    }
}

/// Words of a closed set; of one that is not in it, `wrong` says what it isn't.
fn word_list<T: Copy>(
    section: &Section<'_>,
    key: &str,
    set: &[(&'static str, T)],
    wrong: &str,
    how_many: &str,
) -> Option<Vec<T>> {
    let mut known = Vec::new();
    for (at, text) in section.texts(key)? {
        match set.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => known.push(*value),
            None => {
                let all: Vec<_> = set.iter().map(|(word, _)| *word).collect();
                let remedy = format!("write {how_many} {}", all.join(", "));
                section.reader.fault_at(at, &section.key(key), format!("{text:?} {wrong}"), remedy);
            }
        }
    }
    Some(known)
}

impl Route {
    fn matches(&self, plan: &Plan, service: &ServiceId, policy: &PolicyId, severity: Severity) -> bool {
        fn any<T: PartialEq>(list: &[T], value: Option<&T>) -> bool {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        }
        let about = plan.services().get(service);
        any(&self.severities, Some(&severity))
            && any(&self.tiers, about.map(|service| &service.tier))
            && any(&self.services, Some(service))
            && any(&self.sites, about.map(|service| &service.site))
            && any(&self.policies, Some(policy))
    }
}

impl Plan {
    /// Routes at the top, in order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Where an alert goes; nothing: the policy's `notify` decides.
    #[must_use]
    pub fn routes_of(&self, service: &ServiceId, policy: &PolicyId, severity: Severity) -> Vec<&Route> {
        let mut found = Vec::new();
        self.take(&self.routes, service, policy, severity, &mut found);
        found
    }

    fn take<'r>(
        &self,
        routes: &'r [Route],
        service: &ServiceId,
        policy: &PolicyId,
        severity: Severity,
        found: &mut Vec<&'r Route>,
    ) {
        for route in routes.iter().filter(|route| route.matches(self, service, policy, severity)) {
            let before = found.len();
            self.take(&route.routes, service, policy, severity, found);
            if found.len() == before {
                found.push(route);
            }
            if !route.go_on {
                return;
            }
        }
    }

    /// Who is told of what, in words: a line for each severity that services of a tier and policy can have.
    #[must_use]
    pub fn explain_routes(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let (mut seen, mut heads) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for service in self.services().values() {
            let Some(policy) = self.policies().get(&service.policy) else { continue };
            let tier = self.tiers().get(&service.tier).map_or(Severity::Critical, |tier| tier.severity);
            let severity = policy.severity.unwrap_or(tier);
            let told = self.explain_target(&service.id, policy, severity);
            let head = format!("{severity} alerts of {} services under policy {}", service.tier, policy.id);
            let line = format!("{head} {told}");
            if seen.contains(&line) {
                continue;
            }
            // Where a service has its own way, it is named.
            let line = if heads.insert(head) { line } else { format!("{severity} alerts of {} {told}", service.id) };
            if seen.insert(line.clone()) {
                lines.push(line);
            }
        }
        lines
    }

    fn explain_target(&self, service: &ServiceId, policy: &Policy, severity: Severity) -> String {
        let names = |channels: &[ChannelId]| match channels {
            [] => "nobody".to_owned(),
            channels => channels.iter().map(ChannelId::as_str).collect::<Vec<_>>().join(" and "),
        };
        let routes = self.routes_of(service, &policy.id, severity);
        if routes.is_empty() {
            return format!("go to {}, by their policy", names(&policy.notify));
        }
        let told = routes.iter().map(|route| {
            let mut told = format!("{} ({}", names(&route.channels), route.path);
            if let Some(grouping) = &route.grouping {
                let (wait, interval) = (words(grouping.wait), words(grouping.interval));
                told += &format!(", grouped after {wait}, then every {interval} at most");
            }
            if let Some(every) = route.repeat.or(policy.repeat) {
                told += &format!(", again every {}", words(every));
            }
            for step in &route.escalation {
                told += &format!(", to {} if nobody takes it in {}", names(&step.channels), words(step.after));
            }
            told + ")"
        });
        format!("go to {}", told.collect::<Vec<_>>().join(", and to "))
    }

    /// The route with this [`Route::path`].
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Route> {
        fn find<'r>(routes: &'r [Route], path: &str) -> Option<&'r Route> {
            routes.iter().find_map(|route| if route.path == path { Some(route) } else { find(&route.routes, path) })
        }
        find(&self.routes, path)
    }

    /// The routes that tell a channel, at once or by a step of their escalation.
    #[must_use]
    pub fn routes_to(&self, channel: &ChannelId) -> Vec<&Route> {
        fn gather<'r>(routes: &'r [Route], channel: &ChannelId, found: &mut Vec<&'r Route>) {
            for route in routes {
                let later = route.escalation.iter().any(|step| step.channels.contains(channel));
                if later || route.channels.contains(channel) {
                    found.push(route);
                }
                gather(&route.routes, channel, found);
            }
        }
        let mut found = Vec::new();
        gather(&self.routes, channel, &mut found);
        found
    }
}
