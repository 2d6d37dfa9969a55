//! Criterion benchmarks of the pure parts: decoding events and deciding over them. `cargo bench --bench pure`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rebound_alerting::engine::Engine;
use rebound_schemas::event::{Outcome, ProbeCompleted};
use rebound_schemas::plan::Plan;
use rebound_schemas::{Event, EventId, ProbeId, ServiceId, Source, decode, encode};

/// Probe results of one service, one a second; every tenth fails.
fn observations(n: u64) -> Vec<Event> {
    let event = |number: u64| Event {
        id: EventId::new(&number.to_string()).expect("an id"),
        source: Source::new("rebound/probe/bench/1").expect("a source"),
        subject: ServiceId::new("web").expect("an id"),
        occurred_at: chrono::DateTime::from_timestamp(1_767_225_600 + number.cast_signed(), 0).expect("a time"),
        plan: None,
        data: ProbeCompleted {
            probe: ProbeId::new("web/http").expect("an id"),
            outcome: if number.is_multiple_of(10) { Outcome::Failed } else { Outcome::Healthy },
            latency_us: 1000 + number % 500,
            site: None,
            error_class: None,
            reason: None,
            http_status: Some(200),
            certificate_expires_at: None,
        }
        .into(),
    };
    (0..n).map(event).collect()
}

fn codec(c: &mut Criterion) {
    let events = observations(1000);
    let json: Vec<Vec<u8>> = events.iter().map(encode).collect();
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("encode", |b| b.iter(|| events.iter().map(|e| black_box(encode(e)).len()).sum::<usize>()));
    group.bench_function("decode", |b| b.iter(|| json.iter().filter(|j| black_box(decode(j)).is_ok()).count()));
    group.finish();
}

fn engine(c: &mut Criterion) {
    let text = "[[service]]\nid = \"web\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:1/\"\n";
    let plan = Arc::new(Plan::parse(text, "bench").expect("a plan"));
    let events = observations(1000);
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("handle", |b| {
        b.iter(|| {
            let mut engine = Engine::new(plan.clone());
            engine.own_where(|_| true);
            events.iter().map(|e| engine.handle(e, e.occurred_at).len()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, codec, engine);
criterion_main!(benches);
