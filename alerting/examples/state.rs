//! What the rules' state costs, for services of one probe: resident bytes a service and events handled a second.
//! `cargo run --release -p rebound-alerting --example state -- 100000 conditions`; without the last word the policy
//! has no conditions.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use rebound_alerting::engine::Engine;
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventId, ProbeId, ServiceId, Source};

const CONDITIONS: &str = "[[policy.condition]]\nlatency_above = \"1s\"\n[[policy.condition]]\nunobserved = true\n\
    [[policy.condition]]\ncertificate_expires_within = \"7d\"\n[[policy.condition]]\nid = \"page\"\nburn_rate = \"page\"\n\
    objective = 0.999\n[[policy.condition]]\nid = \"ticket\"\nburn_rate = \"ticket\"\nobjective = 0.999\n";

fn at(second: u64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second.cast_signed(), 0).expect("a time")
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let services: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let conditions = if arguments.next().is_some_and(|word| word == "conditions") { CONDITIONS } else { "" };
    let mut text = format!("[[policy]]\nid = \"default\"\n{conditions}");
    for n in 0..services {
        let _ = write!(
            text,
            "[[service]]\nid = \"service-{n}\"\n[[service.probe]]\nid = \"probe-{n}\"\ntcp = \"127.0.0.1:1\"\n"
        );
    }
    let plan = Arc::new(Plan::parse(&text, "plan").expect("a plan"));
    drop(text);
    let source = Source::new("rebound/probe/example/1").expect("a source");
    let observe = |n: u64, round: u64| Event {
        id: EventId::new(&format!("{n}-{round}")).expect("an id"),
        source: source.clone(),
        subject: ServiceId::new(&format!("service-{n}")).expect("an id"),
        occurred_at: at(round * 10),
        plan: None,
        data: ProbeCompleted {
            probe: ProbeId::new(&format!("probe-{n}")).expect("an id"),
            outcome: if (n + round).is_multiple_of(50) { Outcome::Failed } else { Outcome::Healthy },
            latency_us: 1500,
            site: None,
            error_class: None,
            reason: None,
            http_status: None,
            certificate_expires_at: Some(at(100_000_000)),
        }
        .into(),
    };
    let mut engine = Engine::new(plan);
    engine.own_where(|_| true);
    engine.seen_since(at(0));
    let (mut events, mut spent, mut decided) = (0_u64, std::time::Duration::ZERO, 0);
    for round in 0..20 {
        let batch: Vec<Event> = (0..services).map(|n| observe(n, round)).collect();
        let begun = Instant::now();
        for event in &batch {
            decided += engine.handle(event, event.occurred_at).len();
        }
        spent += begun.elapsed();
        events += services;
    }
    let (bytes, all) = (resident(), services as f64);
    println!("{services} services, the plan included: {} MiB, {:.0} bytes each", bytes >> 20, bytes as f64 / all);
    println!("{events} events handled, {decided} decided: {:.0} a second", events as f64 / spent.as_secs_f64());
}
