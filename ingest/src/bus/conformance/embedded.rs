//! The embedded bus: the common promises, and those about its disk.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::bus::embedded::{EmbeddedBus, EmbeddedSettings, Retention};

/// Settings for tests: a nearly full disk of the test machine is not what is tested.
fn settings(path: &Path) -> EmbeddedSettings {
    EmbeddedSettings { reserve_bytes: 0, ..EmbeddedSettings::new(path) }
}

async fn open(path: &Path) -> Bus {
    Arc::new(EmbeddedBus::open(settings(path)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    promises(open(folder.path()).await).await;
}

#[tokio::test]
async fn a_reopened_bus_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let bus = open(folder.path()).await;
        let partition = home(&bus, OBSERVATIONS, "again");
        assert_eq!(values(&read_all(&bus, partition, 0, 100).await), expected);
        for n in 0..5 {
            expected.push(format!("{round}/{n}"));
            let placed = bus.append(OBSERVATIONS, vec![record("again", format!("{round}/{n}"))]).await.unwrap();
            assert_eq!(placed[0].1, i64::try_from(expected.len()).unwrap() - 1);
        }
        assert_eq!(bus.committed("g", partition).await.unwrap(), (round > 0).then_some(round));
        bus.commit("g", &[(partition, round + 1)]).await.unwrap();
        bus.close().await.unwrap();
    }
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let bus = open(folder.path()).await;
    let error = EmbeddedBus::open(settings(folder.path())).await.unwrap_err();
    assert!(
        matches!(&error, BusError::Configuration(text)
        if text == &format!("the bus at {path} is in use by another process: stop that one, or use another data folder")),
        "{error}"
    );
    bus.close().await.unwrap();
    let error = EmbeddedBus::open(EmbeddedSettings { partitions: 6, ..settings(folder.path()) }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the bus at {path} has 4 partitions, not 6: the number is fixed when a bus is created; set partitions = 4, \
             or use another folder"
        )
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = EmbeddedBus::open(settings(&file.join("under"))).await.unwrap_err().to_string();
    assert!(error.contains("can't be made"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_reading_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let bus = open(folder.path()).await;
    let partition = home(&bus, OBSERVATIONS, "full");
    bus.append(OBSERVATIONS, vec![record("full", "before")]).await.unwrap();
    bus.close().await.unwrap();
    // More than any disk has free.
    let full = EmbeddedSettings { reserve_bytes: u64::MAX / 2, ..settings(folder.path()) };
    let bus: Bus = Arc::new(EmbeddedBus::open(full).await.unwrap());
    match bus.append(OBSERVATIONS, vec![record("full", "after")]).await {
        Err(error @ BusError::DiskFull { .. }) => assert!(error.is_transient()),
        other => panic!("{other:?}"),
    }
    let mut transactor = bus.transactor("g", partition).await.unwrap();
    let step = transactor.step(vec![(ALERTS, record("full", "after"))], &[(partition, 1)]).await;
    assert!(matches!(step, Err(BusError::DiskFull { .. })), "{step:?}");
    assert_eq!(values(&read_all(&bus, partition, 0, 10).await), ["before"]);
    assert_eq!(bus.committed("g", partition).await.unwrap(), None);
}

#[tokio::test]
async fn damage_on_disk_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let bus = open(folder.path()).await;
    let partition = home(&bus, OBSERVATIONS, "rot");
    // Enough that tables are written, not only the journal.
    for n in 0..40_u8 {
        let noise: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ n).collect();
        bus.append(OBSERVATIONS, vec![record("rot", noise)]).await.unwrap();
    }
    bus.close().await.unwrap();
    drop(bus);
    let tables = tables(folder.path());
    assert!(!tables.is_empty(), "no table was written");
    for table in tables {
        let mut bytes = std::fs::read(&table).unwrap();
        let third = bytes.len() / 3;
        bytes[third..third + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&table, bytes).unwrap();
    }
    let found = match EmbeddedBus::open(settings(folder.path())).await {
        Err(error) => error,
        Ok(bus) => {
            let mut at = 0;
            loop {
                match bus.read(partition, at, limit(100)).await {
                    Ok(fetch) => {
                        assert!(!fetch.deliveries.is_empty(), "the damage went unseen");
                        at = fetch.next;
                        assert!(at < 40, "the damage went unseen");
                    }
                    Err(error) => break error,
                }
            }
        }
    };
    assert!(
        matches!(&found, BusError::Corrupt { path, .. } if path == &folder.path().display().to_string()),
        "{found}"
    );
}

/// Files that hold a partition's tables, the larger ones.
fn tables(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    let mut left = vec![folder.join("keyspaces")];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.metadata().unwrap().len() > 1_000_000 {
                out.push(path);
            }
        }
    }
    out
}

#[tokio::test]
async fn retention_drops_what_all_groups_have_read() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { max_bytes: 4_000_000, sweep_every: Duration::ZERO, ..Retention::default() };
    let small = EmbeddedSettings { retention, partitions: 1, ..settings(folder.path()) };
    let bus: Bus = Arc::new(EmbeddedBus::open(small.clone()).await.unwrap());
    let partition = Partition::of(Topic::Observations, 0);
    let fill = async |count: u64| {
        for n in 0..count {
            let noise: Vec<u8> =
                (0..500_000_u64).map(|i| ((i + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8).collect();
            bus.append(OBSERVATIONS, vec![record("k", noise)]).await.unwrap();
        }
        // Retention follows a write, before the next one.
        bus.commit("fast", &[]).await.unwrap();
    };
    fill(20).await;
    // Nobody has read anything yet: all of it stays.
    assert_eq!(bus.watermarks(partition).await.unwrap(), Watermarks { low: 0, high: 20 });
    bus.commit("slow", &[(partition, 5)]).await.unwrap();
    bus.commit("fast", &[(partition, 20)]).await.unwrap();
    fill(1).await;
    assert_eq!(
        bus.watermarks(partition).await.unwrap(),
        Watermarks { low: 5, high: 21 },
        "the slow group still wants 5"
    );
    assert!(matches!(bus.read(partition, 4, limit(1)).await, Err(BusError::OutOfRange { low: 5, .. })));
    bus.commit("slow", &[(partition, 21)]).await.unwrap();
    bus.commit("fast", &[(partition, 21)]).await.unwrap();
    fill(100).await;
    bus.commit("slow", &[(partition, 121)]).await.unwrap();
    bus.commit("fast", &[(partition, 121)]).await.unwrap();
    fill(1).await;
    let ends = bus.watermarks(partition).await.unwrap();
    assert!(ends.low >= 122 - 9 && ends.low < 122, "about 4 MB are kept: {ends:?}");
    assert_eq!(read_all(&bus, partition, ends.low, 3).await.len(), usize::try_from(122 - ends.low).unwrap());
    assert_eq!(bus.offset_at(partition, Utc::now() - chrono::Duration::days(1)).await.unwrap(), ends.low);
    bus.close().await.unwrap();
    let bus = EmbeddedBus::open(small).await.unwrap();
    assert_eq!(bus.watermarks(partition).await.unwrap(), ends, "the low mark is kept");
    let held: u64 = tables(folder.path()).iter().map(|table| table.metadata().unwrap().len()).sum();
    assert!(held < 45_000_000, "61 MB were written and {held} are still on the disk");
}

/// What the child of the crash test does: append until it is killed, and say what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn crash_child() {
    let Ok(path) = std::env::var("REBOUND_TEST_CRASH_BUS") else { return };
    let bus = open(Path::new(&path)).await;
    let round = std::env::var("REBOUND_TEST_CRASH_ROUND").unwrap();
    let partition = home(&bus, OBSERVATIONS, "0");
    let mut transactor = bus.transactor("crash", partition).await.unwrap();
    let writers = (0..4).map(|writer| {
        let (bus, round) = (Arc::clone(&bus), round.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let value = format!("{round}/{writer}/{n}");
                let placed = bus.append(OBSERVATIONS, vec![record(&n.to_string(), value.clone())]).await.unwrap();
                println!("acknowledged {} {} {value}", placed[0].0.number, placed[0].1);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for n in 1.. {
        let at = n + 1_000_000 * round.parse::<i64>().unwrap();
        transactor.step(vec![(ALERTS, record("0", at.to_string()))], &[(partition, at)]).await.unwrap();
        println!("stepped {at}");
    }
    drop(writers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<(i32, Offset), String> = BTreeMap::new();
    let mut stepped = 0_i64;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bus::conformance::embedded::crash_child", "--nocapture"])
            .env("REBOUND_TEST_CRASH_BUS", folder.path())
            .env("REBOUND_TEST_CRASH_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        let mut take = |line: String| {
            // The test harness may print on the same line before.
            if let Some((_, rest)) = line.split_once("acknowledged ") {
                let words: Vec<&str> = rest.split(' ').collect();
                acknowledged.insert((words[0].parse().unwrap(), words[1].parse().unwrap()), words[2].to_owned());
            } else if let Some((_, rest)) = line.split_once("stepped ") {
                stepped = rest.parse().unwrap();
            }
        };
        for line in lines.by_ref().map_while(Result::ok) {
            take(line);
            count += 1;
            if count == 200 * round {
                child.kill().unwrap();
                break;
            }
        }
        // What was acknowledged while the kill was on its way. The last line may be cut.
        let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.pop();
        rest.into_iter().for_each(take);
        child.wait().unwrap();
        let bus = open(folder.path()).await;
        let mut found: BTreeMap<(i32, Offset), String> = BTreeMap::new();
        for number in 0..bus.partitions() {
            let partition = Partition::of(Topic::Observations, number);
            let read = read_all(&bus, partition, 0, 1000).await;
            assert!(read.iter().enumerate().all(|(n, d)| d.offset == i64::try_from(n).unwrap()), "no gaps");
            found.extend(read.iter().map(|d| ((number, d.offset), values(std::slice::from_ref(d)).remove(0))));
        }
        let distinct: BTreeSet<&String> = found.values().collect();
        assert_eq!(distinct.len(), found.len(), "nothing twice");
        for (place, value) in &acknowledged {
            assert_eq!(found.get(place), Some(value), "round {round}: {place:?} was acknowledged");
        }
        // Each step's record and position are together, whether it was acknowledged or not.
        let alerts = read_all(&bus, home(&bus, ALERTS, "0"), 0, 1000).await;
        let last: i64 = values(&alerts).last().unwrap().parse().unwrap();
        assert!(last >= stepped);
        assert_eq!(bus.committed("crash", home(&bus, OBSERVATIONS, "0")).await.unwrap(), Some(last));
        bus.close().await.unwrap();
    }
    assert!(acknowledged.len() > 300, "{} acknowledged", acknowledged.len());
}
