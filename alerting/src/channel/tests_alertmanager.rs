//! The Alertmanager channel against the real one, where Debian's `prometheus-alertmanager` is installed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rebound_schemas::event::Transition;
use rebound_schemas::plan::ChannelKind;
use serde_json::Value;

use super::Delivery;
use super::tests::{LONG, channel, member, of, plain};
use crate::notify::Member;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free port of loopback: it is let go of for the server to take.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn alerts(url: &str) -> Option<Vec<Value>> {
    let answer = reqwest::get(format!("{url}/api/v2/alerts?active=true")).await.ok()?;
    serde_json::from_str(&answer.text().await.ok()?).ok()
}

/// Asks until `wanted` alerts fire.
async fn firing(url: &str, wanted: usize) -> Vec<Value> {
    for _ in 0..300 {
        if let Some(found) = alerts(url).await.filter(|found| found.len() == wanted) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("there were never {wanted} alerts: {:?}", alerts(url).await)
}

#[tokio::test]
async fn a_real_alertmanager_raises_once_and_resolves() {
    let program = "/usr/bin/prometheus-alertmanager";
    if !std::path::Path::new(program).exists() {
        eprintln!("SKIPPED: {program} is not there (apt-get install prometheus-alertmanager)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yml");
    std::fs::write(&config, "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n").unwrap();
    let address = format!("127.0.0.1:{}", port());
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.path={}", folder.path().display()));
    command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
    let _server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let url = format!("http://{address}");
    assert!(firing(&url, 0).await.is_empty());

    let kind = ChannelKind::Alertmanager { url: plain(&url), allow_private: true };
    let channel = channel(kind, LONG, 3).unwrap();
    let now = Utc::now();
    let raised = of(vec![Member { first_failure_at: now - TimeDelta::seconds(60), at: now, ..member() }]);
    for _ in 0..2 {
        assert_eq!(channel.deliver(&raised).await, Delivery::Sent { attempt: 1 });
    }
    let found = firing(&url, 1).await;
    assert_eq!(found[0]["labels"]["incident"], "inc-1");
    assert_eq!(found[0]["labels"]["severity"], "critical");
    let mut resolved = raised;
    resolved.members[0].told.transition = Transition::Resolved;
    assert_eq!(channel.deliver(&resolved).await, Delivery::Sent { attempt: 1 });
    firing(&url, 0).await;
}
