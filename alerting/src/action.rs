//! Executes one action of a step: a program or an HTTP request, each with an end, a cap on its output and a verdict.
//!
//! A program gets exactly its arguments and environment, no shell, no standard input, and a process group of its own,
//! which is killed when its time is over, when it is called off, and when the future is dropped. Waiting for probes
//! is [`crate::runner`]'s, as it needs the stream of observations. Nothing here is journalled or retried.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rebound_schemas::event::StepOutcome;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::channel::guard;

/// Output kept of a step, in bytes: the end of what a program printed, the beginning of what a server answered.
pub const OUTPUT_BYTES: usize = 16 * 1024;

/// After a program has ended, its output is waited for this long: a service that it started may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(250);

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionResult {
    /// Succeeded, failed or timed out.
    pub outcome: StepOutcome,
    /// The exit code (128 + n if signal n ended it) or the HTTP status; none if it never came so far.
    pub code: Option<i32>,
    /// What it printed or answered, at most [`OUTPUT_BYTES`] and a line about what was left out.
    pub output: Option<String>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

impl ActionResult {
    pub(crate) fn succeeded() -> Self {
        Self { outcome: StepOutcome::Succeeded, code: None, output: None, error: None }
    }

    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self { outcome: StepOutcome::Failed, error: Some(error.into()), ..Self::succeeded() }
    }

    pub(crate) fn timed_out(error: impl Into<String>) -> Self {
        Self { outcome: StepOutcome::TimedOut, ..Self::failed(error) }
    }
}

/// Limits of one execution.
#[derive(Debug)]
pub struct Limits<'a> {
    /// How long it may take.
    pub timeout: Duration,
    /// Between asking a program's group to end (SIGTERM) and ending it (SIGKILL).
    pub grace: Duration,
    /// Ends it early, at once.
    pub cancel: &'a CancellationToken,
}

/// The program to execute, if the plan allows it.
///
/// `argv[0]` must be an absolute path that names the same directory entry as one on the list. Symbolic links in the
/// directories are resolved (`/bin/x` is `/usr/bin/x` where those are one), but the last part of the path must be
/// the same: with programs that are links to one binary and act by their name (busybox), allowing one must not allow
/// them all.
pub fn allowed_program(program: &str, allow: &[String]) -> Result<PathBuf, String> {
    let path = Path::new(program);
    if !path.is_absolute() {
        return Err(format!("{program} is not an absolute path: write where the program is"));
    }
    let entry = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let wanted = entry(path).ok_or_else(|| format!("{program} is not there"))?;
    if allow.iter().any(|allowed| entry(Path::new(allowed)).as_ref() == Some(&wanted)) {
        Ok(wanted)
    } else {
        Err(format!("{program} is not on the plan's allow list: add it there if it may be run"))
    }
}

/// Runs a program to its end.
///
/// | it | outcome | code |
/// |---|---|---|
/// | exits with 0 | succeeded | 0 |
/// | exits with n | failed | n |
/// | is ended by signal n | failed | 128 + n |
/// | does not end in time: its group is killed | timed out | none |
/// | is called off: its group is killed | failed | none |
/// | can't be started | failed | none |
///
/// When it ends by itself, what it left running (a service that it started) is left alone; its further output is read
/// and thrown away for as long as Rebound runs, so that it is not ended by a closed pipe.
pub async fn run_command(
    argv: &[String],
    env: &BTreeMap<String, String>,
    allow: &[String],
    limits: Limits<'_>,
) -> ActionResult {
    run_command_with(argv, env, allow, None, limits).await
}

/// As [`run_command`], with `input` on standard input. A program need not read it.
pub async fn run_command_with(
    argv: &[String],
    env: &BTreeMap<String, String>,
    allow: &[String],
    input: Option<Vec<u8>>,
    limits: Limits<'_>,
) -> ActionResult {
    let Some((program, arguments)) = argv.split_first() else {
        return ActionResult::failed("there is no program to run: argv is empty");
    };
    let path = match allowed_program(program, allow) {
        Ok(path) => path,
        Err(error) => return ActionResult::failed(error),
    };
    let mut command = Command::new(&path);
    command.args(arguments).env_clear().envs(env).process_group(0);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return ActionResult::failed(format!("{program} could not be started: {error}")),
    };
    let group = Group::of(&child);
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // Ends with the pipe: when the program has read all, closed it, or is gone.
        tokio::spawn(async move {
            let _ = pipe.write_all(&input).await;
        });
    }
    let tail = Arc::new(Mutex::new(Tail::default()));
    let mut pumps = [pump(child.stdout.take(), &tail), pump(child.stderr.take(), &tail)];

    let ended = tokio::select! {
        status = child.wait() => Ended::ByItself(status),
        () = tokio::time::sleep(limits.timeout) => Ended::Late,
        () = limits.cancel.cancelled() => Ended::CalledOff,
    };
    let mut result = match ended {
        Ended::ByItself(Ok(status)) => {
            group.leave_alone();
            judge(program, status)
        }
        Ended::ByItself(Err(error)) => ActionResult::failed(format!("{program} could not be waited for: {error}")),
        Ended::Late => {
            group.signal(Signal::SIGTERM);
            // Its own end is not the whole group's, so the group is killed afterwards in any case.
            tokio::select! {
                _ = child.wait() => {}
                () = tokio::time::sleep(limits.grace) => {}
                () = limits.cancel.cancelled() => {}
            }
            drop(group);
            ActionResult::timed_out(format!(
                "{program} did not end within {} and was killed",
                humantime(limits.timeout)
            ))
        }
        Ended::CalledOff => {
            drop(group);
            ActionResult::failed(format!("{program} was called off and killed"))
        }
    };
    // A killed child is reaped here, and by the runtime should even that take too long.
    let _ = tokio::time::timeout(OUTPUT_GRACE, child.wait()).await;
    let everything = futures::future::join_all(pumps.iter_mut());
    let _ = tokio::time::timeout(OUTPUT_GRACE, everything).await;
    result.output = tail.lock().unwrap_or_else(PoisonError::into_inner).close();
    result
}

enum Ended {
    ByItself(std::io::Result<std::process::ExitStatus>),
    Late,
    CalledOff,
}

fn judge(program: &str, status: std::process::ExitStatus) -> ActionResult {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => ActionResult { code: Some(0), ..ActionResult::succeeded() },
        (Some(code), _) => {
            ActionResult { code: Some(code), ..ActionResult::failed(format!("{program} exited with {code}")) }
        }
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            let error = format!("{program} was ended by signal {signal}");
            ActionResult { code: Some(128 + signal), ..ActionResult::failed(error) }
        }
    }
}

/// Duration in the words of the plan: `90s`, `1500ms`.
pub(crate) fn humantime(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// A child's process group. Dropping it kills the group, unless it was left alone.
struct Group {
    id: Option<Pid>,
}

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self { id: child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // The group may be gone by now, which is what was wanted.
            let _ = killpg(id, signal);
        }
    }

    fn leave_alone(mut self) {
        self.id = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    dropped: u64,
    closed: bool,
}

impl Tail {
    fn push(&mut self, chunk: &[u8]) {
        if self.closed {
            return;
        }
        let over = (self.bytes.len() + chunk.len()).saturating_sub(OUTPUT_BYTES);
        let from_held = over.min(self.bytes.len());
        self.bytes.drain(..from_held);
        self.bytes.extend(&chunk[over - from_held..]);
        self.dropped += over as u64;
    }

    /// What is there; later bytes are thrown away.
    fn close(&mut self) -> Option<String> {
        self.closed = true;
        let bytes = Vec::from(std::mem::take(&mut self.bytes));
        let text = String::from_utf8_lossy(&bytes);
        match (self.dropped, text.is_empty()) {
            (0, true) => None,
            (0, false) => Some(text.into_owned()),
            (dropped, _) => Some(format!("[{dropped} bytes before this were left out]\n{text}")),
        }
    }
}

fn pump<R: AsyncRead + Unpin + Send + 'static>(pipe: Option<R>, tail: &Arc<Mutex<Tail>>) -> JoinHandle<()> {
    let tail = Arc::clone(tail);
    tokio::spawn(async move {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; 8 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..read]);
        }
    })
}

/// An HTTP request, as the plan's action says it.
#[derive(Debug)]
pub struct Request<'a> {
    /// GET, POST…
    pub method: &'a str,
    /// Where.
    pub url: &'a str,
    /// Sent headers.
    pub headers: &'a BTreeMap<String, String>,
    /// Sent body.
    pub body: Option<&'a str>,
    /// Whether private and loopback addresses may be reached.
    pub allow_private: bool,
}

/// Makes an HTTP request: 2xx succeeds, any other status fails (redirects are not followed), the code is the status.
pub async fn run_http(request: Request<'_>, limits: Limits<'_>) -> ActionResult {
    let late = || ActionResult::timed_out(format!("there was no complete answer within {}", humantime(limits.timeout)));
    tokio::select! {
        result = exchange(&request, limits.timeout) => result.unwrap_or_else(|error| match error {
            HttpFault::Late => late(),
            HttpFault::Other(error) => ActionResult::failed(error),
        }),
        () = tokio::time::sleep(limits.timeout) => late(),
        () = limits.cancel.cancelled() => ActionResult::failed("the request was called off"),
    }
}

enum HttpFault {
    Late,
    Other(String),
}

impl From<reqwest::Error> for HttpFault {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Late } else { Self::Other(guard::describe(error)) }
    }
}

impl From<guard::GuardError> for HttpFault {
    fn from(error: guard::GuardError) -> Self {
        Self::Other(error.to_string())
    }
}

async fn exchange(request: &Request<'_>, timeout: Duration) -> Result<ActionResult, HttpFault> {
    let url = guard::check_url(request.url, request.allow_private)?;
    let method = reqwest::Method::from_bytes(request.method.as_bytes())
        .map_err(|_| HttpFault::Other(format!("{:?} is not an HTTP method", request.method)))?;
    let mut builder = guard::client(request.allow_private, timeout)?.request(method, url);
    for (name, value) in request.headers {
        builder = builder.header(name, value);
    }
    if let Some(body) = request.body {
        builder = builder.body(body.to_owned());
    }
    let response = builder.send().await?;
    let status = response.status();
    let body = guard::read_capped(response, OUTPUT_BYTES).await?;
    let result = if status.is_success() {
        ActionResult::succeeded()
    } else if status.is_redirection() {
        ActionResult::failed(format!("the server answered {status}; redirects are not followed"))
    } else {
        ActionResult::failed(format!("the server answered {status}"))
    };
    Ok(ActionResult { code: Some(i32::from(status.as_u16())), output: (!body.is_empty()).then_some(body), ..result })
}

#[cfg(test)]
mod tests;
