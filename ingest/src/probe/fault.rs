//! What goes wrong on the way to an answer, and which error class it belongs to.
//!
//! Clients wrap the true cause several layers deep, so [`Fault::from_error`] walks an error's chain and classes it
//! by the first cause that it knows: the operating system's error number or rustls' own error.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rebound_schemas::event::ErrorClass;

/// A run that got no answer to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Coarsely.
    pub class: ErrorClass,
    /// In words.
    pub reason: String,
}

/// Layers of the clients that only say that there is a cause beneath them.
const WRAPPINGS: [&str; 4] =
    ["error sending request", "client error (Connect)", "client error (SendRequest)", "transport error"];

impl Fault {
    pub(super) fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    /// The run was cut off at its timeout, in this stage.
    pub(super) fn timeout(stage: &Stage, after: Duration) -> Self {
        Self::new(ErrorClass::Timeout, format!("timed out after {after:?} while {}", stage.words()))
    }

    /// The class of an error and its chain in one line; `otherwise` is the class of causes that say nothing.
    pub(super) fn from_error(error: &(dyn Error + 'static), otherwise: ErrorClass) -> Self {
        let mut class = None;
        let mut reason = String::new();
        let mut next = Some(error);
        while let Some(cause) = next {
            class = class.or_else(|| class_of(cause));
            let text = cause.to_string();
            let text = text.split_once(" (os error ").map_or(text.as_str(), |(words, _)| words);
            next = cause.source();
            let wraps = next.is_some() && WRAPPINGS.contains(&text);
            // A layer that repeats its cause says nothing new.
            if !text.is_empty() && !wraps && !reason.contains(text) {
                reason = if reason.is_empty() { text.to_owned() } else { format!("{reason}: {text}") };
            }
        }
        Self::new(class.unwrap_or(otherwise), reason)
    }
}

fn class_of(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    if error.is::<rustls::Error>() {
        return Some(ErrorClass::Security);
    }
    let io = error.downcast_ref::<io::Error>()?;
    if let Some(inner) = io.get_ref() {
        // `source` of such an error skips the error within, so it is looked at here.
        if let Some(class) = class_of(inner) {
            return Some(class);
        }
    }
    if let Some(number) = io.raw_os_error()
        && let Some(class) = class_of_errno(nix::errno::Errno::from_raw(number))
    {
        return Some(class);
    }
    match io.kind() {
        io::ErrorKind::TimedOut => Some(ErrorClass::Timeout),
        io::ErrorKind::PermissionDenied => Some(ErrorClass::Security),
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => Some(ErrorClass::ResourceConstraint),
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::UnexpectedEof => Some(ErrorClass::Network),
        _ => None,
    }
}

fn class_of_errno(number: nix::errno::Errno) -> Option<ErrorClass> {
    use nix::errno::Errno;
    match number {
        // These are about this machine, not the target: its own limits are what is short.
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::EADDRNOTAVAIL => {
            Some(ErrorClass::ResourceConstraint)
        }
        _ => None,
    }
}

/// How far a run has come, so that a timeout can say where it was stuck.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

/// The stages' words, indexed by the constants below.
const WORDS: [&str; 4] = ["connecting", "resolving the name", "shaking hands", "waiting for the answer"];

impl Stage {
    pub(super) const CONNECTING: u8 = 0;
    pub(super) const RESOLVING: u8 = 1;
    pub(super) const HANDSHAKE: u8 = 2;
    pub(super) const WAITING: u8 = 3;

    pub(super) fn enter(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    fn words(&self) -> &'static str {
        WORDS.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }
}

/// Connects over TCP: resolves `host:port` and tries each address in turn.
pub(super) async fn connect(address: &str, stage: &Stage) -> Result<tokio::net::TcpStream, Fault> {
    stage.enter(Stage::RESOLVING);
    let addresses: Vec<_> = tokio::net::lookup_host(address)
        .await
        .map_err(|e| {
            Fault::new(Fault::from_error(&e, ErrorClass::Network).class, format!("can't resolve {address}: {e}"))
        })?
        .collect();
    stage.enter(Stage::CONNECTING);
    let stream = tokio::net::TcpStream::connect(&addresses[..]).await.map_err(|e| {
        let Fault { class, reason } = Fault::from_error(&e, ErrorClass::Network);
        Fault::new(class, format!("can't connect to {address}: {reason}"))
    })?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_innermost_known_cause_decides() {
        let class = |error: io::Error| Fault::from_error(&Outer(error), ErrorClass::Unknown).class;
        assert_eq!(class(io::ErrorKind::ConnectionRefused.into()), ErrorClass::Network);
        assert_eq!(class(io::ErrorKind::TimedOut.into()), ErrorClass::Timeout);
        assert_eq!(class(io::Error::from_raw_os_error(24)), ErrorClass::ResourceConstraint, "EMFILE");
        assert_eq!(class(io::Error::other("what")), ErrorClass::Unknown);
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert_eq!(class(io::Error::new(io::ErrorKind::InvalidData, tls)), ErrorClass::Security);
    }

    #[test]
    fn the_chain_is_told_once() {
        let fault = Fault::from_error(&Outer(io::Error::other("no luck")), ErrorClass::Unknown);
        assert_eq!(fault.reason, "request failed: no luck");
    }

    #[test]
    fn what_wraps_a_cause_and_says_nothing_is_left_out() {
        #[derive(Debug, thiserror::Error)]
        #[error("error sending request")]
        struct Sending(#[source] io::Error);
        let fault = Fault::from_error(&Sending(io::Error::from_raw_os_error(111)), ErrorClass::Unknown);
        assert_eq!(fault, Fault::new(ErrorClass::Network, "Connection refused"));
    }

    #[test]
    fn a_timeout_says_where_it_was_stuck() {
        let stage = Stage::default();
        stage.enter(Stage::HANDSHAKE);
        let fault = Fault::timeout(&stage, Duration::from_secs(2));
        assert_eq!(fault, Fault::new(ErrorClass::Timeout, "timed out after 2s while shaking hands"));
    }
}
