//! What the integration tests share: the real program as a child process, its HTTP side, and waiting for things.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program under test: this build's, or the one that `REBOUND_TEST_BINARY` names.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("REBOUND_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_rebound").into(), PathBuf::from)
}

/// Brokers of a real Kafka, or `None` with a line that says what was not run.
pub(crate) fn kafka(test: &str) -> Option<String> {
    let brokers = std::env::var("REBOUND_TEST_KAFKA").ok().filter(|b| !b.is_empty());
    if brokers.is_none() {
        // Past the test harness's capture: who runs the suite must see it.
        let _ = writeln!(std::io::stderr(), "KAFKA NOT RUN: {test} (set REBOUND_TEST_KAFKA, see tests/kafka/kafka.sh)");
    }
    brokers
}

/// Runs the program to its end.
pub(crate) fn rebound(arguments: &[&str], folder: &Path) -> Output {
    Command::new(program())
        .args(arguments)
        .current_dir(folder)
        .env_remove("REBOUND_LOG")
        .output()
        .expect("rebound runs")
}

/// Standard output of a run that must succeed.
pub(crate) fn succeeds(arguments: &[&str], folder: &Path) -> String {
    let output = rebound(arguments, folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "rebound {arguments:?} ended with {}:\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Standard error of a run that must fail with this exit code.
pub(crate) fn fails(arguments: &[&str], folder: &Path, code: i32) -> String {
    let output = rebound(arguments, folder);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "rebound {arguments:?}:\n{stderr}");
    stderr
}

/// Writes a program that a plan may run.
pub(crate) fn script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Held by tests that run whole pipelines: one at a time, so that on a small machine none starves the others.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A number of one's own from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Rounds of a test that goes on as long as one likes: `REBOUND_TEST_ROUNDS`, else CI's few.
pub(crate) fn rounds(few: usize) -> usize {
    setting("REBOUND_TEST_ROUNDS").and_then(|rounds| usize::try_from(rounds).ok()).unwrap_or(few)
}

/// What random choices follow from: `REBOUND_TEST_SEED`, else another each time. Tests print it.
pub(crate) fn seed() -> u64 {
    setting("REBOUND_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()))
}

/// SplitMix64: repeatable without a dependency.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).for_each(|n| all.swap(n, self.below(n + 1)));
    }
}

/// Waits until `what` holds, two minutes at most: generous, since nothing is timed by it.
pub(crate) fn wait_for<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited two minutes for {name}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running `rebound`, killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Running {
    /// Starts it with `arguments`, listening on `port`; its log goes to `<folder>/<name>.stderr`.
    pub(crate) fn start(folder: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_on("127.0.0.1", folder, name, arguments, environment)
    }

    /// [`Running::start`] on another address than loopback's.
    pub(crate) fn start_on(
        address: &str,
        folder: &Path,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let log = folder.join(format!("{name}.stderr"));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(program())
            .args(arguments)
            .current_dir(folder)
            .env("REBOUND_HTTP__LISTEN", format!("{address}:{port}"))
            .env("REBOUND_INSTANCE", name)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("rebound starts");
        Self { child, port, log }
    }

    /// Waits until `/readyz` says so.
    pub(crate) fn ready(mut self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !matches!(self.get("/readyz"), Some((200, _))) {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("rebound ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not ready after 90 s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process is there");
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("a child").code()
    }

    /// Status and body of a GET, if it answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    /// Status and body of a POST, if it answers.
    pub(crate) fn post(&self, path: &str, content_type: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
    }

    fn request(&self, request: &str) -> Option<(u16, String)> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
