//! Command probes: a program's exit code, by default 0 healthy, 1 degraded, anything else failed.
//!
//! No shell: an argument array whose program is on the plan's allow-list, with links resolved on both sides. The
//! environment is empty, input is closed, output is read up to [`MAX_OUTPUT_BYTES`], and the program has a process
//! group of its own, which is killed when the run ends, so that nothing it started outlives it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rebound_schemas::event::{ErrorClass, Outcome};
use rebound_schemas::plan::CommandCheck;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::fault::{Fault, Stage};
use super::{Verdict, Wrong, wrong};

/// How much of each output stream is kept; the rest is read and dropped, so that the program is not held up.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// A compiled command check.
#[derive(Debug)]
pub(super) struct CommandProbe {
    /// With links resolved: what was allowed is what is run, whatever a link says later.
    program: PathBuf,
    argv: Vec<String>,
    exit_codes: Vec<(i32, Outcome)>,
}

/// How the program ended.
#[derive(Debug)]
pub(super) struct CommandAnswer {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to the error stream, or, if nothing, to the output.
    pub output: String,
}

impl CommandProbe {
    pub(super) fn new(check: &CommandCheck, allow: &[String]) -> Result<Self, Wrong> {
        let named =
            check.argv.first().ok_or_else(|| wrong("argv", "is empty: expected a program and its arguments"))?;
        if !Path::new(named).is_absolute() {
            return Err(wrong("argv", format!("{named:?} is not an absolute path")));
        }
        let program = std::fs::canonicalize(named).map_err(|e| wrong("argv", format!("{named}: {e}")))?;
        let allowed = |entry: &String| std::fs::canonicalize(entry).is_ok_and(|path| path == program);
        if !allow.iter().any(allowed) {
            let reason = format!("{named} is not on the plan's allow list: add it to `allow`");
            return Err(wrong("argv", reason));
        }
        let exit_codes = match check.exit_codes.is_empty() {
            true => vec![(0, Outcome::Healthy), (1, Outcome::Degraded)],
            false => check.exit_codes.iter().map(|(code, outcome)| (*code, *outcome)).collect(),
        };
        Ok(Self { program, argv: check.argv.clone(), exit_codes })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<CommandAnswer, Fault> {
        stage.enter(Stage::WAITING);
        let mut command = Command::new(&self.program);
        command.arg0(&self.argv[0]).args(&self.argv[1..]);
        command.env_clear().current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            let Fault { class, reason } = Fault::from_error(&e, ErrorClass::Configuration);
            Fault::new(class, format!("can't run {}: {reason}", self.program.display()))
        })?;
        // Declared before anything is awaited: cut off at its timeout, this future is dropped, and the group with it.
        let group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outputs = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
        let ended = async {
            let status = child.wait().await;
            // Whoever the program left behind would hold its output open.
            drop(group);
            status
        };
        let (status, _) = tokio::join!(ended, outputs);
        let status = status.map_err(|e| Fault::from_error(&e, ErrorClass::Unknown))?;
        let said = if err.iter().all(u8::is_ascii_whitespace) { out } else { err };
        Ok(CommandAnswer {
            code: status.code(),
            signal: signal_of(status),
            output: String::from_utf8_lossy(&said).into_owned(),
        })
    }

    pub(super) fn judge(&self, answer: &CommandAnswer) -> Verdict {
        let first_line = answer.output.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing was printed");
        let Some(code) = answer.code else {
            let signal = answer.signal.unwrap_or_default();
            return Verdict::failed(ErrorClass::Unknown, format!("ended by signal {signal}: {first_line}"));
        };
        let outcome = self.exit_codes.iter().find(|(c, _)| *c == code).map_or(Outcome::Failed, |(_, o)| *o);
        if outcome == Outcome::Healthy {
            return Verdict::healthy();
        }
        Verdict::not_healthy(outcome, ErrorClass::Unknown, format!("exit code {code}: {first_line}"))
    }
}

fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// Reads to the end, keeping the beginning.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..n.min(MAX_OUTPUT_BYTES - kept.len())]);
    }
}

/// Kills the process group when dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Nobody left in the group is the usual case.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::testing::run_allowed;
    use super::*;
    use rebound_schemas::plan::Check;

    const SH: &str = "/bin/sh";
    const LONG: Duration = Duration::from_secs(30);

    fn check(argv: &[&str]) -> CommandCheck {
        CommandCheck { argv: argv.iter().map(ToString::to_string).collect(), exit_codes: BTreeMap::new() }
    }

    async fn sh(script: &str, timeout: Duration) -> rebound_schemas::event::ProbeCompleted {
        run_allowed(Check::Command(check(&[SH, "-c", script])), timeout, &[SH.to_owned()]).await
    }

    #[test]
    fn exit_codes_decide() {
        let judge = |codes: &[(i32, Outcome)], code, signal| {
            let probe = CommandProbe { program: SH.into(), argv: vec![], exit_codes: codes.to_vec() };
            probe.judge(&CommandAnswer { code, signal, output: "\n disk full\nmore".into() })
        };
        let usual = [(0, Outcome::Healthy), (1, Outcome::Degraded)];
        assert_eq!(judge(&usual, Some(0), None).outcome, Outcome::Healthy);
        assert_eq!(judge(&usual, Some(1), None).outcome, Outcome::Degraded);
        let failed = judge(&usual, Some(2), None);
        assert_eq!((failed.outcome, failed.reason.as_deref()), (Outcome::Failed, Some("exit code 2:  disk full")));
        assert_eq!(judge(&[(3, Outcome::Healthy)], Some(3), None).outcome, Outcome::Healthy);
        assert_eq!(judge(&[(3, Outcome::Healthy)], Some(0), None).outcome, Outcome::Failed);
        assert_eq!(judge(&usual, None, Some(9)).reason.as_deref(), Some("ended by signal 9:  disk full"));
    }

    #[test]
    fn only_allowed_programs_compile() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(SH, &link).unwrap();
        let link = link.to_str().unwrap();
        let refused = |argv: &[&str], allow: &[&str]| {
            let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
            CommandProbe::new(&check(argv), &allow).err().map(|w| (w.key, w.reason))
        };
        assert_eq!(refused(&[SH], &[SH]), None);
        assert_eq!(refused(&[link], &[SH]), None, "a link to what is allowed");
        assert_eq!(refused(&[SH], &[link]), None, "an allowed link's target");
        assert!(refused(&[SH], &[]).unwrap().1.contains("allow list"));
        assert!(refused(&[SH], &["/bin/cat"]).unwrap().1.contains("allow list"));
        assert!(refused(&["sh"], &["sh"]).unwrap().1.contains("absolute"));
        assert!(refused(&["/bin/../bin/nothing-here"], &[SH]).is_some());
        assert_eq!(refused(&[], &[SH]).unwrap().0, "argv");
    }

    #[tokio::test]
    async fn a_real_program_is_run() {
        assert_eq!(sh("exit 0", LONG).await.outcome, Outcome::Healthy);
        let found = sh("echo slow >&2; exit 1", LONG).await;
        assert_eq!((found.outcome, found.reason.as_deref()), (Outcome::Degraded, Some("exit code 1: slow")));
        let found = sh("kill -9 $$", LONG).await;
        assert!(found.reason.unwrap().contains("signal 9"));
        let found = sh("/usr/bin/env >&2; pwd; read x; exit 7", LONG).await;
        let reason = found.reason.unwrap();
        assert!(reason.starts_with("exit code 7: PWD=/"), "empty but for what the shell sets: {reason}");
        assert_eq!(sh("head -c 3000000 /dev/zero; exit 0", LONG).await.outcome, Outcome::Healthy, "drained");
    }

    #[tokio::test]
    async fn a_hanging_program_dies_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 600 & echo $! > {0}.tmp; echo $$ >> {0}.tmp; mv {0}.tmp {0}; wait", pids.display());
        let found = sh(&script, Duration::from_secs(2)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Timeout)));
        let text = std::fs::read_to_string(&pids).unwrap();
        let pids: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(pids.len(), 2);
        for pid in pids {
            wait_until_gone(pid).await;
        }
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_neither_holds_it_up_nor_lives_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let found = sh(&format!("sleep 600 & echo $! > {}; exit 0", file.display()), LONG).await;
        assert_eq!(found.outcome, Outcome::Healthy, "{found:?}");
        wait_until_gone(std::fs::read_to_string(file).unwrap().trim().parse().unwrap()).await;
    }

    /// Gone, or a zombie that waits for its new parent.
    async fn wait_until_gone(pid: i32) {
        for _ in 0..600 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z') {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("process {pid} is still there");
    }
}
