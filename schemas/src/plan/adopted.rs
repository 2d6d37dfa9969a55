//! A plan as the events that say that decisions are made under it: for the record, which keeps what was promised when.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Backup, Drill, Plan, Procedure, Service, ServiceLevel};
use crate::event::{
    Event, PlanAdopted, PlannedBackup, PlannedDrill, PlannedLevel, PlannedProcedure, PlannedService, PlannedSite,
    PlannedStep, PlannedTier,
};
use crate::ids::{EventId, ServiceId, Source};

/// Who says which plan was adopted.
const SOURCE: &str = "rebound/plan";
/// Things of a plan in one event at most: small beside [`MAX_EVENT_BYTES`](crate::codec::MAX_EVENT_BYTES).
const MOST_IN_A_PART: usize = 250;

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// One thing that a part holds, and how much room it takes.
enum Thing {
    Site(PlannedSite),
    Tier(PlannedTier),
    Service(PlannedService),
    Procedure(PlannedProcedure),
    Backup(PlannedBackup),
    Level(PlannedLevel),
    Drill(PlannedDrill),
}

impl Thing {
    fn weight(&self) -> usize {
        match self {
            Self::Service(service) => 1 + (service.depends_on.len() + service.depends_on_groups.len()) / 8,
            Self::Procedure(procedure) => 1 + procedure.steps.len() / 4,
            Self::Level(level) => 1 + level.services.len() / 8,
            Self::Drill(drill) => 1 + drill.services.len() / 8,
            Self::Site(_) | Self::Tier(_) | Self::Backup(_) => 1,
        }
    }

    fn put(self, into: &mut PlanAdopted) {
        match self {
            Self::Site(it) => into.sites.push(it),
            Self::Tier(it) => into.tiers.push(it),
            Self::Service(it) => into.services.push(it),
            Self::Procedure(it) => into.procedures.push(it),
            Self::Backup(it) => into.backups.push(it),
            Self::Level(it) => into.service_levels.push(it),
            Self::Drill(it) => into.drills.push(it),
        }
    }
}

fn service(it: &Service) -> PlannedService {
    PlannedService {
        service: it.id.clone(),
        name: it.name.clone(),
        tier: it.tier.clone(),
        site: it.site.clone(),
        depends_on: it.depends_on.clone(),
        depends_on_groups: it.depends_on_groups.clone(),
        rto_seconds: seconds(it.rto),
        rpo_seconds: seconds(it.rpo),
        method: it.method,
        policy: it.policy.clone(),
        procedure: it.procedure.clone(),
    }
}

fn procedure(it: &Procedure) -> PlannedProcedure {
    let steps = it.steps.iter().map(|step| PlannedStep { step: step.id.clone(), name: step.name.clone() });
    PlannedProcedure { procedure: it.id.clone(), name: it.name.clone(), steps: steps.collect() }
}

fn backup(it: &Backup) -> PlannedBackup {
    PlannedBackup {
        backup: it.id.clone(),
        service: it.service.clone(),
        kind: it.kind,
        every_seconds: seconds(it.every),
        retention_seconds: seconds(it.retention),
        verify_every_seconds: seconds(it.verify_every),
    }
}

fn level(it: &ServiceLevel) -> PlannedLevel {
    PlannedLevel {
        service_level: it.id.clone(),
        services: it.services.clone(),
        response_time_seconds: it.response_time.map(seconds),
        throughput_per_second: it.throughput_per_second,
        error_rate: it.error_rate,
        availability: it.availability,
    }
}

fn drill(it: &Drill) -> PlannedDrill {
    PlannedDrill {
        drill: it.id.clone(),
        name: it.name.clone(),
        scenario: it.scenario.clone(),
        services: it.services.clone(),
        detect_within_seconds: seconds(it.detect_within),
        recover_within_seconds: seconds(it.recover_within),
    }
}

impl Plan {
    /// The events that say that decisions are made under this plan from `now` on, in the order of their parts.
    /// Saying it again at the same time says the same.
    #[must_use]
    pub fn adopted(&self, now: DateTime<Utc>) -> Vec<Event> {
        let sites = self.sites.values().map(|it| {
            let recovery_time_seconds = seconds(it.recovery_time);
            let (site, purpose) = (it.id.clone(), it.purpose.clone());
            Thing::Site(PlannedSite { site, purpose, recovery_time_seconds, capacity: it.capacity })
        });
        let tiers = self
            .tiers
            .values()
            .map(|it| Thing::Tier(PlannedTier { tier: it.id.clone(), name: it.name.clone(), severity: it.severity }));
        let things = sites
            .chain(tiers)
            .chain(self.services.values().map(|it| Thing::Service(service(it))))
            .chain(self.procedures.values().map(|it| Thing::Procedure(procedure(it))))
            .chain(self.backups.values().map(|it| Thing::Backup(backup(it))))
            .chain(self.service_levels.values().map(|it| Thing::Level(level(it))))
            .chain(self.drills.values().map(|it| Thing::Drill(drill(it))));
        let mut parts: Vec<PlanAdopted> = Vec::new();
        let mut room = 0;
        for thing in things {
            let weight = thing.weight();
            if parts.is_empty() || weight > room {
                parts.push(self.part());
                room = MOST_IN_A_PART;
            }
            room = room.saturating_sub(weight);
            if let Some(part) = parts.last_mut() {
                thing.put(part);
            }
        }
        let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        (1..)
            .zip(parts)
            .map(|(number, part)| self.event(now, PlanAdopted { part: number, parts: of, ..part }))
            .collect()
    }

    fn part(&self) -> PlanAdopted {
        PlanAdopted {
            name: self.name.clone(),
            part: 0,
            parts: 0,
            sites: Vec::new(),
            tiers: Vec::new(),
            services: Vec::new(),
            procedures: Vec::new(),
            backups: Vec::new(),
            service_levels: Vec::new(),
            drills: Vec::new(),
        }
    }

    fn event(&self, now: DateTime<Utc>, data: PlanAdopted) -> Event {
        let what = format!("adopted-{}-{}", now.timestamp_micros(), data.part);
        Event {
            id: EventId::derive(self.version.as_str(), &what),
            source: Source::new(SOURCE).expect("a constant source"),
            // One subject, so that a plan's parts, and plans after one another, keep their order on the bus.
            subject: ServiceId::new("plan").expect("a constant id"),
            occurred_at: now,
            plan: Some(self.version.clone()),
            data: data.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::codec::{MAX_EVENT_BYTES, encode};
    use crate::event::EventData;

    use super::*;

    fn data(event: &Event) -> &PlanAdopted {
        match &event.data {
            EventData::PlanAdopted(data) => data,
            other => panic!("{:?} is no plan", other.kind()),
        }
    }

    #[test]
    fn a_small_plan_is_one_event_with_what_it_promises() {
        let text = "name = \"shop\"\n[[service]]\nid = \"api\"\nrto = \"2m\"\nrpo = \"1h\"\ndepends_on = [\"db\"]\n\
            [[service.probe]]\nhttp = \"http://127.0.0.1:8080/\"\n[[service]]\nid = \"db\"\nrto = \"10m\"\n\
            [[service.probe]]\ntcp = \"127.0.0.1:5432\"\n[[backup]]\nid = \"nightly\"\nservice = \"db\"\n\
            kind = \"full\"\nevery = \"1d\"\nretention = \"30d\"\n[[drill]]\nid = \"kill\"\nname = \"kill it\"\n\
            scenario = \"db dies\"\nservices = [\"db\"]\ndetect_within = \"1m\"\nrecover_within = \"5m\"\n";
        let plan = Plan::parse(text, "plan.toml").unwrap();
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000);
        let events = plan.adopted(now);
        assert_eq!(events, plan.adopted(now), "said again it is the same");
        let [event] = &events[..] else { panic!("{} events", events.len()) };
        assert_eq!(event.plan.as_ref(), Some(plan.version()));
        let data = data(event);
        assert_eq!((data.name.as_str(), data.part, data.parts), ("shop", 1, 1));
        let api = &data.services[0];
        assert_eq!((api.rto_seconds, api.rpo_seconds, api.depends_on[0].as_str()), (120.0, 3_600.0, "db"));
        assert_eq!(data.backups[0].every_seconds, 86_400.0);
        assert_eq!((data.drills[0].detect_within_seconds, data.drills[0].recover_within_seconds), (60.0, 300.0));
    }

    #[test]
    fn a_large_plan_comes_in_parts_that_are_events() {
        let service = |n: usize| {
            let needs: Vec<_> = (0..n.min(40)).map(|of| format!("\"service-with-a-long-name-{of}\"")).collect();
            format!(
                "[[service]]\nid = \"service-with-a-long-name-{n}\"\nname = \"{}\"\ndepends_on = [{}]\n\
                 [[service.probe]]\ntcp = \"127.0.0.1:1\"\n",
                "x".repeat(100),
                needs.join(",")
            )
        };
        let text: String = (0..2_000).map(service).collect();
        let events = Plan::parse(&text, "plan.toml").unwrap().adopted(DateTime::UNIX_EPOCH);
        let parts: Vec<_> = events.iter().map(|event| data(event).part).collect();
        assert!(parts.len() > 2 && parts.iter().copied().eq(1..=data(&events[0]).parts), "{parts:?}");
        assert_eq!(events.iter().map(|event| data(event).services.len()).sum::<usize>(), 2_000);
        let largest = events.iter().map(|event| encode(event).len()).max().unwrap();
        assert!(largest < MAX_EVENT_BYTES / 2, "{largest} bytes");
    }
}
