//! kill -9 at random moments: this very test binary runs again as a child that writes a log, and is killed.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rebound_schemas::Topic;
use tokio_util::sync::CancellationToken;

use super::support::record;
use super::*;
use crate::bus::EventBus;
use crate::bus::embedded::{EmbeddedBus, EmbeddedSettings};

const FOLDER: &str = "REBOUND_TEST_CRASH_FOLDER";

async fn bus(dir: &std::path::Path) -> Arc<dyn EventBus> {
    let mut settings = EmbeddedSettings::new(dir.join("bus"));
    settings.partitions = 3;
    Arc::new(EmbeddedBus::open(settings).await.unwrap())
}

/// The child: appends and writes the log until it is killed. Without the variable it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_crash_test() {
    let Some(dir) = std::env::var_os(FOLDER).map(std::path::PathBuf::from) else { return };
    let bus = bus(&dir).await;
    let location = LogLocation::parse(dir.join("log").to_str().unwrap()).unwrap();
    let mut settings = settings(location);
    settings.commit_age = Duration::from_millis(1);
    let writer = run_log(bus.clone(), settings, LogMetrics::unregistered(), CancellationToken::new());
    let writer = tokio::spawn(writer);
    for n in 0.. {
        assert!(!writer.is_finished(), "the writer ended: {:?}", writer.await);
        bus.append(EVENTS, (n * 5..n * 5 + 5).map(record).collect()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_everything_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let location = LogLocation::parse(dir.path().join("log").to_str().unwrap()).unwrap();
    let mut versions = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::crash::child_of_the_crash_test", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed once it has committed something, at a moment that differs from round to round.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let committed = async || stats(&location).await.map_or(0, |stats| stats.version);
        while committed().await < versions + 3 {
            assert!(tokio::time::Instant::now() < deadline, "the child committed nothing");
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(17 * round + rand::random_range(0..40))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        versions = proved(&location).await.version;
    }
    // What the dead left on the bus is stored by the next one.
    let bus = bus(dir.path()).await;
    let (stop, metrics) = (CancellationToken::new(), LogMetrics::unregistered());
    let writer = tokio::spawn(run_log(bus.clone(), settings(location.clone()), metrics, stop.clone()));
    let mut acknowledged = 0;
    for number in 0..bus.partitions() {
        let partition = Partition::of(Topic::Observations, number);
        let high = bus.watermarks(partition).await.unwrap().high;
        acknowledged += high;
        let name = partition.to_string();
        let stands = async || {
            let found = stats(&location).await.unwrap().partitions.into_iter().find(|p| p.partition == name);
            found.map_or(0, |p| p.next_offset)
        };
        while stands().await < high {
            assert!(!writer.is_finished());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.cancel();
    writer.await.unwrap().unwrap();
    let report = proved(&location).await;
    let stored: i64 =
        report.partitions.iter().filter(|p| p.partition.starts_with("observations")).map(|p| p.next_offset).sum();
    assert_eq!(stored, acknowledged);
    bus.close().await.unwrap();
}
