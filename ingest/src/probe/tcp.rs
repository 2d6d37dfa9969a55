//! TCP probes: a connection, then turns of sending and expecting a line.
//!
//! As blackbox_exporter: in each turn lines are read until one matches; lines that don't are passed over. A last
//! line without an end counts when the peer closes. The whole dialogue may read [`MAX_DIALOGUE_BYTES`].

use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::TcpCheck;
use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::{Fault, Stage, connect};
use super::{Verdict, Wrong, wrong};

/// How much is read in one dialogue.
const MAX_DIALOGUE_BYTES: usize = 64 * 1024;

/// A compiled TCP check.
#[derive(Debug)]
pub(super) struct TcpProbe {
    address: String,
    dialogue: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    send: Option<String>,
    expect: Option<Regex>,
}

/// How the dialogue ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TcpEnd {
    /// Every turn went through.
    Completed,
    /// The peer closed in this turn, having said this last.
    Closed { turn: usize, last_line: String },
    /// The peer said too much in this turn without saying what was expected.
    TooMuch { turn: usize },
}

impl TcpProbe {
    pub(super) fn new(check: &TcpCheck) -> Result<Self, Wrong> {
        let turn = |exchange: &rebound_schemas::plan::Exchange| {
            let expect = exchange.expect.as_deref().map(Regex::new).transpose();
            Ok(Turn { send: exchange.send.clone(), expect: expect.map_err(|e| wrong("expect", e))? })
        };
        let dialogue = check.dialogue.iter().map(turn).collect::<Result<_, Wrong>>()?;
        Ok(Self { address: check.address.clone(), dialogue })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<TcpEnd, Fault> {
        let mut stream = connect(&self.address, stage).await?;
        stage.enter(Stage::WAITING);
        let fault = |e| Fault::from_error(&e, ErrorClass::Network);
        let mut lines = Lines::default();
        for (number, turn) in self.dialogue.iter().enumerate() {
            if let Some(text) = &turn.send {
                stream.write_all(text.as_bytes()).await.map_err(fault)?;
            }
            let Some(pattern) = &turn.expect else { continue };
            while !lines.find(pattern) {
                if lines.closed {
                    return Ok(TcpEnd::Closed { turn: number, last_line: lines.last });
                }
                if lines.read >= MAX_DIALOGUE_BYTES {
                    return Ok(TcpEnd::TooMuch { turn: number });
                }
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.map_err(fault)?;
                lines.push(&chunk[..n]);
            }
        }
        Ok(TcpEnd::Completed)
    }

    pub(super) fn judge(&self, end: &TcpEnd) -> Verdict {
        let expected = |turn: usize| match self.dialogue.get(turn).and_then(|t| t.expect.as_ref()) {
            Some(pattern) => format!("a line matching /{pattern}/ (turn {})", turn + 1),
            None => format!("turn {}", turn + 1),
        };
        match end {
            TcpEnd::Completed => Verdict::healthy(),
            TcpEnd::Closed { turn, last_line } => Verdict::failed(
                ErrorClass::DataIntegrity,
                format!("closed before {}; the last line was {last_line:?}", expected(*turn)),
            ),
            TcpEnd::TooMuch { turn } => Verdict::failed(
                ErrorClass::DataIntegrity,
                format!("{MAX_DIALOGUE_BYTES} bytes came without {}", expected(*turn)),
            ),
        }
    }
}

/// Bytes received, handed out line by line. Holds no more than what was read.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    start: usize,
    read: usize,
    closed: bool,
    last: String,
}

impl Lines {
    /// Adds what was read; nothing means that the peer closed.
    fn push(&mut self, bytes: &[u8]) {
        self.closed = bytes.is_empty();
        self.read += bytes.len();
        self.buffer.extend_from_slice(bytes);
    }

    /// Passes over lines until one matches; false if none so far does.
    fn find(&mut self, pattern: &Regex) -> bool {
        loop {
            let rest = &self.buffer[self.start..];
            let (line, next) = match rest.iter().position(|b| *b == b'\n') {
                Some(end) => (&rest[..end], end + 1),
                None if self.closed && !rest.is_empty() => (rest, rest.len()),
                None => return false,
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let found = pattern.is_match(line);
            if !found {
                self.last = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
            }
            self.start += next;
            if found {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{self, Turn, run, scripted, tcp_check};
    use super::*;
    use proptest::prelude::*;
    use rebound_schemas::event::Outcome;
    use rebound_schemas::plan::Check;

    #[test]
    fn lines_are_found_across_reads() {
        let find = |reads: &[&str], pattern: &str| {
            let pattern = Regex::new(pattern).unwrap();
            let mut lines = Lines::default();
            reads.iter().any(|text| {
                lines.push(text.as_bytes());
                lines.find(&pattern)
            })
        };
        assert!(find(&["220 re", "ady\r\n"], "^220 ready$"));
        assert!(find(&["noise\n", "more\n220\n"], "^220$"));
        assert!(!find(&["220"], "^220$"), "no line yet");
        assert!(find(&["220", ""], "^220$"), "closed");
        assert!(!find(&["a\nb\n", ""], "c"));
    }

    proptest! {
        /// However a stream is cut into reads, the same line is found.
        #[test]
        fn cutting_changes_nothing(text in "[ab\r\n]{0,40}", cut in 0..40usize) {
            let pattern = Regex::new("^ab$").unwrap();
            let whole = { let mut l = Lines::default(); l.push(text.as_bytes()); l.push(b""); l.find(&pattern) };
            let (a, b) = text.as_bytes().split_at(cut.min(text.len()));
            let mut lines = Lines::default();
            let mut found = false;
            for part in [a, b] {
                if !part.is_empty() { lines.push(part); found = found || lines.find(&pattern); }
            }
            lines.push(b"");
            found = found || lines.find(&pattern);
            prop_assert_eq!(found, whole);
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_dialogue_is_held() {
        let smtp =
            || vec![Turn::Send("220-hello\r\n220 ready\r\n"), Turn::Expect("EHLO x\r\n"), Turn::Send("250 fine\r\n")];
        let dialogue = [(None, Some("^220 ")), (Some("EHLO x\r\n"), Some("^250 "))];
        let server = scripted(smtp()).await;
        let found = run(Check::Tcp(tcp_check(&server.to_string(), &dialogue)), LONG).await;
        assert_eq!(found.outcome, Outcome::Healthy, "{found:?}");
        let server = scripted(smtp()).await;
        let wrong = [(None, Some("^220 ")), (Some("EHLO x\r\n"), Some("^354 "))];
        let found = run(Check::Tcp(tcp_check(&server.to_string(), &wrong)), LONG).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::DataIntegrity)));
        assert!(found.reason.as_deref().unwrap().contains("250 fine"), "{found:?}");
    }

    #[tokio::test]
    async fn connecting_is_enough_without_a_dialogue() {
        let server = scripted(vec![Turn::Hang]).await;
        let check = |address: String| Check::Tcp(tcp_check(&address, &[]));
        assert_eq!(run(check(server.to_string()), LONG).await.outcome, Outcome::Healthy);
        let found = run(check(testing::closed_port().await.to_string()), LONG).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Network)));
    }

    #[tokio::test]
    async fn silence_times_out_and_chatter_is_cut() {
        let mute = scripted(vec![Turn::Hang]).await;
        let dialogue = [(None, Some("^220 "))];
        let found = run(Check::Tcp(tcp_check(&mute.to_string(), &dialogue)), Duration::from_millis(200)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Timeout)));
        let chatter = scripted(vec![Turn::Flood]).await;
        let found = run(Check::Tcp(tcp_check(&chatter.to_string(), &dialogue)), LONG).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::DataIntegrity)));
    }
}
