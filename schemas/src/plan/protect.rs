//! What keeps alerts quiet by plan: redundancy groups and maintenance windows, one-off or recurring.
//!
//! A recurring window is a cron expression in an IANA time zone and a duration. [`Maintenance::window_at`] is pure:
//! at a spring gap a start that doesn't exist is the first moment after it; at an autumn overlap a start that comes
//! twice is the first of the two (croner's rule for fixed times, which is Vixie cron's). The duration is elapsed time.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;

use super::read::Reading;
use super::reader::words;
use super::section::Section;
use crate::ids::ServiceId;

/// Longest recurring window: what is longer isn't maintenance.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Services that stand in for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub id: String,
    /// Its members.
    pub services: Vec<ServiceId>,
    /// With fewer healthy members than this, the group has failed.
    pub healthy_at_least: u32,
}

/// Planned work.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    /// Its name.
    pub id: String,
    /// The services it covers; empty means all.
    pub services: Vec<ServiceId>,
    /// When.
    pub when: Times,
    /// What for.
    pub reason: String,
}

/// When planned work takes place.
#[derive(Debug, Clone, PartialEq)]
pub enum Times {
    /// Once.
    Once {
        /// Start.
        from: DateTime<Utc>,
        /// End, which is not part of it.
        until: DateTime<Utc>,
    },
    /// Again and again.
    Recurring {
        /// When it starts: five fields of cron, in the time zone.
        cron: Box<Cron>,
        /// As written.
        text: String,
        /// How long it takes.
        duration: Duration,
        /// The time zone of `cron`.
        zone: Tz,
    },
}

impl Maintenance {
    /// The window that covers `now`, else the next one, as start and end; `None` when there will be none.
    #[must_use]
    pub fn window_at(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        match &self.when {
            Times::Once { from, until } => (now < *until).then_some((*from, *until)),
            Times::Recurring { cron, duration, zone, .. } => {
                let duration = TimeDelta::from_std(*duration).ok()?;
                // The first start whose window is not over: windows that overlap one another are told as they come.
                let local = (now - duration).with_timezone(zone);
                let start = cron.find_next_occurrence(&local, false).ok()?.with_timezone(&Utc);
                Some((start, start + duration))
            }
        }
    }

    /// The window as a sentence.
    #[must_use]
    pub fn explain(&self) -> String {
        let services: Vec<&str> = self.services.iter().map(ServiceId::as_str).collect();
        let of = if services.is_empty() { "every service".to_owned() } else { services.join(", ") };
        match &self.when {
            Times::Once { from, until } => format!("{of} from {from} until {until}: {}", self.reason),
            Times::Recurring { text, duration, zone, .. } => {
                format!("{of} for {} at each {text:?} in {zone}: {}", words(*duration), self.reason)
            }
        }
    }
}

impl<'a> Reading<'a> {
    /// A redundancy group.
    pub(super) fn group(&self, section: &Section<'a>) -> Option<Group> {
        let id = section.id::<ServiceId>("group");
        if id.as_ref().is_some_and(|id| self.services.has(id.as_str())) {
            section.fault("id", "is the id of a service too", "a dependency could mean either: rename the group");
        }
        section.required("services", "services = [\"…\", \"…\"], which stand in for one another");
        let services: Option<Vec<ServiceId>> = section.references("services", &self.services);
        let least = section.count("healthy_at_least", 1, 1000).unwrap_or(1);
        if let Some(services) = &services
            && (least as usize) > services.len()
        {
            let message = format!("{least} of {} services can never be healthy", services.len());
            section.fault("healthy_at_least", message, format!("write {} or less", services.len().max(1)));
        }
        section.finish("a group");
        Some(Group { id: id?.to_string(), services: services?, healthy_at_least: least })
    }

    /// Planned work.
    pub(super) fn maintenance(&self, section: &Section<'a>) -> Option<Maintenance> {
        let id = section.id::<ServiceId>("maintenance");
        let services = section.references("services", &self.services).unwrap_or_default();
        let reason = section.words("reason").unwrap_or_else(|| "planned work".to_owned());
        let when = match section.has("cron") {
            true => recurring(section),
            false => once(section),
        };
        section.finish("a maintenance window");
        Some(Maintenance { id: id?.to_string(), services, when: when?, reason })
    }
}

fn once(section: &Section<'_>) -> Option<Times> {
    for key in ["from", "until"] {
        let remedy = format!("{key} = \"2026-03-29T01:00:00Z\", or cron = \"0 2 * * SUN\" with duration = \"1h\"");
        section.required(key, &remedy);
    }
    for key in ["duration", "time_zone"].into_iter().filter(|key| section.has(key)) {
        section.fault_here(key, "goes with cron", "write cron = \"0 2 * * SUN\", or leave it out");
    }
    let time = |key: &str| {
        let text = section.text(key)?;
        let time = DateTime::parse_from_rfc3339(&text).ok();
        if time.is_none() {
            section.fault(key, format!("{text:?} is not a time"), "write it as in \"2026-03-29T01:00:00Z\"");
        }
        time.map(|time| time.with_timezone(&Utc))
    };
    let (from, until) = (time("from"), time("until"));
    let (from, until) = (from?, until?);
    if until <= from {
        section.fault("until", "is not after from", "write an end that comes after the start");
    }
    Some(Times::Once { from, until })
}

fn recurring(section: &Section<'_>) -> Option<Times> {
    for key in ["from", "until"].into_iter().filter(|key| section.has(key)) {
        section.fault_here(key, "does not go with cron", "a recurring window has cron, duration and time_zone");
    }
    let text = section.text("cron")?;
    // Five fields only: work that must start by the second is no maintenance.
    let fields = text.split_whitespace().count();
    let cron = Cron::from_str(&text).ok().filter(|_| fields == 5 || text.starts_with('@'));
    if cron.is_none() {
        let remedy = "write five fields (minute, hour, day, month, weekday) as in \"0 2 * * SUN\"";
        section.fault("cron", format!("{text:?} is not a cron expression"), remedy);
    }
    section.required("duration", "duration = \"1h\", how long it takes");
    let duration = section.duration("duration");
    if duration.is_some_and(|duration| duration > LONGEST) {
        section.fault("duration", "is longer than a week", "write a one-off window with from and until");
    }
    let zone = match section.text("time_zone") {
        None => Some(Tz::UTC),
        Some(name) => {
            let zone = name.parse::<Tz>().ok();
            if zone.is_none() {
                let remedy = match super::reader::nearest(&name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()))
                {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "write an IANA name as in \"Europe/Berlin\"".to_owned(),
                };
                section.fault("time_zone", format!("{name:?} is not a time zone"), remedy);
            }
            zone
        }
    };
    Some(Times::Recurring { cron: Box::new(cron?), text, duration: duration?, zone: zone? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn nightly(cron: &str, minutes: u64) -> Maintenance {
        Maintenance {
            id: "nightly".into(),
            services: vec![],
            when: Times::Recurring {
                cron: Box::new(Cron::from_str(cron).unwrap()),
                text: cron.into(),
                duration: Duration::from_secs(minutes * 60),
                zone: chrono_tz::Europe::Berlin,
            },
            reason: "work".into(),
        }
    }

    fn check(maintenance: &Maintenance, now: &str, from: &str, until: &str) {
        assert_eq!(maintenance.window_at(at(now)), Some((at(from), at(until))), "at {now}");
    }

    #[test]
    fn a_window_recurs_by_the_wall_clock_and_covers_its_start_but_not_its_end() {
        let window = nightly("30 2 * * *", 60);
        check(&window, "2026-01-10T01:29:59Z", "2026-01-10T01:30:00Z", "2026-01-10T02:30:00Z");
        check(&window, "2026-01-10T01:30:00Z", "2026-01-10T01:30:00Z", "2026-01-10T02:30:00Z");
        check(&window, "2026-01-10T02:29:59Z", "2026-01-10T01:30:00Z", "2026-01-10T02:30:00Z");
        check(&window, "2026-01-10T02:30:00Z", "2026-01-11T01:30:00Z", "2026-01-11T02:30:00Z");
        check(&window, "2026-07-10T00:00:00Z", "2026-07-10T00:30:00Z", "2026-07-10T01:30:00Z");
    }

    /// 2026-03-29, Berlin: 02:00 CET is 03:00 CEST; 02:30 does not exist.
    #[test]
    fn at_the_spring_gap_it_starts_when_the_gap_is_over() {
        let window = nightly("30 2 * * *", 60);
        check(&window, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z");
        check(&window, "2026-03-29T02:00:00Z", "2026-03-30T00:30:00Z", "2026-03-30T01:30:00Z");
    }

    /// 2026-10-25, Berlin: 03:00 CEST is 02:00 CET; 02:30 comes twice.
    #[test]
    fn at_the_autumn_overlap_it_starts_once_the_first_time() {
        let window = nightly("30 2 * * *", 30);
        check(&window, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z");
        check(&window, "2026-10-25T01:00:00Z", "2026-10-26T01:30:00Z", "2026-10-26T02:00:00Z");
    }

    #[test]
    fn a_one_off_window_comes_once() {
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
        let window = Maintenance { when: Times::Once { from, until }, ..nightly("0 0 * * *", 1) };
        assert_eq!(window.window_at(from - TimeDelta::days(9)), Some((from, until)));
        assert_eq!(window.window_at(until), None);
    }
}
