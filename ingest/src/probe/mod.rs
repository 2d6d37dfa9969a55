//! Probes: each looks at one service once and tells what it found.
//!
//! A probe is compiled once ([`Prober::new`]: regular expressions, clients, the command allow-list) and then run
//! again and again. A run has two halves: the kind's shell talks to the target and answers what it *saw*, and
//! [`judge`], which is pure, says what that *means*. One attempt, no retry: a flaky target must look flaky.
//! [`scheduler`] runs all of a plan's probes on time and puts what they found on the bus.

mod command;
mod dns;
mod fault;
mod grpc;
mod http;
mod schedule;
pub mod scheduler;
mod tcp;
#[cfg(test)]
mod testing;
mod tls;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{ErrorClass, Outcome, ProbeCompleted};
use rebound_schemas::ids::IdError;
use rebound_schemas::plan::{Check, Probe};
use rebound_schemas::{ProbeId, ServiceId, SiteId};
use tokio::time::Instant;

use crate::bus::BusError;
use fault::{Fault, Stage};
use trust::Chain;

pub use scheduler::{ProbeMetrics, ProbeSettings, run_probes};

/// Longest `reason` of a verdict, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 300;

/// Why probes can't be run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The plan describes a probe that can't be built.
    #[error("probe {probe}: {key}: {reason}")]
    Setting {
        /// Which probe.
        probe: ProbeId,
        /// The key in the plan.
        key: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The instance's name can't be part of an event's source.
    #[error("the instance name can't be part of an event source: {0}")]
    Instance(#[source] IdError),
    /// The bus refused results for good.
    #[error("{pending} or more probe results could not be put on the bus")]
    Bus {
        /// Results in the refused batch; more may wait behind it.
        pending: usize,
        /// Why.
        #[source]
        source: BusError,
    },
    /// Shutting down, the bus did not take the last results in time.
    #[error("the last probe results could not be put on the bus within {0:?}")]
    Drain(Duration),
    /// A task of the scheduler panicked.
    #[error("the probe scheduler broke: {0}")]
    Broken(String),
}

/// What a run means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Healthy, degraded or failed.
    pub outcome: Outcome,
    /// Why it was not healthy, coarsely.
    pub error_class: Option<ErrorClass>,
    /// Why it was not healthy, in words: at most [`MAX_REASON_BYTES`].
    pub reason: Option<String>,
    /// The HTTP status of the final answer.
    pub http_status: Option<u16>,
    /// Earliest expiry in the chain that the target showed.
    pub certificate_expires_at: Option<DateTime<Utc>>,
}

impl Verdict {
    fn healthy() -> Self {
        Self {
            outcome: Outcome::Healthy,
            error_class: None,
            reason: None,
            http_status: None,
            certificate_expires_at: None,
        }
    }

    fn not_healthy(outcome: Outcome, class: ErrorClass, reason: impl AsRef<str>) -> Self {
        let reason = Some(shorten(reason.as_ref()));
        Self { outcome, error_class: Some(class), reason, ..Self::healthy() }
    }

    fn failed(class: ErrorClass, reason: impl AsRef<str>) -> Self {
        Self::not_healthy(Outcome::Failed, class, reason)
    }
}

/// What was seen in one run, before anybody judged it.
#[derive(Debug)]
struct Observed {
    /// What the target answered, or what went wrong on the way.
    answer: Result<Answer, Fault>,
    /// From start to the end of the answer.
    latency: Duration,
    /// Earliest expiry in the chain that the target showed.
    certificate_expires_at: Option<DateTime<Utc>>,
}

/// A target's answer, one variant a kind. A TLS handshake that went through says all there is to say.
#[derive(Debug)]
enum Answer {
    Http(http::HttpAnswer),
    Tcp(tcp::TcpEnd),
    Tls,
    Dns(dns::DnsAnswer),
    Grpc(grpc::GrpcAnswer),
    Command(command::CommandAnswer),
}

/// A check, ready to run.
#[derive(Debug)]
enum Compiled {
    Http(Box<http::HttpProbe>),
    Tcp(tcp::TcpProbe),
    Tls(tls::TlsProbe),
    Dns(dns::DnsProbe),
    Grpc(Box<grpc::GrpcProbe>),
    Command(command::CommandProbe),
}

/// What makes a working target degraded.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    degraded_above: Option<Duration>,
    expiry_warning: Option<Duration>,
}

/// A setting that can't be compiled: which key, and why.
struct Wrong {
    key: &'static str,
    reason: String,
}

fn wrong(key: &'static str, reason: impl ToString) -> Wrong {
    Wrong { key, reason: reason.to_string() }
}

/// A probe, compiled. One run at a time: the certificate seen is kept with the prober, not with the run.
#[derive(Debug)]
pub struct Prober {
    id: ProbeId,
    service: ServiceId,
    site: Option<SiteId>,
    every: Duration,
    timeout: Duration,
    kind: &'static str,
    limits: Limits,
    chain: Arc<Chain>,
    check: Compiled,
}

impl Prober {
    /// Compiles a probe. `allow` lists the absolute paths of programs that command probes may run.
    pub fn new(probe: &Probe, allow: &[String]) -> Result<Self, ProbeError> {
        let chain = Arc::new(Chain::default());
        let compile = || -> Result<_, Wrong> {
            Ok(match &probe.check {
                Check::Http(check) => {
                    (Compiled::Http(Box::new(http::HttpProbe::new(check, &chain)?)), check.expiry_warning)
                }
                Check::Tcp(check) => (Compiled::Tcp(tcp::TcpProbe::new(check)?), None),
                Check::Tls(check) => (Compiled::Tls(tls::TlsProbe::new(check, &chain)?), check.expiry_warning),
                Check::Dns(check) => (Compiled::Dns(dns::DnsProbe::new(check)?), None),
                Check::Grpc(check) => (Compiled::Grpc(Box::new(grpc::GrpcProbe::new(check, &chain)?)), None),
                Check::Command(check) => (Compiled::Command(command::CommandProbe::new(check, allow)?), None),
            })
        };
        let (check, expiry_warning) =
            compile().map_err(|Wrong { key, reason }| ProbeError::Setting { probe: probe.id.clone(), key, reason })?;
        Ok(Self {
            id: probe.id.clone(),
            service: probe.service.clone(),
            site: probe.site.clone(),
            every: probe.every,
            timeout: probe.timeout,
            kind: probe.check.kind(),
            limits: Limits { degraded_above: probe.degraded_above, expiry_warning },
            chain,
            check,
        })
    }

    /// The probe's id.
    #[must_use]
    pub fn id(&self) -> &ProbeId {
        &self.id
    }

    /// The service that it tells about.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// The kind of check, as the plan writes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Runs the probe once. It always ends within its timeout, and a failure of any kind is an outcome.
    pub async fn run(&self) -> ProbeCompleted {
        self.chain.forget();
        let stage = Stage::default();
        let start = Instant::now();
        let answer = match tokio::time::timeout(self.timeout, self.ask(&stage)).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::timeout(&stage, self.timeout)),
        };
        let observed =
            Observed { answer, latency: start.elapsed(), certificate_expires_at: self.chain.earliest_expiry() };
        let verdict = judge(&self.check, self.limits, &observed, Utc::now());
        ProbeCompleted {
            probe: self.id.clone(),
            outcome: verdict.outcome,
            latency_us: u64::try_from(observed.latency.as_micros()).unwrap_or(u64::MAX),
            site: self.site.clone(),
            error_class: verdict.error_class,
            reason: verdict.reason,
            http_status: verdict.http_status,
            certificate_expires_at: verdict.certificate_expires_at,
        }
    }

    async fn ask(&self, stage: &Stage) -> Result<Answer, Fault> {
        match &self.check {
            Compiled::Http(probe) => Box::pin(probe.ask(stage)).await.map(Answer::Http),
            Compiled::Tcp(probe) => probe.ask(stage).await.map(Answer::Tcp),
            Compiled::Tls(probe) => Box::pin(probe.ask(stage)).await.map(|()| Answer::Tls),
            Compiled::Dns(probe) => Box::pin(probe.ask(stage)).await.map(Answer::Dns),
            Compiled::Grpc(probe) => Box::pin(probe.ask(stage)).await.map(Answer::Grpc),
            Compiled::Command(probe) => Box::pin(probe.ask(stage)).await.map(Answer::Command),
        }
    }
}

/// What a run means. Pure: `now` is only compared with the certificate's expiry.
///
/// | seen | verdict |
/// |---|---|
/// | a fault on the way (no connection, bad certificate, no answer in time) | failed, the fault's class |
/// | an answer that the check refuses | failed, or as the command's exit code says |
/// | an answer that passes, certificate expiring within `expiry_warning` | degraded, security |
/// | an answer that passes, later than `degraded_above` | degraded, timeout |
/// | an answer that passes | healthy |
fn judge(check: &Compiled, limits: Limits, observed: &Observed, now: DateTime<Utc>) -> Verdict {
    let mut verdict = match (&observed.answer, check) {
        (Err(fault), _) => Verdict::failed(fault.class, &fault.reason),
        (Ok(Answer::Http(answer)), Compiled::Http(probe)) => probe.judge(answer),
        (Ok(Answer::Tcp(end)), Compiled::Tcp(probe)) => probe.judge(end),
        (Ok(Answer::Tls), Compiled::Tls(_)) => Verdict::healthy(),
        (Ok(Answer::Dns(answer)), Compiled::Dns(probe)) => probe.judge(answer),
        (Ok(Answer::Grpc(answer)), Compiled::Grpc(probe)) => probe.judge(answer),
        (Ok(Answer::Command(answer)), Compiled::Command(probe)) => probe.judge(answer),
        (Ok(_), _) => unreachable!("a check's shell answers in its own kind"),
    };
    if verdict.outcome == Outcome::Healthy {
        if let Some(reason) = expires_soon(observed.certificate_expires_at, limits.expiry_warning, now) {
            let status = verdict.http_status;
            verdict = Verdict::not_healthy(Outcome::Degraded, ErrorClass::Security, reason);
            verdict.http_status = status;
        } else if let Some(limit) = limits.degraded_above.filter(|limit| observed.latency > *limit) {
            let reason = format!("answered after {:.3?}, which is above {limit:?}", observed.latency);
            let status = verdict.http_status;
            verdict = Verdict::not_healthy(Outcome::Degraded, ErrorClass::Timeout, reason);
            verdict.http_status = status;
        }
    }
    verdict.certificate_expires_at = observed.certificate_expires_at;
    verdict
}

fn expires_soon(expiry: Option<DateTime<Utc>>, warning: Option<Duration>, now: DateTime<Utc>) -> Option<String> {
    let (expiry, warning) = (expiry?, warning?);
    let left = expiry - now;
    if left.to_std().is_ok_and(|left| left > warning) {
        return None;
    }
    Some(format!("the certificate expires at {}, less than {warning:?} from now", expiry.format("%Y-%m-%dT%H:%M:%SZ")))
}

/// The text without control characters, cut at a character's border to [`MAX_REASON_BYTES`].
fn shorten(text: &str) -> String {
    let mut short = String::new();
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + c.len_utf8() > MAX_REASON_BYTES {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use testing::tcp_check;

    fn compiled() -> Compiled {
        Compiled::Tcp(tcp::TcpProbe::new(&tcp_check("127.0.0.1:1", &[])).ok().unwrap())
    }

    #[test]
    fn limits_turn_healthy_into_degraded_and_nothing_else() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let hour = Duration::from_secs(3600);
        let limits = Limits { degraded_above: Some(Duration::from_millis(100)), expiry_warning: Some(hour) };
        let seen = |answer: Result<Answer, Fault>, ms, expires_in: Option<i64>| {
            let observed = Observed {
                answer,
                latency: Duration::from_millis(ms),
                certificate_expires_at: expires_in.map(|s| now + chrono::TimeDelta::seconds(s)),
            };
            let verdict = judge(&compiled(), limits, &observed, now);
            assert_eq!(verdict.certificate_expires_at, observed.certificate_expires_at);
            assert_eq!(verdict.reason.is_some(), verdict.outcome != Outcome::Healthy);
            (verdict.outcome, verdict.error_class)
        };
        let ok = || Ok(Answer::Tcp(tcp::TcpEnd::Completed));
        assert_eq!(seen(ok(), 100, None), (Outcome::Healthy, None));
        assert_eq!(seen(ok(), 101, None), (Outcome::Degraded, Some(ErrorClass::Timeout)));
        assert_eq!(seen(ok(), 1, Some(3601)), (Outcome::Healthy, None));
        assert_eq!(seen(ok(), 1, Some(3600)), (Outcome::Degraded, Some(ErrorClass::Security)));
        assert_eq!(seen(ok(), 101, Some(-5)), (Outcome::Degraded, Some(ErrorClass::Security)));
        let fault = Fault { class: ErrorClass::Network, reason: "refused".into() };
        assert_eq!(seen(Err(fault), 101, Some(-5)), (Outcome::Failed, Some(ErrorClass::Network)));
    }

    proptest! {
        #[test]
        fn reasons_are_short_and_printable(text in "\\PC{0,400}|[\\x00-\\x7fé]{0,400}") {
            let short = shorten(&text);
            prop_assert!(short.len() <= MAX_REASON_BYTES);
            prop_assert!(!short.chars().any(char::is_control));
        }
    }
}
