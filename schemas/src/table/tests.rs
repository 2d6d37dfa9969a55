//! The event log's rows: what goes in comes out, byte for byte, and the fast path judges like the general one.

use proptest::prelude::*;

use super::*;
use crate::codec::{decode_full, encode};

fn at(offset: i64) -> Position {
    Position { topic: Topic::Observations, partition: 3, offset, ingested_at: 1_700_000_000_123_000 }
}

/// Through a batch and back.
fn stored(json: &[u8]) -> (Event, Option<String>, String) {
    let decoded = decode_full(json).unwrap();
    let mut builder = RowBuilder::new();
    builder.push(&Row::of_event(&decoded, at(7)));
    let days = builder.finish();
    let reader = RowReader::new(&days[0].batch).unwrap();
    let row = reader.row(0);
    (row.event().unwrap().unwrap(), row.data.map(str::to_owned), row.data_text().unwrap().into_owned())
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._:/-]{1,20}"
}

prop_compose! {
    fn probe()(
        probe in name(), site in proptest::option::of(name()), outcome in 0..3usize, latency_us in any::<u64>(),
        small in any::<bool>(), class in proptest::option::of(0..8usize),
        reason in proptest::option::of("[ -~]{0,30}|.{0,20}"), http_status in proptest::option::of(any::<u16>()),
        expires in proptest::option::of((0i64..7_000_000_000_000_000, 0u32..3)),
    ) -> ProbeCompleted {
        ProbeCompleted {
            probe: ProbeId::new(&probe).unwrap(),
            outcome: Outcome::ALL[outcome],
            latency_us: if small { latency_us % 1_000_000 } else { latency_us },
            site: site.map(|s| SiteId::new(&s).unwrap()),
            error_class: class.map(|c| ErrorClass::ALL[c]),
            reason,
            http_status,
            certificate_expires_at: expires.map(|(micros, digits)| {
                let micros = match digits { 0 => micros, 1 => micros / 1000 * 1000, _ => micros / 1_000_000 * 1_000_000 };
                DateTime::from_timestamp_micros(micros).unwrap()
            }),
        }
    }
}

prop_compose! {
    fn event()(
        data in probe(), id in "[ -~]{1,30}|[0-9]{1,10}", source in "[ -~]{1,30}", subject in name(),
        plan in proptest::option::of(name()), micros in 0i64..7_258_118_400_000_000, milli in any::<bool>(),
    ) -> Event {
        Event {
            id: EventId::new(&id).unwrap(),
            source: Source::new(&source).unwrap(),
            subject: ServiceId::new(&subject).unwrap(),
            occurred_at: DateTime::from_timestamp_micros(if milli { micros / 1000 * 1000 } else { micros }).unwrap(),
            plan: plan.map(|p| PlanVersion::new(&p).unwrap()),
            data: data.into(),
        }
    }
}

proptest! {
    /// What the fast way takes, the general way takes with an equal row.
    #[test]
    fn the_fast_way_equals_the_general_way(event in event()) {
        let json = encode(&event);
        let decoded = decode_full(&json).unwrap();
        let general = Row::of_event(&decoded, at(1));
        if let Some(probe) = scan_probe(&json) {
            prop_assert_eq!(Row::of_probe(&probe, at(1)), general);
            prop_assert_eq!(probe.event(), Some(event.clone()));
        }
        prop_assert_eq!(general.event().unwrap().unwrap(), event);
    }

    /// Bytes changed at random: whatever the fast way still takes, the general way takes equally.
    #[test]
    fn damage_is_not_taken_by_the_fast_way_alone(
        event in event(), damage in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~]"), 1..4),
    ) {
        let mut json = encode(&event);
        for (place, byte) in damage {
            let place = place.index(json.len());
            json[place] = byte.as_bytes()[0];
        }
        if let Some(probe) = scan_probe(&json) {
            let decoded = decode_full(&json).unwrap();
            prop_assert_eq!(Row::of_probe(&probe, at(1)), Row::of_event(&decoded, at(1)));
            prop_assert_eq!(probe.event(), Some(decoded.event));
        }
    }

    /// The payload's text comes back byte for byte, whether it was stored or rebuilt.
    #[test]
    fn payload_text_is_kept(event in event(), spaced in any::<bool>()) {
        let mut json = String::from_utf8(encode(&event)).unwrap();
        if spaced {
            json = json.replacen(r#""data":{"#, r#""data":{ "#, 1);
        }
        let received = decode_full(json.as_bytes()).unwrap().data.into_owned();
        let (again, _, text) = stored(json.as_bytes());
        prop_assert_eq!(again, event);
        prop_assert_eq!(text, received);
    }
}

#[test]
fn a_plain_probe_is_scanned_and_stores_no_payload() {
    let event = Event {
        id: EventId::new("17").unwrap(),
        source: Source::new("rebound/probe/a").unwrap(),
        subject: ServiceId::new("api").unwrap(),
        occurred_at: DateTime::from_timestamp_micros(1_772_366_400_123_000).unwrap(),
        plan: None,
        data: ProbeCompleted {
            probe: ProbeId::new("api-http").unwrap(),
            outcome: Outcome::Failed,
            latency_us: 1234,
            site: Some(SiteId::new("primary").unwrap()),
            error_class: Some(ErrorClass::Timeout),
            reason: Some("no answer within 5s".into()),
            http_status: Some(503),
            certificate_expires_at: DateTime::from_timestamp_micros(1_800_000_000_000_000),
        }
        .into(),
    };
    let json = encode(&event);
    assert!(scan_probe(&json).is_some(), "the fast way takes what Rebound writes");
    assert_eq!(stored(&json).1, None);
    let other = String::from_utf8(json).unwrap().replace(r#""latency_us":1234"#, r#""latency_us": 1234"#);
    assert!(scan_probe(other.as_bytes()).is_none());
    assert!(stored(other.as_bytes()).1.unwrap().contains(r#""latency_us": 1234"#));
}

#[test]
fn what_a_column_cannot_hold_stays_in_data() {
    let json = br#"{"specversion":"1.0","id":"1","source":"a","type":"dev.rebound.probe.completed.v1","subject":"api","time":"2026-03-01T12:00:00Z","datacontenttype":"application/json","data":{"probe":"p","outcome":"healthy","latency_us":18446744073709551615}}"#;
    let (event, data, _) = stored(json);
    let EventData::ProbeCompleted(probe) = event.data else { panic!("another kind") };
    assert_eq!(probe.latency_us, u64::MAX);
    assert!(data.is_some());
    let fine = br#"{"specversion":"1.0","id":"1","source":"a","type":"dev.rebound.probe.completed.v1","subject":"api","time":"2026-03-01T12:00:00Z","datacontenttype":"application/json","data":{"probe":"p","outcome":"healthy","latency_us":1,"certificate_expires_at":"2026-03-01T12:00:00.123456789Z"}}"#;
    let (event, data, _) = stored(fine);
    let EventData::ProbeCompleted(probe) = event.data else { panic!("another kind") };
    assert_eq!(probe.certificate_expires_at.unwrap().timestamp_subsec_nanos(), 123_456_789);
    assert!(data.is_some());
}

#[test]
fn old_versions_keep_their_text_and_read_as_the_newest() {
    let old = br#"{"specversion":"1.0","id":"1","source":"ci","type":"dev.rebound.deployment.finished.v1","subject":"api","time":"2026-03-01T12:00:00Z","data":{"deployment":"d-1","succeeded":false}}"#;
    let (event, data, _) = stored(old);
    assert_eq!(data.as_deref(), Some(r#"{"deployment":"d-1","succeeded":false}"#));
    assert_eq!(event, crate::decode(old).unwrap());
}

#[test]
fn rows_come_out_by_day_sorted_by_series_and_time() {
    let mut builder = RowBuilder::new();
    let day = 86_400_000_000;
    for (offset, (service, occurred_at)) in
        [("b", 5), ("a", day + 1), ("a", 9), ("b", 3), ("a", 4)].into_iter().enumerate()
    {
        builder.push(&Row {
            kind: "probe.completed",
            service: Some(service),
            probe: Some("p"),
            occurred_at,
            offset: i64::try_from(offset).unwrap(),
            ..Row::default()
        });
    }
    let days = builder.finish();
    assert_eq!(days.iter().map(|d| d.day).collect::<Vec<_>>(), [0, 1]);
    let offsets = |d: &DayBatch| RowReader::new(&d.batch).unwrap().iter().map(|r| r.offset).collect::<Vec<_>>();
    assert_eq!(offsets(&days[0]), [4, 2, 3, 0]);
    assert_eq!(offsets(&days[1]), [1]);
    assert!(builder.is_empty() && builder.finish().is_empty());
}

#[test]
fn a_gap_says_until_where() {
    let (id, data) = (gap_id(Topic::Alerts, 2, 17), gap_data(20, "dead_letter"));
    let mut builder = RowBuilder::new();
    builder.push(&Row::of_gap(&id, &data, at(17)));
    let days = builder.finish();
    let reader = RowReader::new(&days[0].batch).unwrap();
    let row = reader.row(0);
    assert!(row.is_gap());
    assert_eq!((row.offset, row.gap_until(), row.event()), (17, Some(20), Ok(None)));
}
