//! The log as a whole: a bus, a writer, a table in a folder, and what goes wrong between them.

mod crash;
mod support;

use std::sync::Arc;
use std::time::Duration;

use deltalake::kernel::transaction::CommitProperties;
use rebound_schemas::Topic;
use tokio_util::sync::CancellationToken;

use self::support::{Fault, FaultyStore, MemoryBus, bad, record};
use super::upkeep::{OVERCROWDED, checkpoint, clean_log, compact_once, room, vacuum};
use super::*;
use crate::bus::{EventBus, Partition, Stream};

const EVENTS: Stream = Stream::Events(Topic::Observations);

fn location(dir: &tempfile::TempDir) -> LogLocation {
    LogLocation::parse(dir.path().join("log").to_str().unwrap()).unwrap()
}

fn settings(location: LogLocation) -> LogSettings {
    let mut settings = LogSettings::new(location);
    settings.commit_age = Duration::from_millis(20);
    settings
}

async fn append(bus: &Arc<MemoryBus>, records: impl IntoIterator<Item = crate::bus::Record>) {
    bus.append(EVENTS, records.into_iter().collect()).await.unwrap();
}

/// Whether the table stands where the bus ends, in every partition of every topic.
async fn stored_all(bus: &Arc<MemoryBus>, location: &LogLocation) -> bool {
    let Ok(stats) = stats(location).await else { return false };
    for topic in Topic::ALL {
        for number in 0..bus.partitions() {
            let partition = Partition::of(topic, number);
            let high = bus.watermarks(partition).await.unwrap().high;
            let name = partition.to_string();
            let next = stats.partitions.iter().find(|p| p.partition == name).map_or(0, |p| p.next_offset);
            if next != high {
                return false;
            }
        }
    }
    true
}

/// Runs a writer until everything is stored, then stops it.
async fn drain(bus: &Arc<MemoryBus>, settings: LogSettings) -> Result<LogMetrics, LogError> {
    let (stop, metrics) = (CancellationToken::new(), LogMetrics::unregistered());
    // Looked at without the settings' own store, so that looking doesn't count as a put.
    let plain = LogLocation::parse(settings.location.url().as_str()).unwrap();
    let mut writer = tokio::spawn(run_log(bus.clone(), settings, metrics.clone(), stop.clone()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !stored_all(bus, &plain).await {
        assert!(tokio::time::Instant::now() < deadline, "the log was not drained in time");
        tokio::select! {
            ended = &mut writer => { ended.unwrap()?; panic!("the writer ended early"); }
            () = tokio::time::sleep(Duration::from_millis(30)) => {}
        }
    }
    stop.cancel();
    writer.await.unwrap()?;
    Ok(metrics)
}

async fn proved(location: &LogLocation) -> VerifyReport {
    let report = verify(location, |_, _| {}).await.unwrap();
    assert!(report.holds(), "{:?}", report.findings);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_bus_is_in_the_table_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(3), location(&dir));
    append(&bus, (0..60).map(record).chain([bad(1), bad(2)])).await;
    bus.skip(Partition::of(Topic::Observations, 0), 3);
    let metrics = drain(&bus, settings(location.clone())).await.unwrap();
    assert_eq!(proved(&location).await.events, 60);
    append(&bus, (60..100).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    let report = proved(&location).await;
    assert_eq!((report.events, report.partitions.iter().map(|p| p.without_event).sum::<u64>()), (100, 5));

    let label = metrics::topic_label(Topic::Observations);
    let (taken, stored) = (metrics.taken.get_or_create(&label).get(), metrics.stored.get_or_create(&label).get());
    let dead = metrics.dead_lettered.get_or_create(&ClassLabel { class: "json".into() }).get();
    assert_eq!((taken, stored, dead), (62, 60, 2), "taken in = stored + dead-lettered");

    let bus: Arc<dyn EventBus> = bus;
    let letters = dlq_list(&bus, &Topic::ALL).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!((letters[0].class.as_str(), letters[0].excerpt.as_str()), ("json", "{\"id\":"));
    let replay = dlq_replay(&bus, &Topic::ALL, false, |_| true).await.unwrap();
    assert_eq!((replay.letters, replay.replayed, replay.still_undecodable), (2, 0, 2));
    let replay = dlq_replay(&bus, &Topic::ALL, true, |letter| letter.offset >= 0).await.unwrap();
    assert_eq!(replay.replayed, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_fails_anywhere_changes_nothing() {
    for fault in [Fault::Full, Fault::AnswerLost] {
        // The first put makes the table; then a data file, its commit, another data file and its commit.
        for first in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let store = FaultyStore::new(fault, first, 2);
            let (bus, location) = (MemoryBus::new(2), location(&dir));
            append(&bus, (0..30).map(record)).await;
            drain(&bus, settings(location.clone().with_root(store.clone()))).await.unwrap();
            append(&bus, (30..40).map(record)).await;
            drain(&bus, settings(location.clone().with_root(store.clone()))).await.unwrap();
            assert_eq!(proved(&location).await.events, 40, "{fault:?} at put {first}");
            assert!(store.failed.load(std::sync::atomic::Ordering::SeqCst) > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let bus = MemoryBus::new(1);
    append(&bus, (0..3).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    bus.drop_below(Partition::of(Topic::Observations, 0), 3);
    bus.skip(Partition::of(Topic::Observations, 0), 1);
    bus.drop_below(Partition::of(Topic::Observations, 0), 4);
    let full = location.with_root(FaultyStore::new(Fault::Full, 0, 1000));
    let error = accept_loss(&full, Partition::of(Topic::Observations, 0), 4).await.unwrap_err();
    assert!(matches!(&error, LogError::DiskFull { .. }) && error.is_transient(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_that_own_the_same_partitions_store_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(2), location(&dir));
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let metrics = LogMetrics::unregistered();
            let run = run_log(bus.clone(), settings(location.clone()), metrics.clone(), stop.clone());
            (tokio::spawn(run), metrics)
        })
        .collect();
    for round in 0..20 {
        append(&bus, (round * 20..round * 20 + 20).map(record)).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    while !stored_all(&bus, &location).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    let mut conflicts = 0;
    for (writer, metrics) in writers {
        writer.await.unwrap().unwrap();
        conflicts += metrics.conflicts.get();
    }
    assert_eq!(proved(&location).await.events, 400);
    assert!(conflicts > 0, "both wrote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_and_lost_records_stop_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(1), location(&dir));
    let partition = Partition::of(Topic::Observations, 0);
    append(&bus, (0..10).map(record)).await;
    bus.drop_below(partition, 4);
    drain(&bus, settings(location.clone())).await.unwrap();
    assert_eq!(proved(&location).await.partitions[0].without_event, 4, "what was gone before the log began");

    append(&bus, (10..20).map(record)).await;
    bus.drop_below(partition, 15);
    let error = drain(&bus, settings(location.clone())).await.unwrap_err();
    assert!(matches!(error, LogError::Overtaken { stored: 10, low: 15, .. }), "{error:?}");
    assert!(error.to_string().contains("accept-loss observations-0 15"), "{error}");
    assert_eq!(accept_loss(&location, partition, 15).await.unwrap(), 5);
    assert!(matches!(accept_loss(&location, partition, 15).await, Err(LogError::Conflict { .. })));
    drain(&bus, settings(location.clone())).await.unwrap();
    assert_eq!(proved(&location).await.events, 11);

    bus.recreate();
    append(&bus, (0..3).map(record)).await;
    let (bus, stop): (Arc<dyn EventBus>, _) = (bus, CancellationToken::new());
    let error = run_log(bus, settings(location.clone()), LogMetrics::unregistered(), stop).await.unwrap_err();
    assert!(matches!(error, LogError::Recreated { stored: 20, high: 3, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_newest_commit_is_set_aside_and_read_again() {
    for keep in [0.0, 0.5, 0.99] {
        let dir = tempfile::tempdir().unwrap();
        let (bus, location) = (MemoryBus::new(2), location(&dir));
        append(&bus, (0..10).map(record)).await;
        drain(&bus, settings(location.clone())).await.unwrap();
        append(&bus, (10..30).map(record)).await;
        drain(&bus, settings(location.clone())).await.unwrap();
        let version = stats(&location).await.unwrap().version;
        let newest = dir.path().join(format!("log/_delta_log/{version:020}.json"));
        let bytes = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
        // Readers leave it to the writer, and say so if they can't do without it.
        if let Err(error) = stats(&location).await {
            let name = format!("_delta_log/{version:020}.json is torn: ");
            assert!(error.to_string().starts_with(&name) && error.to_string().contains("rebound run log"), "{error}");
        }
        drain(&bus, settings(location.clone())).await.unwrap();
        assert_eq!(proved(&location).await.events, 30, "cut to {keep}");
        assert_eq!(std::fs::read_dir(dir.path().join("log/_quarantine")).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_older_commit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(2), location(&dir));
    for round in 0..2 {
        append(&bus, (round * 10..round * 10 + 10).map(record)).await;
        drain(&bus, settings(location.clone())).await.unwrap();
    }
    std::fs::write(dir.path().join("log/_delta_log/00000000000000000001.json"), "garbage").unwrap();
    let error = stats(&location).await.unwrap_err().to_string();
    assert!(
        error.starts_with("_delta_log/00000000000000000001.json is corrupt: ") && error.contains("backup"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_checkpoint_is_set_aside_and_the_commits_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(2), location(&dir));
    append(&bus, (0..10).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    checkpoint(&location).await.unwrap();
    let before = stats(&location).await.unwrap();
    let log = dir.path().join("log/_delta_log");
    let torn = std::fs::read_dir(&log)
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.to_str().unwrap().ends_with(".checkpoint.parquet"))
        .unwrap();
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(stats(&location).await.unwrap(), before);
    assert!(!torn.exists());
    append(&bus, (10..20).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    assert_eq!(proved(&location).await.events, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_changes_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(2), location(&dir));
    for round in 0..4 {
        append(&bus, (round * 10..round * 10 + 10).map(record)).await;
        drain(&bus, settings(location.clone())).await.unwrap();
    }
    let before = stats(&location).await.unwrap();
    let report = compact(&location, |_, _| {}).await.unwrap();
    assert!(report.files_before > 1 && report.files_after == 1, "{report:?}");
    let after = stats(&location).await.unwrap();
    assert_eq!((after.rows, after.oldest, after.newest), (before.rows, before.oldest, before.newest));
    assert_eq!(after.partitions, before.partitions);
    // Two checkpoints more, and everything before the older one of them may go.
    append(&bus, (40..50).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    checkpoint(&location).await.unwrap();
    let table = tokio::sync::Mutex::new(table::LogTable::load(&location).await.unwrap());
    let store = table.lock().await.store().clone();
    assert!(clean_log(&store, Duration::ZERO).await.unwrap() > 0);
    std::fs::write(dir.path().join("log/event_date=2026-03-01/x.parquet#123"), "left behind").unwrap();
    let removed = vacuum(&table, Duration::ZERO).await.unwrap();
    assert_eq!(removed as u64, report.files_before + 1, "the merged files and a staging file");
    assert_eq!(proved(&location).await.events, 50);
    assert!(compact_once(&table, merge::Eagerness::Steady).await.unwrap().is_none(), "the day is not quiet yet");
    assert!(compact_once(&table, merge::Eagerness::Everything).await.unwrap().is_some());
    drain(&bus, settings(location.clone())).await.unwrap();
    assert_eq!(proved(&location).await.events, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_made_mutable_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(1), location(&dir));
    append(&bus, (0..3).map(record)).await;
    drain(&bus, settings(location.clone())).await.unwrap();
    let table = open_table(&location).await.unwrap();
    let off = [("delta.appendOnly".to_owned(), "false".to_owned())].into();
    table.set_tbl_properties().with_properties(off).with_commit_properties(CommitProperties::default()).await.unwrap();
    assert!(matches!(open_table(&location).await, Err(LogError::AppendOnlyOff { .. })));
    let error = run_log(bus, settings(location), LogMetrics::unregistered(), CancellationToken::new()).await;
    assert!(matches!(error, Err(LogError::AppendOnlyOff { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_what_was_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, location) = (MemoryBus::new(1), location(&dir));
    for round in 0..2 {
        append(&bus, (round * 10..round * 10 + 10).map(record)).await;
        drain(&bus, settings(location.clone())).await.unwrap();
    }
    proved(&location).await;
    let files: Vec<_> =
        std::fs::read_dir(dir.path().join("log/event_date=2026-03-01")).unwrap().map(|f| f.unwrap().path()).collect();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&files[0], bytes).unwrap();
    let found = verify(&location, |_, _| {}).await.unwrap().findings;
    assert!(found.iter().any(|f| matches!(f, Finding::Checksum { .. })), "{found:?}");
    std::fs::remove_file(&files[0]).unwrap();
    let found = verify(&location, |_, _| {}).await.unwrap().findings;
    assert!(found.iter().any(|f| matches!(f, Finding::Unreadable { .. })), "{found:?}");
    assert!(found.iter().any(|f| matches!(f, Finding::Missing { .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_log_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = stats(&location(&dir)).await.unwrap_err();
    assert!(matches!(error, LogError::Absent { .. }), "{error:?}");
    assert!(!dir.path().join("log").exists(), "looking makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_drains_what_it_fills() {
    let dir = tempfile::tempdir().unwrap();
    let location = location(&dir);
    let bus: Arc<dyn EventBus> = MemoryBus::new(1);
    let bytes = fill(&bus, 300).await.unwrap();
    let report = bench_drain(bus, settings(location.clone()), 300).await.unwrap();
    assert_eq!((report.events, proved(&location).await.events), (300, 300));
    assert!((300 * 300..300 * 400).contains(&bytes), "{bytes}");
    let elsewhere = LogLocation::parse(dir.path().join("other").to_str().unwrap()).unwrap();
    let growth = bench_commits(&settings(elsewhere.clone()), 120).await.unwrap();
    assert_eq!(growth.versions, 120);
    assert_eq!(proved(&elsewhere).await.events, 120);
}

#[tokio::test]
async fn a_crowded_table_is_waited_for_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = Box::pin(super::table::LogTable::open(&location(&dir))).await.unwrap();
    for n in 0..=OVERCROWDED {
        let file =
            super::table::LiveFile { path: n.to_string(), day: "2026-03-01".into(), size: 1, rows: 1, modified_ms: 0 };
        table.state.files.insert(file.path.clone(), file);
    }
    let table = Arc::new(tokio::sync::Mutex::new(table));
    assert!(!room(&table).await.unwrap(), "compaction that does nothing holds up no event for ever");
    let waiting = tokio::spawn({
        let table = table.clone();
        async move { room(&table).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "one file too many");
    table.lock().await.state.files.remove("0");
    assert!(waiting.await.unwrap());
    // A file a day can't be fewer, however many there are.
    for (n, file) in table.lock().await.state.files.values_mut().enumerate() {
        file.day = format!("{:04}-03-01", 1 + n);
    }
    let another =
        super::table::LiveFile { path: "0".into(), day: "9970-03-01".into(), size: 1, rows: 1, modified_ms: 0 };
    table.lock().await.state.files.insert("0".into(), another);
    let started = std::time::Instant::now();
    assert!(room(&table).await.unwrap());
    assert!(started.elapsed() < Duration::from_secs(4), "there is nothing to wait for");
}
