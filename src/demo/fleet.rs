//! The demo's fleet: which services there are, how they are started, broken and restarted, and the plan over them.
//!
//! Services are detached processes of this same binary, so that the recovery procedure's restart outlives the
//! command that does it. [`Fleet::stop_all`] ends them by their pid files.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::service::{Protocol, fault_file, pid_file};

/// One member of the fleet.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) tcp: bool,
    pub(crate) port: u16,
    pub(crate) tier: u8,
    pub(crate) needs: Vec<String>,
}

/// The services of the demo: name, whether it speaks TCP, tier, dependencies.
const MEMBERS: [(&str, bool, u8, &[&str]); 6] = [
    ("database", true, 1, &[]),
    ("cache", true, 2, &[]),
    ("authentication", false, 1, &["database"]),
    ("api-gateway", false, 1, &["authentication", "cache"]),
    ("dashboard", false, 3, &["api-gateway"]),
    ("reporting", false, 4, &["database"]),
];

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL: connections are refused.
    Kill,
    /// SIGSTOP: connections hang.
    Hang,
    /// It answers with an error.
    Break,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Kill, Self::Hang, Self::Break];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Break => "break",
        }
    }
}

/// The fleet, as `<state>/fleet.json` describes it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Fleet {
    pub(crate) state: PathBuf,
    pub(crate) members: Vec<Member>,
}

impl Fleet {
    /// Chooses free ports and writes the description; starts nothing.
    pub(crate) fn create(state: &Path) -> Result<Self> {
        std::fs::create_dir_all(state).with_context(|| format!("the folder {} can't be made", state.display()))?;
        let state = state.canonicalize()?;
        // Held together, so that no two get the same.
        let listeners: Vec<_> = MEMBERS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let members = MEMBERS
            .iter()
            .zip(&listeners)
            .map(|((name, tcp, tier, needs), listener)| {
                Ok(Member {
                    name: (*name).into(),
                    tcp: *tcp,
                    port: listener.local_addr()?.port(),
                    tier: *tier,
                    needs: needs.iter().map(|n| (*n).into()).collect(),
                })
            })
            .collect::<Result<_>>()?;
        let fleet = Self { state, members };
        std::fs::write(fleet.state.join("fleet.json"), serde_json::to_vec_pretty(&fleet)?)?;
        Ok(fleet)
    }

    /// The fleet that was created in this folder.
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let file = state.join("fleet.json");
        let text =
            std::fs::read(&file).with_context(|| format!("{} can't be read: is the demo running?", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a fleet", file.display()))
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members.iter().find(|m| m.name == name).with_context(|| format!("the fleet has no service {name:?}"))
    }

    fn pid(&self, name: &str) -> Option<Pid> {
        let text = std::fs::read_to_string(pid_file(&self.state, name)).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// Starts a service as a process of its own and waits until it listens.
    pub(crate) fn start(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        let _ = std::fs::remove_file(pid_file(&self.state, name));
        let protocol = if member.tcp { Protocol::Tcp } else { Protocol::Http };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["demo-service", "--name", name, "--port", &member.port.to_string()]);
        command.args(["--protocol", if protocol == Protocol::Tcp { "tcp" } else { "http" }]);
        command.arg("--state").arg(&self.state);
        for need in &member.needs {
            command.args(["--needs", &self.member(need)?.port.to_string()]);
        }
        // Its own process group: a terminal's Ctrl-C is for the demo, which then stops the fleet itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let log = std::fs::File::create(self.state.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{name} can't be started"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.pid(name).is_none() {
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(self.state.join(format!("{name}.log"))).unwrap_or_default();
                bail!("{name} ended with {status}: {}", log.trim());
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen after 10 s");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Reaped when it ends, so that a killed service leaves no zombie behind a running demo.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Ends a service, whatever state it is in.
    pub(crate) fn stop(&self, name: &str) {
        if let Some(pid) = self.pid(name) {
            // It may be gone already, which is what is wanted.
            let _ = kill(pid, Signal::SIGKILL);
            let deadline = Instant::now() + Duration::from_secs(2);
            while kill(pid, None).is_ok() && !is_zombie(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = std::fs::remove_file(pid_file(&self.state, name));
    }

    /// Ends what is left of a service, mends it, and starts it: what the recovery procedure does.
    pub(crate) fn restart(&self, name: &str) -> Result<()> {
        self.stop(name);
        match std::fs::remove_file(fault_file(&self.state, name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        self.start(name)
    }

    /// Breaks a service.
    pub(crate) fn inject(&self, name: &str, fault: Fault) -> Result<()> {
        self.member(name)?;
        let pid = || self.pid(name).with_context(|| format!("{name} is not running"));
        match fault {
            Fault::Kill => kill(pid()?, Signal::SIGKILL)?,
            Fault::Hang => kill(pid()?, Signal::SIGSTOP)?,
            Fault::Break => std::fs::write(fault_file(&self.state, name), "")?,
        }
        Ok(())
    }

    /// Ends every service.
    pub(crate) fn stop_all(&self) {
        for member in &self.members {
            self.stop(&member.name);
        }
    }

    /// The continuity plan over the fleet: a probe a second each, restart by procedure.
    pub(crate) fn plan(&self) -> Result<String> {
        let program = std::env::current_exe()?.canonicalize()?;
        let program = serde_json::to_string(&program)?;
        let state = serde_json::to_string(&self.state)?;
        let mut plan = format!(
            r#"# The demo's plan: written by `rebound demo`, read like any other.
name = "demo"
allow = [{program}]

[[tier]]
id = "tier-1"
name = "Critical"
severity = "critical"

[[tier]]
id = "tier-2"
name = "Important"
severity = "critical"

[[tier]]
id = "tier-3"
name = "Supporting"
severity = "warning"

[[tier]]
id = "tier-4"
name = "Deferrable"
severity = "info"

[[site]]
id = "primary"
purpose = "this machine"
recovery_time = "0s"
capacity = 1.0

[[policy]]
id = "default"
failures = 2
recoveries = 2
silent_after = "6m"  # as `--history` probes every five minutes while all is well
trigger = "auto"
intensity = 20
intensity_period = "1h"
backoff = "1s"
backoff_max = "10s"
backoff_reset = "1m"
verify_within = "15s"
notify = ["log"]

[[channel]]
id = "log"
kind = "log"

[[procedure]]
id = "restart"
name = "Restart a service"
concurrency = 4

[[procedure.step]]
id = "restart"
name = "End what is left of the process and start it anew"
command = [{program}, "demo-ctl", "restart", "{{service}}", "--state", {state}]
timeout = "15s"
retries = 1

[[procedure.step]]
id = "check"
name = "Wait for the first good answer"
needs = ["restart"]
wait_for_probe = true
timeout = "10s"
"#
        );
        for member in &self.members {
            let needs = serde_json::to_string(&member.needs)?;
            let (rto, rpo, method) = match member.tier {
                1 => ("1m", "1m", "active-passive"),
                2 => ("2m", "5m", "warm-standby"),
                3 => ("5m", "1h", "cold-standby"),
                _ => ("10m", "1d", "manual-restore"),
            };
            plan.push_str(&format!(
                r#"
[[service]]
id = "{name}"
name = "{name}"
tier = "tier-{tier}"
site = "primary"
depends_on = {needs}
rto = "{rto}"
rpo = "{rpo}"
method = "{method}"
procedure = "restart"

[[service.probe]]
id = "{name}"
every = "1s"
timeout = "800ms"
"#,
                name = member.name,
                tier = member.tier,
            ));
            if member.tcp {
                plan.push_str(&format!(
                    "tcp = \"127.0.0.1:{}\"\ndialogue = [{{ send = \"PING\\n\", expect = \"^PONG\" }}]\n",
                    member.port
                ));
            } else {
                plan.push_str(&format!("http = \"http://127.0.0.1:{}/health\"\n", member.port));
            }
        }
        Ok(plan)
    }
}

/// Whether a process has ended and only waits to be reaped.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
