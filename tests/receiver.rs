//! A webhook receiver that behaves as badly as those in the field: it says 5xx, hangs, or takes a message and drops
//! the connection. It drops repeats by their key, as a good one does, and remembers what it was told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// What it does with the first requests of a message; each further one it takes.
///
/// | misdeed | the message is taken | answer |
/// |---|---|---|
/// | `None` | yes | 200 |
/// | `Refuse` | no | 500, twice |
/// | `Deny` | yes | 503 |
/// | `Drop` | yes | none: the connection is closed |
/// | `Hang` | yes | none in time |
#[derive(Debug, Clone, Copy)]
enum Misdeed {
    None,
    Refuse,
    Deny,
    Drop,
    Hang,
}

const MISDEEDS: [Misdeed; 5] = [Misdeed::Drop, Misdeed::Refuse, Misdeed::None, Misdeed::Hang, Misdeed::Deny];

/// One message, by its key.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Its number among all, which chooses the misdeed: so each is seen, whatever the order.
    number: usize,
    /// How often it was posted.
    pub(crate) requests: usize,
    /// Every different text under the key that was taken: one, if what a message tells never changes.
    pub(crate) bodies: Vec<Value>,
}

/// Listens on loopback until dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    address: std::net::SocketAddr,
    messages: Arc<Mutex<BTreeMap<String, Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Starts one whose `hang` is longer than the channel waits.
    pub(crate) fn start(hang: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (messages, stop) = (Arc::<Mutex<BTreeMap<String, Message>>>::default(), Arc::new(AtomicBool::new(false)));
        let (taken, stopping) = (messages.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let taken = taken.clone();
                // A connection each, so that one that hangs holds up no other. Clients that die leave theirs.
                std::thread::spawn(move || answer(stream, &taken, hang));
            }
        });
        Self { url: format!("http://{address}/hook"), address, messages, stop, thread: Some(thread) }
    }

    /// What it was told so far, by key.
    pub(crate) fn messages(&self) -> MutexGuard<'_, BTreeMap<String, Message>> {
        locked(&self.messages)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked(messages: &Mutex<BTreeMap<String, Message>>) -> MutexGuard<'_, BTreeMap<String, Message>> {
    messages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, messages: &Mutex<BTreeMap<String, Message>>, hang: Duration) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    // Connections are kept alive, so that several messages may come by one.
    while let Some((key, body)) = request(&mut stream) {
        let misdeed = {
            let mut messages = locked(messages);
            let number = messages.len();
            let message = messages.entry(key).or_insert_with(|| Message { number, ..Message::default() });
            let misdeed = match (MISDEEDS[message.number % MISDEEDS.len()], message.requests) {
                (misdeed, 0) | (misdeed @ Misdeed::Refuse, 1) => misdeed,
                _ => Misdeed::None,
            };
            message.requests += 1;
            if !matches!(misdeed, Misdeed::Refuse) && !message.bodies.contains(&body) {
                message.bodies.push(body);
            }
            misdeed
        };
        let status = match misdeed {
            Misdeed::None => "200 OK",
            Misdeed::Refuse => "500 Internal Server Error",
            Misdeed::Deny => "503 Service Unavailable",
            Misdeed::Drop => return None,
            Misdeed::Hang => {
                std::thread::sleep(hang);
                return None;
            }
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
    None
}

/// The idempotency key and the body of the next request; `None` when there is none.
pub(crate) fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((header("idempotency-key")?, serde_json::from_slice(&body).ok()?))
}
