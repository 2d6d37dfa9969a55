//! One suite that holds every bus to the promises of [the trait's module](super).
//!
//! Each check takes an open bus with topics of its own. The embedded bus always runs it; Kafka does when
//! `REBOUND_TEST_KAFKA` names brokers. What only one of them can promise is in [`embedded`] and [`kafka`].

mod embedded;
pub(super) mod kafka;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use rebound_schemas::Topic;

use super::*;

pub(super) type Bus = Arc<dyn EventBus>;

const OBSERVATIONS: Stream = Stream::Events(Topic::Observations);
const ALERTS: Stream = Stream::Events(Topic::Alerts);

/// Longer than anything takes on a busy machine: what waits for so long has failed.
const LONG: Duration = Duration::from_secs(30);

fn record(key: &str, value: impl Into<Bytes>) -> Record {
    Record { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into(), headers: Vec::new() }
}

fn limit(records: usize) -> ReadLimit {
    ReadLimit { records, bytes: usize::MAX, wait: Duration::from_millis(500) }
}

/// The partition of a key in a stream.
fn home(bus: &Bus, stream: Stream, key: &str) -> Partition {
    Partition { stream, number: partition_of(key.as_bytes(), bus.partitions()) }
}

/// Reads from `from` to the end as it is now, in fetches of at most `records`.
async fn read_all(bus: &Bus, partition: Partition, from: Offset, records: usize) -> Vec<Delivery> {
    let high = bus.watermarks(partition).await.unwrap().high;
    let mut out: Vec<Delivery> = Vec::new();
    let mut at = from;
    let reading = async {
        while at < high {
            let fetch = bus.read(partition, at, limit(records)).await.unwrap();
            assert!(fetch.deliveries.len() <= records);
            assert!(fetch.next >= at && fetch.deliveries.iter().all(|d| d.offset >= at && d.offset < fetch.next));
            at = fetch.next;
            out.extend(fetch.deliveries);
        }
    };
    tokio::time::timeout(LONG, reading).await.expect("a reader never waits at a gap for ever");
    assert!(out.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
    out
}

/// Waits until the committed records of a partition end at `high` or later: a transaction's end is acknowledged a
/// moment before it shows.
async fn settled(bus: &Bus, partition: Partition, high: Offset) {
    let waiting = async {
        while bus.watermarks(partition).await.unwrap().high < high {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("a committed transaction shows");
}

fn values(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| String::from_utf8(d.record.value.to_vec()).unwrap()).collect()
}

/// Waits for partitions, until `count` of them are owned; answers them and the newest generation.
async fn owned(member: &mut Box<dyn Membership>, count: usize) -> (BTreeSet<i32>, u64) {
    let mut own = BTreeSet::new();
    let mut newest = 0;
    let waiting = async {
        while own.len() != count || newest == 0 {
            let (generation, gained, partitions) = match member.changed().await.unwrap() {
                Ownership::Gained { generation, partitions } => (generation, true, partitions),
                Ownership::Lost { generation, partitions, .. } => (generation, false, partitions),
            };
            assert!(generation > newest, "generations grow");
            newest = generation;
            for partition in partitions {
                let new = if gained { own.insert(partition) } else { own.remove(&partition) };
                assert!(new, "{partition} was {}", if gained { "owned already" } else { "not owned" });
            }
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("ownership comes");
    (own, newest)
}

/// Every check, on one bus.
async fn promises(bus: Bus) {
    appended_is_read_in_order(&bus).await;
    concurrent_appends_keep_every_record(&bus).await;
    reading_waits_and_wakes(&bus).await;
    reads_keep_their_limits(&bus).await;
    positions_are_kept(&bus).await;
    offsets_by_time(&bus).await;
    outside_is_out_of_range(&bus).await;
    oversized_is_refused(&bus).await;
    steps_are_atomic_and_fenced(&bus).await;
    a_group_hands_over(&bus).await;
    lag_counts_what_is_unread(&bus).await;
    closed_is_closed(&bus).await;
}

async fn appended_is_read_in_order(bus: &Bus) {
    let mut records: Vec<Record> =
        (0..500).map(|n| record(&format!("order-{}", n % 7), format!("value-{n}"))).collect();
    records[3].headers = vec![("ce_id".to_owned(), Bytes::from_static(b"7")), ("empty".to_owned(), Bytes::new())];
    let before = Utc::now() - chrono::Duration::seconds(5);
    let placed = bus.append(OBSERVATIONS, records.clone()).await.unwrap();
    assert_eq!(placed.len(), records.len());
    let mut expected: BTreeMap<Partition, Vec<(Offset, Record)>> = BTreeMap::new();
    for ((partition, offset), record) in placed.into_iter().zip(records) {
        assert_eq!(partition.number, partition_of(&record.key, bus.partitions()));
        expected.entry(partition).or_default().push((offset, record));
    }
    for (partition, expected) in expected {
        for at_once in [1000, 13] {
            let read = read_all(bus, partition, expected[0].0, at_once).await;
            assert!(
                read.iter()
                    .all(|d| d.ingested_at > before && d.ingested_at < Utc::now() + chrono::Duration::seconds(5))
            );
            let read: Vec<(Offset, Record)> = read.into_iter().map(|d| (d.offset, d.record)).collect();
            assert_eq!(read, expected, "{partition}, {at_once} at once");
        }
        // From the middle.
        let middle = expected.len() / 2;
        let read = read_all(bus, partition, expected[middle].0, 1000).await;
        assert_eq!(read[0].record, expected[middle].1);
        assert_eq!(read.len(), expected.len() - middle);
    }
    assert_eq!(bus.append(OBSERVATIONS, Vec::new()).await.unwrap(), Vec::new());
}

async fn concurrent_appends_keep_every_record(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "together");
    let from = bus.watermarks(partition).await.unwrap().high;
    let writers = (0..16).map(|writer| {
        let bus = Arc::clone(bus);
        tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..20 {
                let placed = bus.append(OBSERVATIONS, vec![record("together", format!("{writer}/{n}"))]).await.unwrap();
                places.push((placed[0].1, format!("{writer}/{n}")));
            }
            assert!(places.windows(2).all(|pair| pair[0].0 < pair[1].0), "one after another");
            places
        })
    });
    let mut expected: BTreeMap<Offset, String> = BTreeMap::new();
    for places in futures::future::join_all(writers).await {
        expected.extend(places.unwrap());
    }
    assert_eq!(expected.len(), 320, "no offset twice");
    let read = read_all(bus, partition, from, 50).await;
    let read: BTreeMap<Offset, String> =
        read.iter().map(|d| (d.offset, String::from_utf8(d.record.value.to_vec()).unwrap())).collect();
    assert_eq!(read, expected);
}

async fn reading_waits_and_wakes(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "tail");
    let high = bus.watermarks(partition).await.unwrap().high;
    let nothing = bus.read(partition, high, ReadLimit { wait: Duration::from_millis(50), ..limit(10) }).await.unwrap();
    assert_eq!(nothing, Fetch { deliveries: Vec::new(), next: high });
    let reader = tokio::spawn({
        let bus = Arc::clone(bus);
        async move { bus.read(partition, high, ReadLimit { wait: LONG * 10, ..limit(10) }).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    bus.append(OBSERVATIONS, vec![record("tail", "woken")]).await.unwrap();
    let fetch = tokio::time::timeout(LONG, reader).await.expect("it wakes").unwrap().unwrap();
    assert_eq!(values(&fetch.deliveries), ["woken"]);
    assert_eq!(fetch.next, fetch.deliveries[0].offset + 1);
}

async fn reads_keep_their_limits(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "limits");
    let records = (0..10).map(|n| record("limits", vec![b'0' + n; 100])).collect();
    let from = bus.append(OBSERVATIONS, records).await.unwrap()[0].1;
    for (records, bytes, most) in [(3, usize::MAX, 3), (100, 250, 2), (100, 1, 1), (0, usize::MAX, 1)] {
        let limit = ReadLimit { records, bytes, wait: LONG };
        let fetch = bus.read(partition, from, limit).await.unwrap();
        let count = fetch.deliveries.len();
        assert!((1..=most).contains(&count), "{count} for {records} records and {bytes} bytes");
        assert_eq!(fetch.next, fetch.deliveries[count - 1].offset + 1);
        // What did not fit comes next.
        let more = bus.read(partition, fetch.next, limit).await.unwrap();
        assert_eq!(more.deliveries[0].record.value[0], b'0' + u8::try_from(count).unwrap());
    }
}

async fn positions_are_kept(bus: &Bus) {
    let one = home(bus, OBSERVATIONS, "together");
    let other = home(bus, ALERTS, "together");
    assert_eq!(bus.committed("keeper", one).await.unwrap(), None);
    bus.commit("keeper", &[(one, 3), (other, 0)]).await.unwrap();
    bus.commit("keeper", &[(one, 5)]).await.unwrap();
    assert_eq!(bus.committed("keeper", one).await.unwrap(), Some(5));
    assert_eq!(bus.committed("keeper", other).await.unwrap(), Some(0));
    assert_eq!(bus.committed("another", one).await.unwrap(), None);
}

async fn offsets_by_time(bus: &Bus) {
    let partition = home(bus, Stream::DeadLetters(Topic::Observations), "clock");
    let add = async |value: &'static str| {
        bus.append(partition.stream, vec![record("clock", value)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    for value in ["a", "b", "c"] {
        add(value).await;
    }
    let read = read_all(bus, partition, 0, 10).await;
    assert_eq!(values(&read), ["a", "b", "c"]);
    let second = Duration::from_secs(3600);
    for delivery in &read {
        assert_eq!(bus.offset_at(partition, delivery.ingested_at).await.unwrap(), delivery.offset);
    }
    let just_after = read[1].ingested_at + chrono::Duration::microseconds(1);
    assert_eq!(bus.offset_at(partition, just_after).await.unwrap(), read[2].offset);
    assert_eq!(bus.offset_at(partition, read[0].ingested_at - second).await.unwrap(), read[0].offset);
    assert_eq!(bus.offset_at(partition, read[2].ingested_at + second).await.unwrap(), read[2].offset + 1);
    let empty = Partition { number: (partition.number + 1) % bus.partitions(), ..partition };
    assert_eq!(bus.offset_at(empty, Utc::now()).await.unwrap(), 0);
}

async fn outside_is_out_of_range(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "together");
    let ends = bus.watermarks(partition).await.unwrap();
    for wanted in [ends.high + 1, ends.high + 1000, -1] {
        match bus.read(partition, wanted, limit(1)).await {
            Err(BusError::OutOfRange { partition: p, wanted: w, high, .. }) => {
                assert_eq!((p, w, high), (partition, wanted, ends.high));
            }
            other => panic!("{other:?}"),
        }
    }
    let nowhere = Partition { number: bus.partitions(), ..partition };
    assert!(matches!(bus.read(nowhere, 0, limit(1)).await, Err(BusError::Configuration(_))));
    assert!(matches!(bus.commit("keeper", &[(nowhere, 1)]).await, Err(BusError::Configuration(_))));
}

async fn oversized_is_refused(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "big");
    let high = bus.watermarks(partition).await.unwrap().high;
    let largest = record("big", vec![b'x'; MAX_RECORD_BYTES - 3]);
    let larger = record("big", vec![b'x'; MAX_RECORD_BYTES - 2]);
    match bus.append(OBSERVATIONS, vec![record("big", "small"), larger]).await {
        Err(BusError::TooLarge { bytes, limit }) => {
            assert_eq!((bytes, limit), (MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bus.watermarks(partition).await.unwrap().high, high, "nothing of it was appended");
    bus.append(OBSERVATIONS, vec![largest.clone()]).await.unwrap();
    assert_eq!(read_all(bus, partition, high, 10).await[0].record, largest);
}

async fn steps_are_atomic_and_fenced(bus: &Bus) {
    let input = home(bus, OBSERVATIONS, "decide");
    let output = home(bus, ALERTS, "decide");
    let from = bus.watermarks(output).await.unwrap().high;
    let mut zombie = bus.transactor("decider", input).await.unwrap();
    let placed = zombie.step(vec![(ALERTS, record("decide", "one"))], &[(input, 1)]).await.unwrap();
    assert_eq!(placed[0].0, output);
    assert_eq!(bus.committed("decider", input).await.unwrap(), Some(1));
    // A step without records only advances.
    assert_eq!(zombie.step(Vec::new(), &[(input, 2)]).await.unwrap(), Vec::new());
    assert_eq!(bus.committed("decider", input).await.unwrap(), Some(2));

    let mut heir = bus.transactor("decider", input).await.unwrap();
    for _ in 0..2 {
        match zombie.step(vec![(ALERTS, record("decide", "zombie"))], &[(input, 99)]).await {
            Err(BusError::Fenced { partition }) => assert_eq!(partition, input),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bus.committed("decider", input).await.unwrap(), Some(2));
    heir.step(vec![(ALERTS, record("decide", "two")), (ALERTS, record("decide", "three"))], &[(input, 4)])
        .await
        .unwrap();
    // Another partition's transactor, and another group's, are nobody's rivals.
    let beside = Partition { number: (input.number + 1) % bus.partitions(), ..input };
    let mut beside = bus.transactor("decider", beside).await.unwrap();
    let mut other = bus.transactor("other", input).await.unwrap();
    other.step(vec![(ALERTS, record("decide", "four"))], &[(input, 1)]).await.unwrap();
    beside.step(vec![(ALERTS, record("decide", "five"))], &[]).await.unwrap();
    heir.step(vec![(ALERTS, record("decide", "six"))], &[(input, 5)]).await.unwrap();
    // A record that is refused takes the whole step with it.
    let large = record("decide", vec![0; MAX_RECORD_BYTES + 1]);
    let step = heir.step(vec![(ALERTS, record("decide", "seven")), (ALERTS, large)], &[(input, 6)]).await;
    assert!(matches!(step, Err(BusError::TooLarge { .. })), "{step:?}");
    let last = heir.step(vec![(ALERTS, record("decide", "eight"))], &[(input, 7)]).await.unwrap();

    settled(bus, output, last[0].1 + 1).await;
    let read = read_all(bus, output, from, 2).await;
    assert_eq!(values(&read), ["one", "two", "three", "four", "five", "six", "eight"]);
    assert_eq!(bus.committed("decider", input).await.unwrap(), Some(7));
    assert_eq!(bus.committed("other", input).await.unwrap(), Some(1));
    // Past the last marker a reader stands at the end, and new records reach it there.
    let high = bus.watermarks(output).await.unwrap().high;
    bus.append(ALERTS, vec![record("decide", "nine")]).await.unwrap();
    assert_eq!(values(&read_all(bus, output, high, 10).await), ["nine"]);
}

async fn a_group_hands_over(bus: &Bus) {
    let all: BTreeSet<i32> = (0..bus.partitions()).collect();
    let mut first = bus.join("workers", Topic::Observations, Duration::ZERO).await.unwrap();
    let (own, _) = owned(&mut first, all.len()).await;
    assert_eq!(own, all);
    // Positions can be noted while the group has members.
    bus.commit("workers", &[(Partition::of(Topic::Observations, 0), 1)]).await.unwrap();
    let mut second = bus.join("workers", Topic::Observations, Duration::ZERO).await.unwrap();
    first.leave().await;
    let (own, _) = owned(&mut second, all.len()).await;
    assert_eq!(own, all);
    // Cancelling a wait loses nothing, and dropping leaves too.
    let mut third = bus.join("workers", Topic::Observations, Duration::ZERO).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(1), third.changed()).await;
    drop(third);
    drop(second);
    let mut fourth = bus.join("workers", Topic::Observations, Duration::ZERO).await.unwrap();
    assert_eq!(owned(&mut fourth, all.len()).await.0, all);
    fourth.leave().await;
}

async fn lag_counts_what_is_unread(bus: &Bus) {
    let partition = home(bus, Stream::DeadLetters(Topic::Alerts), "lag");
    let now = Utc::now() + chrono::Duration::seconds(100);
    assert_eq!(lag(&**bus, "reader", partition, now).await.unwrap(), Lag::default());
    bus.append(partition.stream, (0..5).map(|n| record("lag", format!("{n}"))).collect()).await.unwrap();
    let behind = lag(&**bus, "reader", partition, now).await.unwrap();
    assert_eq!(behind.offsets, 5);
    assert!(behind.age > Duration::from_secs(50) && behind.age < Duration::from_secs(300), "{behind:?}");
    bus.commit("reader", &[(partition, 3)]).await.unwrap();
    assert_eq!(lag(&**bus, "reader", partition, now).await.unwrap().offsets, 2);
    bus.commit("reader", &[(partition, 5)]).await.unwrap();
    assert_eq!(lag(&**bus, "reader", partition, now).await.unwrap(), Lag::default());
}

async fn closed_is_closed(bus: &Bus) {
    let partition = home(bus, OBSERVATIONS, "together");
    let mut transactor = bus.transactor("closer", partition).await.unwrap();
    let mut member = bus.join("closers", Topic::Alerts, Duration::ZERO).await.unwrap();
    owned(&mut member, usize::try_from(bus.partitions()).unwrap()).await;
    let high = bus.watermarks(partition).await.unwrap().high;
    let waiting = tokio::spawn({
        let bus = Arc::clone(bus);
        async move { bus.read(partition, high, ReadLimit { wait: LONG * 10, ..limit(1) }).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    bus.close().await.unwrap();
    let waited = tokio::time::timeout(LONG, waiting).await.expect("closing wakes readers").unwrap();
    assert!(matches!(waited, Err(BusError::Closed)), "{waited:?}");
    let append = bus.append(OBSERVATIONS, vec![record("k", "v")]).await;
    assert!(matches!(append, Err(BusError::Closed)), "{append:?}");
    assert!(matches!(bus.read(partition, 0, limit(1)).await, Err(BusError::Closed)));
    assert!(matches!(bus.watermarks(partition).await, Err(BusError::Closed)));
    assert!(matches!(bus.offset_at(partition, Utc::now()).await, Err(BusError::Closed)));
    assert!(matches!(bus.committed("g", partition).await, Err(BusError::Closed)));
    assert!(matches!(bus.commit("g", &[(partition, 1)]).await, Err(BusError::Closed)));
    assert!(matches!(bus.join("g", Topic::Alerts, Duration::ZERO).await, Err(BusError::Closed)));
    assert!(matches!(bus.transactor("g", partition).await, Err(BusError::Closed)));
    assert!(matches!(transactor.step(Vec::new(), &[(partition, 1)]).await, Err(BusError::Closed)));
    assert!(matches!(member.changed().await, Err(BusError::Closed)));
    assert!(matches!(bus.close().await, Err(BusError::Closed)));
}
