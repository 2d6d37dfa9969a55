//! Probes: what is looked at, how, and when that fails.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Outcome;
use crate::ids::{ProbeId, ServiceId, SiteId};

/// A probe of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Its id.
    pub id: ProbeId,
    /// The service that it tells about.
    pub service: ServiceId,
    /// The site it looks from.
    pub site: Option<SiteId>,
    /// From one start to the next.
    pub every: Duration,
    /// When it fails for want of an answer; at most `every`.
    pub timeout: Duration,
    /// Slower than this is degraded.
    pub degraded_above: Option<Duration>,
    /// What it does.
    pub check: Check,
}

/// What a probe does. Semantics are those of blackbox_exporter where the two overlap.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// An HTTP request.
    Http(HttpCheck),
    /// A TCP connection with an optional dialogue.
    Tcp(TcpCheck),
    /// A TLS handshake and the certificate's remaining life.
    Tls(TlsCheck),
    /// A DNS question.
    Dns(DnsCheck),
    /// The gRPC health protocol.
    Grpc(GrpcCheck),
    /// A program's exit code.
    Command(CommandCheck),
}

impl Check {
    /// The kind as the plan writes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Dns(_) => "dns",
            Self::Grpc(_) => "grpc",
            Self::Command(_) => "command",
        }
    }
}

/// An HTTP request and what its answer must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// `http://` or `https://`.
    pub url: url::Url,
    /// GET by default.
    pub method: String,
    /// Sent as they are.
    pub headers: BTreeMap<String, String>,
    /// Sent body.
    pub body: Option<String>,
    /// Statuses that pass; empty means 200 to 299.
    pub status: Vec<u16>,
    /// Followed (at most 10) or judged as they are.
    pub follow_redirects: bool,
    /// The body must match every one of these regular expressions.
    pub body_matches: Vec<String>,
    /// The body must match none of these.
    pub body_not_matches: Vec<String>,
    /// These headers must be there and match.
    pub header_matches: BTreeMap<String, String>,
    /// Degraded when the certificate expires within this.
    pub expiry_warning: Option<Duration>,
    /// PEM file of the authorities to trust besides the system's.
    pub ca_file: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A TCP connection and a dialogue over it.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpCheck {
    /// `host:port`.
    pub address: String,
    /// Exchanged in turn.
    pub dialogue: Vec<Exchange>,
}

/// One turn of a TCP dialogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Sent first, as written (no line end is added).
    pub send: Option<String>,
    /// Then a line must match this regular expression.
    pub expect: Option<String>,
}

/// A TLS handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsCheck {
    /// `host:port`.
    pub address: String,
    /// The name asked for (SNI) and verified; the address's host by default.
    pub server_name: Option<String>,
    /// Degraded when the certificate expires within this.
    pub expiry_warning: Option<Duration>,
    /// PEM file of the authorities to trust besides the system's.
    pub ca_file: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A DNS question.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsCheck {
    /// The name asked for.
    pub name: String,
    /// `A`, `AAAA`, `CNAME`, `MX`, `NS`, `SOA`, `SRV`, `TXT`, `PTR`.
    pub record: String,
    /// The server asked, as `host:port`.
    pub server: String,
    /// The answer codes that pass; `NOERROR` by default.
    pub rcode: Vec<String>,
    /// At least one answer must match each of these regular expressions.
    pub answers_match: Vec<String>,
}

/// The gRPC health protocol (`grpc.health.v1.Health/Check`).
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcCheck {
    /// `http://host:port` or `https://host:port`.
    pub url: url::Url,
    /// The service asked about; empty for the server as a whole.
    pub service: String,
}

/// A program's exit code: 0 healthy, 1 degraded, anything else failed, unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandCheck {
    /// The program (an absolute path from the plan's `allow` list) and its arguments; no shell.
    pub argv: Vec<String>,
    /// What exit codes mean; any that isn't listed means failed.
    pub exit_codes: BTreeMap<i32, Outcome>,
}
