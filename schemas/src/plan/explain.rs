//! A plan in words: what each policy does, what is protected how, and what is allowed but probably not meant.

use std::time::Duration;

use super::condition::DegradedAs;
use super::model::{Check, Plan, Policy, Probe, Service};
use super::reader::{percent, words};
use crate::event::{RecoveryMethod, TriggerMode};
use crate::ids::ServiceId;

impl Policy {
    /// The policy's rules as sentences.
    #[must_use]
    pub fn explain(&self) -> String {
        let failures = match (self.failures, self.of) {
            (1, _) => "1 failure makes it HARD".to_owned(),
            (n, Some(of)) => format!("{n} failures among the last {of} observations make it HARD"),
            (n, None) => format!("{n} failures in a row make it HARD"),
        };
        let failures = match self.degraded {
            DegradedAs::Count => format!("{failures} (degraded counts as failed)"),
            _ => failures,
        };
        let failures = match self.hold.is_zero() {
            true => failures,
            false => format!("{failures}, and {} of that open an incident", words(self.hold)),
        };
        let sites = if self.sites > 1 { format!(" when {} sites agree", self.sites) } else { String::new() };
        let recoveries = match self.recoveries {
            1 => "1 success resolves it".to_owned(),
            n => format!("{n} successes in a row resolve it"),
        };
        let recoveries = match self.keep_firing.is_zero() {
            true => recoveries,
            false => format!("{recoveries} once it has been well for {}", words(self.keep_firing)),
        };
        let severity = match self.severity {
            Some(severity) => format!("as {severity}"),
            None => "as loudly as the service's tier says".to_owned(),
        };
        let told = match self.notify.as_slice() {
            [] => "nobody is told".to_owned(),
            channels => {
                let names: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
                let again = self.repeat.map_or("once".to_owned(), |every| format!("then every {}", words(every)));
                let are = if names.len() == 1 { "is" } else { "are" };
                format!("{} {are} told {severity}, {again}", names.join(" and "))
            }
        };
        let trigger = match self.trigger {
            TriggerMode::Auto => "its procedure runs at once".to_owned(),
            TriggerMode::Approve => {
                let within = words(self.approve_within);
                format!("its procedure runs when a person approves within {within}, or else people are asked")
            }
            TriggerMode::Off => "no procedure runs by itself".to_owned(),
            TriggerMode::DryRun => "its procedure is told step by step, and nothing of it is run".to_owned(),
        };
        let budget = format!(
            "the wait before another try doubles from {} to {} and starts anew after {} of health; more than {} in {} \
             stop and escalate",
            words(self.backoff),
            words(self.backoff_max),
            words(self.backoff_reset),
            self.intensity,
            words(self.intensity_period)
        );
        let acting = match self.trigger {
            TriggerMode::Off | TriggerMode::DryRun => String::new(),
            _ => format!("; its own probes must pass within {}; {budget}", words(self.verify_within)),
        };
        format!(
            "{failures}{sites}; {recoveries}; {} without any observation make it unobserved; {told}; {trigger}{acting}.",
            words(self.silent_after)
        )
    }
}

impl Plan {
    /// The whole plan in words, for a person who checks whether it says what was meant. Depends on nothing but
    /// the plan.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut lines = vec![format!("{} ({})", self.name, self.version)];
        let mut line = |words: std::fmt::Arguments<'_>| lines.push(words.to_string());
        let order: Vec<&str> = self.start_order.iter().map(ServiceId::as_str).collect();
        line(format_args!("start order: {}", order.join(" → ")));
        for tier in self.tiers.values() {
            line(format_args!("tier {} ({}): {}", tier.id, tier.name, tier.severity));
            for service in self.services.values().filter(|service| service.tier == tier.id) {
                line(format_args!("  {}", self.explain_service(service)));
            }
        }
        for policy in self.policies.values() {
            line(format_args!("policy {}: {}", policy.id, policy.explain()));
            for condition in &policy.conditions {
                line(format_args!("  {}: {}", condition.id, condition.explain()));
            }
        }
        for procedure in self.procedures.values() {
            line(format_args!("procedure {}", procedure.explain()));
        }
        for validation in self.validations.values() {
            line(format_args!("validation {}", validation.explain()));
        }
        if !self.routes.is_empty() {
            line(format_args!("routes decide who is told; the channels of a policy are told where none matches:"));
        }
        for told in self.explain_routes() {
            line(format_args!("{told}"));
        }
        for channel in self.channels.values() {
            if let Some(rate) = &channel.rate {
                line(format_args!(
                    "channel {} takes {}; what is more waits and is told in one message, critical alerts within 30s",
                    channel.id,
                    rate.explain()
                ));
            }
        }
        for site in self.sites.values() {
            let (time, share) = (words(site.recovery_time), percent(site.capacity));
            line(format_args!(
                "site {} ({}): takes over within {time} with {share} of the load",
                site.id, site.purpose
            ));
        }
        for limit in self.explain_limits() {
            line(format_args!("{limit}"));
        }
        for group in self.groups.values() {
            let members: Vec<&str> = group.services.iter().map(ServiceId::as_str).collect();
            let (n, of) = (group.healthy_at_least, members.len());
            line(format_args!("group {}: {n} of {of} must be healthy ({})", group.id, members.join(", ")));
        }
        for window in self.maintenance.values() {
            line(format_args!("maintenance {}: {}", window.id, window.explain()));
        }
        for backup in self.backups.values() {
            line(format_args!(
                "backup {} of {}: {} every {}, kept {}, verified every {}",
                backup.id,
                backup.service,
                backup.kind,
                words(backup.every),
                words(backup.retention),
                words(backup.verify_every)
            ));
        }
        for drill in self.drills.values() {
            let (detect, recover) = (words(drill.detect_within), words(drill.recover_within));
            line(format_args!(
                "drill {}: {}; detected within {detect}, recovered within {recover}",
                drill.id, drill.scenario
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn explain_service(&self, service: &Service) -> String {
        let probes: Vec<String> = self.probes_of(&service.id).map(explain_probe).collect();
        let probes = if probes.is_empty() { "not probed".to_owned() } else { probes.join(", ") };
        let procedure = match &service.procedure {
            Some(procedure) => format!("{} by {procedure}", service.method),
            None => format!("{} by people", service.method),
        };
        let groups = service.depends_on_groups.iter().map(String::as_str);
        let needs: Vec<&str> = service.depends_on.iter().map(ServiceId::as_str).chain(groups).collect();
        let needs = if needs.is_empty() { String::new() } else { format!("; needs {}", needs.join(", ")) };
        format!(
            "{} at {}: RTO {}, RPO {}, {procedure}; {probes}; policy {}{needs}",
            service.id,
            service.site,
            words(service.rto),
            words(service.rpo),
            service.policy
        )
    }

    /// What the plan may say but its author probably didn't mean, each with its key path first, in key order.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for service in self.services.values() {
            self.warn_of_service(service, &mut found);
        }
        for probe in self.probes.values() {
            if let Check::Http(http) = &probe.check {
                for name in http.headers.keys().filter(|name| is_secret_header(name)) {
                    let key = format!("service.{}.probe.{}.headers.{name}", probe.service, probe.id);
                    found.push(format!("{key}: a credential in the plan is readable by whoever reads the plan"));
                }
                if http.url.password().is_some() {
                    let key = format!("service.{}.probe.{}.http", probe.service, probe.id);
                    found.push(format!("{key}: a password in the plan is readable by whoever reads the plan"));
                }
                if http.insecure {
                    let key = format!("service.{}.probe.{}.insecure", probe.service, probe.id);
                    found.push(format!("{key}: anybody's certificate is accepted"));
                }
            }
        }
        for tier in self.tiers.keys() {
            if !self.services.values().any(|service| service.tier == *tier) {
                found.push(format!("tier.{tier}: no service is in it"));
            }
        }
        for policy in self.policies.values() {
            let used = self.services.values().any(|service| service.policy == policy.id);
            if !used && policy.id.as_str() != super::read::DEFAULT_POLICY {
                found.push(format!("policy.{}: no service follows it", policy.id));
            }
            if used && policy.notify.is_empty() {
                found.push(format!("policy.{}.notify: nobody is told of its alerts", policy.id));
            }
        }
        for procedure in self.procedures.values().filter(|procedure| procedure.demotion.is_some()) {
            let by_itself = |service: &Service| {
                service.procedure.as_ref() == Some(&procedure.id)
                    && self.policy_of(&service.id).is_some_and(|policy| policy.trigger == TriggerMode::Auto)
            };
            if !self.services.values().any(by_itself) {
                let key = format!("procedure.{}.demote_below", procedure.id);
                found.push(format!("{key}: no policy lets it run by itself, so there is nothing to be demoted from"));
            }
        }
        for channel in self.channels.keys() {
            if !self.policies.values().any(|policy| policy.notify.contains(channel))
                && self.routes_to(channel).is_empty()
            {
                found.push(format!("channel.{channel}: no route and no policy notifies it"));
            }
        }
        found
    }

    fn warn_of_service(&self, service: &Service, found: &mut Vec<String>) {
        let mut warn = |key: &str, words: String| found.push(format!("service.{}{key}: {words}", service.id));
        let Some(policy) = self.policy_of(&service.id) else { return };
        let longest = self.probes_of(&service.id).map(|probe| probe.every).max();
        match longest {
            None => warn("", "has no probe: its failures can't be seen".to_owned()),
            Some(every) if service.procedure.is_some() && policy.verify_within < every => {
                let (within, every) = (words(policy.verify_within), words(every));
                warn("", format!("is verified within {within} of its recovery, but probed only every {every}"));
            }
            Some(_) => {}
        }
        match (&service.procedure, policy.trigger) {
            (None, TriggerMode::Auto | TriggerMode::Approve | TriggerMode::DryRun) => {
                warn("", "has no procedure: its failures are told, and people bring it back".to_owned());
            }
            (Some(procedure), TriggerMode::Off) => {
                warn(".procedure", format!("{procedure} is never triggered by policy {}", policy.id));
            }
            _ => {}
        }
        for condition in policy.conditions.iter().filter(|condition| !condition.burn_window().is_zero()) {
            let seen = |probe: &Probe| condition.burn_window().as_secs_f64() / probe.every.as_secs_f64();
            let seen: f64 = self.probes_of(&service.id).map(seen).sum();
            if longest.is_some() && seen < f64::from(condition.at_least) {
                let (id, window, least) = (&condition.id, words(condition.burn_window()), condition.at_least);
                let seen = seen.floor();
                warn(
                    "",
                    format!("is observed {seen} times in {window}, and {id} of policy {} needs {least}", policy.id),
                );
            }
        }
        for need in service.depends_on.iter().filter_map(|id| self.services.get(id)) {
            if need.rto > service.rto {
                let (own, other) = (words(service.rto), words(need.rto));
                warn(".rto", format!("{own} can't be promised: it depends on {}, whose rto is {other}", need.id));
            }
        }
        if let Some(every) = self.backup_interval(service).filter(|every| *every > service.rpo) {
            let (rpo, every) = (words(service.rpo), words(every));
            warn(".rpo", format!("{rpo} needs more than backups: the newest of them may be {every} old"));
        }
    }

    /// The shortest interval of a service's backups, if backups are what it is brought back from.
    fn backup_interval(&self, service: &Service) -> Option<Duration> {
        let restored = matches!(service.method, RecoveryMethod::DatabaseRestore | RecoveryMethod::ManualRestore);
        let own = self.backups.values().filter(|backup| restored && backup.service == service.id);
        own.map(|backup| backup.every).min()
    }
}

fn explain_probe(probe: &Probe) -> String {
    let from = probe.site.as_ref().map_or(String::new(), |site| format!(" from {site}"));
    format!("{} every {}{from}", probe.check.kind(), words(probe.every))
}

fn is_secret_header(name: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "x-api-key"].contains(&name.to_ascii_lowercase().as_str())
}
