//! Kafka: the common promises against a real cluster, and what only a cluster can show.

use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::bus::kafka::{KafkaBus, KafkaSettings};

/// Brokers of a real cluster, if there is one.
pub(in crate::bus) fn brokers() -> Option<String> {
    let brokers = std::env::var("REBOUND_TEST_KAFKA").ok().filter(|brokers| !brokers.is_empty());
    if brokers.is_none() {
        println!("Kafka suite not run: set REBOUND_TEST_KAFKA");
    }
    brokers
}

/// Topics of its own for each test, and short time-outs.
fn settings(brokers: &str) -> KafkaSettings {
    let prefix = format!("test-{:016x}", rand::random::<u64>());
    KafkaSettings { prefix, session_timeout_ms: 2_000, ..KafkaSettings::new(brokers) }
}

async fn connect(settings: &KafkaSettings) -> Bus {
    Arc::new(KafkaBus::connect(settings.clone()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises() {
    let Some(brokers) = brokers() else { return };
    promises(connect(&settings(&brokers)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_hand_over() {
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    // Two connections, as two processes have.
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    let mut first = one.join("share", Topic::Observations, Duration::ZERO).await.unwrap();
    assert_eq!(owned(&mut first, 4).await.0.len(), 4);
    let mut second = two.join("share", Topic::Observations, Duration::ZERO).await.unwrap();
    let given = tokio::time::timeout(LONG, first.changed()).await.unwrap().unwrap();
    let Ownership::Lost { partitions: given, .. } = given else { panic!("{given:?}") };
    let (got, _) = owned(&mut second, 2).await;
    assert_eq!(got, given.into_iter().collect::<BTreeSet<i32>>());
    second.leave().await;
    let back = tokio::time::timeout(LONG, first.changed()).await.unwrap().unwrap();
    let Ownership::Gained { partitions: back, .. } = back else { panic!("{back:?}") };
    assert_eq!(back.into_iter().collect::<BTreeSet<i32>>(), got);
    // Fencing works across connections too.
    let partition = Partition::of(Topic::Observations, 0);
    let mut zombie = one.transactor("share", partition).await.unwrap();
    let mut heir = two.transactor("share", partition).await.unwrap();
    let step = zombie.step(vec![(ALERTS, record("k", "zombie"))], &[(partition, 9)]).await;
    assert!(matches!(step, Err(BusError::Fenced { .. })), "{step:?}");
    let placed = heir.step(vec![(ALERTS, record("k", "heir"))], &[(partition, 1)]).await.unwrap();
    settled(&one, placed[0].0, placed[0].1 + 1).await;
    assert_eq!(values(&read_all(&one, home(&one, ALERTS, "k"), 0, 10).await), ["heir"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_goes_to_nobody_before_it_is_let_go() {
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    let mut first = one.join("slow", Topic::Observations, LONG).await.unwrap();
    owned(&mut first, 4).await;
    let mut second = two.join("slow", Topic::Observations, LONG).await.unwrap();
    let lost = tokio::time::timeout(LONG, first.changed()).await.unwrap().unwrap();
    let Ownership::Lost { generation, taken: false, .. } = lost else { panic!("{lost:?}") };
    // Twice the session's time-out: the first is not taken for dead meanwhile.
    let early = tokio::time::timeout(Duration::from_millis(2 * settings.session_timeout_ms), second.changed()).await;
    assert!(early.is_err(), "{early:?}");
    first.let_go(generation);
    owned(&mut second, 2).await;
    // Whoever leaves waits for nobody.
    first.leave().await;
    owned(&mut second, 2).await;
}

/// What the child of the next test does: own partitions, and decide for one as fast as it can.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_child() {
    let (Ok(prefix), Some(brokers)) = (std::env::var("REBOUND_TEST_STOPPED_PREFIX"), brokers()) else { return };
    let bus = connect(&KafkaSettings { prefix, ..settings(&brokers) }).await;
    let mut member = bus.join("stopped", Topic::Observations, Duration::ZERO).await.unwrap();
    owned(&mut member, 4).await;
    let partition = home(&bus, OBSERVATIONS, "k");
    let mut transactor = bus.transactor("stopped", partition).await.unwrap();
    for n in 1.. {
        match transactor.step(vec![(ALERTS, record("k", "child"))], &[(partition, n)]).await {
            Ok(_) => println!("\nstepped {n}"),
            Err(BusError::Fenced { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    println!("\nfenced");
    // Membership says the same, and goes on with what is left to share.
    let change = tokio::time::timeout(LONG, member.changed()).await.unwrap().unwrap();
    assert!(matches!(change, Ownership::Lost { .. }), "{change:?}");
    println!("\nlost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_never_decides_again() {
    use nix::sys::signal::{Signal, kill};
    use std::io::{BufRead, BufReader};
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    let bus = connect(&settings).await;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bus::conformance::kafka::stopped_child", "--nocapture"])
        .env("REBOUND_TEST_STOPPED_PREFIX", &settings.prefix)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut heard = async |wanted: &str| {
        let hearing = async {
            while let Some(line) = lines.recv().await {
                if line == wanted {
                    return;
                }
            }
            panic!("the child ended without {wanted:?}");
        };
        tokio::time::timeout(LONG * 2, hearing).await.expect("the child speaks");
    };
    heard("stepped 5").await;
    kill(id, Signal::SIGSTOP).unwrap();
    let mut member = bus.join("stopped", Topic::Observations, Duration::ZERO).await.unwrap();
    owned(&mut member, 4).await;
    let partition = home(&bus, OBSERVATIONS, "k");
    let mut heir = bus.transactor("stopped", partition).await.unwrap();
    let position = bus.committed("stopped", partition).await.unwrap().unwrap();
    assert!(position >= 5);
    let placed = heir.step(vec![(ALERTS, record("k", "heir"))], &[(partition, 1000)]).await.unwrap();
    kill(id, Signal::SIGCONT).unwrap();
    heard("fenced").await;
    heard("lost").await;
    assert!(child.wait().unwrap().success());
    settled(&bus, placed[0].0, placed[0].1 + 1).await;
    let read = values(&read_all(&bus, placed[0].0, 0, 100).await);
    // As many decisions of the child as it advanced, then the heir's, and nothing after.
    assert_eq!(read.len(), usize::try_from(position).unwrap() + 1);
    assert_eq!(read.last().unwrap(), "heir");
    assert_eq!(bus.committed("stopped", partition).await.unwrap(), Some(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_or_aborted_transaction_is_not_seen() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    let bus = connect(&settings).await;
    let partition = home(&bus, ALERTS, "k");
    bus.append(ALERTS, vec![record("k", "before")]).await.unwrap();
    let topic = ALERTS.name(&settings.prefix);
    let (prefix, client_brokers) = (settings.prefix.clone(), brokers.clone());
    let producer: BaseProducer = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", client_brokers)
            .set("transactional.id", format!("{prefix}.stranger"))
            .create()
            .unwrap();
        producer.init_transactions(LONG).unwrap();
        producer.begin_transaction().unwrap();
        for n in 0..50 {
            let payload = format!("aborted {n}");
            producer.send(BaseRecord::to(&topic).partition(partition.number).key("k").payload(&payload)).unwrap();
        }
        producer.flush(LONG).unwrap();
        producer
    })
    .await
    .unwrap();
    // Open: committed records end before it.
    let ends = bus.watermarks(partition).await.unwrap();
    assert_eq!(ends.high, 1);
    assert_eq!(values(&read_all(&bus, partition, 0, 10).await), ["before"]);
    assert_eq!(bus.read(partition, 1, limit(10)).await.unwrap(), Fetch { deliveries: Vec::new(), next: 1 });
    tokio::task::spawn_blocking(move || producer.abort_transaction(LONG).unwrap()).await.unwrap();
    // Aborted: a reader passes over it, and stands at the end.
    settled(&bus, partition, 52).await;
    assert_eq!(read_all(&bus, partition, 1, 10).await, []);
    bus.append(ALERTS, vec![record("k", "after")]).await.unwrap();
    assert_eq!(values(&read_all(&bus, partition, 0, 10).await), ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_out_of_range() {
    use rdkafka::admin::{AdminClient, AdminOptions};
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    let bus = connect(&settings).await;
    let partition = home(&bus, OBSERVATIONS, "k");
    bus.append(OBSERVATIONS, (0..10).map(|n| record("k", format!("{n}"))).collect()).await.unwrap();
    assert_eq!(read_all(&bus, partition, 0, 100).await.len(), 10);
    let admin: AdminClient<_> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create_with_context(rdkafka::client::DefaultClientContext)
        .unwrap();
    let topic = OBSERVATIONS.name(&settings.prefix);
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    assert!(deleted[0].is_ok(), "{deleted:?}");
    let out_of_range = async |bus: &Bus| {
        let started = Instant::now();
        loop {
            match bus.read(partition, 10, limit(10)).await {
                Err(BusError::OutOfRange { wanted: 10, .. }) => break,
                // Until the client has noticed, there is nothing, or the broker is in between.
                Ok(fetch) => assert_eq!(fetch.deliveries, []),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            assert!(started.elapsed() < LONG * 2, "the loss went unseen");
        }
    };
    out_of_range(&bus).await;
    // Created anew by the next connection, and shorter than the position.
    let again = connect(&settings).await;
    out_of_range(&again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_must_agree() {
    let Some(brokers) = brokers() else { return };
    let settings = settings(&brokers);
    connect(&settings).await.close().await.unwrap();
    let error = KafkaBus::connect(KafkaSettings { partitions: 3, ..settings }).await.unwrap_err();
    let expected = "has 4 partitions, [kafka] partitions says 3: all topics must have as many; set it to 4";
    assert!(matches!(&error, BusError::Configuration(text) if text.contains(expected)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_brokers_are_named() {
    // A port that nobody listens on: taken, and given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = KafkaSettings { timeout_ms: 1_500, ..KafkaSettings::new(&free.to_string()) };
    let connecting = tokio::time::timeout(LONG, KafkaBus::connect(settings)).await;
    let error = connecting.expect("it ends in time").unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(error.to_string().contains("Connection refused"), "the cause is named: {error}");
}
