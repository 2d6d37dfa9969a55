//! When a probe's failures make it HARD, and when its successes make it OK again: a state machine a probe, and
//! the verdict over all probes of a service.
//!
//! Pure and small (about 120 bytes a healthy probe): evidence is kept only while something fails. Left out on
//! purpose: incidents, alerts and anything else that is decided; they are folded from their own events.

use std::borrow::Cow;
use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{ErrorClass, EventRef, Outcome, ProbeCompleted};
use rebound_schemas::plan::{DegradedAs, Policy};
use rebound_schemas::{Event, SiteId};
use serde::{Deserialize, Serialize};

use crate::delta;
use crate::flapping::Flapping;
use crate::order::Newest;

/// Failed observations that a decision names as its evidence, at most.
pub const MAX_EVIDENCE: usize = 20;

/// The part of a policy that says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Failures that make a probe HARD.
    pub failures: u32,
    /// Among the last so many; in a row when absent.
    pub of: Option<u32>,
    /// Successes in a row that make it OK again.
    pub recoveries: u32,
    /// Distinct sites that must see it HARD.
    pub sites: u32,
    /// Silence after which nothing is known.
    pub silent_after: TimeDelta,
    /// Whether a degraded observation is a failure.
    pub degraded_fails: bool,
}

impl From<&Policy> for Rule {
    fn from(policy: &Policy) -> Self {
        Self {
            failures: policy.failures.max(1),
            of: policy.of.map(|of| of.max(policy.failures)),
            recoveries: policy.recoveries.max(1),
            sites: policy.sites.max(1),
            silent_after: delta(policy.silent_after),
            degraded_fails: policy.degraded == DegradedAs::Count,
        }
    }
}

/// What one observation says, of a probe or of something measured.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Failed, healthy or neither.
    pub outcome: Outcome,
    /// Where it was looked from.
    pub site: Option<&'a SiteId>,
    /// Why it failed, coarsely.
    pub error_class: Option<ErrorClass>,
    /// Why it failed, in words.
    pub reason: Option<Cow<'a, str>>,
}

/// What is known of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Nothing was seen for `silent_after`, or ever: neither up nor down.
    Unobserved,
    /// Nothing fails.
    Ok,
    /// Nothing fails, and something answers worse than it should.
    Degraded,
    /// Something fails, below the threshold.
    Soft,
    /// It has failed.
    Hard,
}

impl Health {
    /// Every state, in the order above.
    pub const ALL: [Self; 5] = [Self::Unobserved, Self::Ok, Self::Degraded, Self::Soft, Self::Hard];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unobserved => "unobserved",
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

/// Failures that are being counted, or that made the probe HARD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streak {
    /// Failures that count towards the threshold now; once HARD, all since.
    pub failures: u32,
    /// Failures since the last success, and when the first of these was.
    pub run: u32,
    /// See `run`.
    pub run_since: DateTime<Utc>,
    /// The newest failure.
    pub last_at: DateTime<Utc>,
    /// Why, coarsely, by the newest failure.
    pub error_class: ErrorClass,
    /// Why, in words, by the newest failure.
    pub reason: Box<str>,
    /// Counted failures, oldest first; the first is t0. In M-of-N mode all within the window until it is HARD, else
    /// the first 20.
    pub evidence: VecDeque<Failure>,
}

impl Streak {
    /// The failures that a decision names as its evidence: the first 20 that are kept.
    #[must_use]
    pub fn events(&self) -> Vec<EventRef> {
        self.evidence.iter().take(MAX_EVIDENCE).map(|failure| failure.event.clone()).collect()
    }
}

/// A failure that counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// When.
    pub at: DateTime<Utc>,
    /// The observation.
    pub event: EventRef,
    /// Its place among the probe's failures and successes, for the M-of-N window.
    place: u32,
}

/// One probe.
///
/// | observation | not HARD | HARD |
/// |---|---|---|
/// | failed | count + 1; HARD at the threshold | successes = 0 |
/// | healthy | count = 0 (M-of-N: slides the window) | successes + 1; OK at `recoveries`, counts start anew |
/// | degraded | recorded, counts stay; counts as failed if the rule says so | the same |
/// | late or seen before | nothing | nothing |
///
/// **Order.** An observation counts only if it is later than the newest one counted, by its prober's own numbers or
/// by time (see `order.rs`). So a redelivered one never counts again, one that comes after a newer one of the same
/// probe never counts, and a clock that is set back stops nothing. Times of a streak are as their observers wrote
/// them; only the end of an outage is never before its beginning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeState {
    newest: Option<Newest>,
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    last_success_at: Option<DateTime<Utc>>,
    successes: u32,
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    success_since: Option<DateTime<Utc>>,
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    recovered_since: Option<DateTime<Utc>>,
    /// Failures and successes so far.
    place: u32,
    site: Option<SiteId>,
    hard: bool,
    /// Taken for HARD because of what was decided before, until it proves healthy; counted beside `hard`, so that
    /// folding its observations gives the same as if they had come first.
    doubted: bool,
    degraded: bool,
    flapping: Flapping,
    streak: Option<Box<Streak>>,
}

impl ProbeState {
    /// A probe of which nothing was seen since an incident that it may have caused: HARD until it proves healthy.
    #[must_use]
    pub fn inherited() -> Self {
        Self { doubted: true, ..Self::default() }
    }

    /// Takes it for HARD until it proves healthy.
    pub fn inherit(&mut self) {
        self.doubted = true;
        self.successes = 0;
    }

    /// Takes it for what it was seen to be: what caused the incident was found elsewhere.
    pub fn trust(&mut self) {
        self.doubted = false;
    }

    /// The first failure of a streak that made it HARD; `None` if it isn't, or is only taken for it.
    #[must_use]
    pub fn proof(&self) -> Option<&Failure> {
        self.streak.as_ref().filter(|_| self.hard)?.evidence.front()
    }

    /// Counts one observation; `false` if it was late or seen before.
    pub fn observe(&mut self, rule: &Rule, event: &Event, data: &ProbeCompleted) -> bool {
        let reason = data.reason.as_deref().map(Cow::Borrowed);
        let seen = Seen { outcome: data.outcome, site: data.site.as_ref(), error_class: data.error_class, reason };
        self.take(rule, event, &seen)
    }

    /// The same for any observation.
    pub fn take(&mut self, rule: &Rule, event: &Event, data: &Seen<'_>) -> bool {
        if !Newest::advance(&mut self.newest, event) {
            return false;
        }
        if self.site.as_ref() != data.site {
            self.site = data.site.cloned();
        }
        self.degraded = data.outcome == Outcome::Degraded;
        match data.outcome {
            Outcome::Degraded if rule.degraded_fails => self.fail(rule, event, data),
            Outcome::Degraded => {}
            Outcome::Healthy => self.succeed(rule, event.occurred_at),
            Outcome::Failed => self.fail(rule, event, data),
        }
        true
    }

    fn succeed(&mut self, rule: &Rule, at: DateTime<Utc>) {
        self.flapping.push(false);
        self.place = self.place.wrapping_add(1);
        self.last_success_at = Some(at);
        self.successes = self.successes.saturating_add(1);
        let since = *self.success_since.get_or_insert(at);
        if let Some(streak) = &mut self.streak {
            streak.run = 0;
        }
        if self.doubted && self.successes >= rule.recoveries {
            self.doubted = false;
            self.recovered_since = Some(since);
        }
        if !self.hard {
            match rule.of {
                None => self.streak = None,
                Some(of) => self.slide(of),
            }
        } else if self.successes >= rule.recoveries {
            self.hard = false;
            // Not before t0, though the clock was set back meanwhile.
            let first = self.streak.take().and_then(|streak| Some(streak.evidence.front()?.at));
            self.recovered_since = Some(first.map_or(since, |first| since.max(first)));
        }
    }

    fn fail(&mut self, rule: &Rule, event: &Event, data: &Seen<'_>) {
        let at = event.occurred_at;
        self.flapping.push(true);
        self.place = self.place.wrapping_add(1);
        self.successes = 0;
        self.success_since = None;
        if let Some(of) = rule.of.filter(|_| !self.hard) {
            self.slide(of);
        }
        let streak = self.streak.get_or_insert_with(|| {
            Box::new(Streak {
                failures: 0,
                run: 0,
                run_since: at,
                last_at: at,
                error_class: ErrorClass::Unknown,
                reason: "".into(),
                evidence: VecDeque::with_capacity(rule.failures.clamp(1, MAX_EVIDENCE as u32) as usize),
            })
        });
        if streak.run == 0 {
            streak.run_since = at;
        }
        streak.run = streak.run.saturating_add(1);
        streak.failures = streak.failures.saturating_add(1);
        streak.last_at = at;
        streak.error_class = data.error_class.unwrap_or(ErrorClass::Unknown);
        streak.reason = data.reason.as_deref().unwrap_or("the probe failed").into();
        if streak.evidence.len() < MAX_EVIDENCE || (rule.of.is_some() && !self.hard) {
            streak.evidence.push_back(Failure { at, event: EventRef::from(event), place: self.place });
        }
        if streak.failures >= rule.failures {
            self.hard = true;
            self.doubted = false;
        }
    }

    /// Lets go of failures that are no longer among the last `of`.
    fn slide(&mut self, of: u32) {
        let Some(streak) = &mut self.streak else { return };
        while streak.evidence.front().is_some_and(|first| self.place.wrapping_sub(first.place) >= of) {
            streak.evidence.pop_front();
            streak.failures -= 1;
        }
        if streak.evidence.is_empty() {
            self.streak = None;
        }
    }

    /// Whether it has failed.
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.hard || self.doubted
    }

    /// Whether the newest verdict, success or failure, is a failure.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.streak.as_ref().is_some_and(|streak| streak.run > 0)
    }

    /// The failures that count, or that made it HARD.
    #[must_use]
    pub fn streak(&self) -> Option<&Streak> {
        self.streak.as_deref()
    }

    /// Whether the newest observation was degraded.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// When the newest counted observation was made.
    #[must_use]
    pub fn last_seen_at(&self) -> Option<DateTime<Utc>> {
        self.newest.as_ref().map(Newest::at)
    }

    /// The newest success.
    #[must_use]
    pub fn last_success_at(&self) -> Option<DateTime<Utc>> {
        self.last_success_at
    }

    /// Successes since the last failure.
    #[must_use]
    pub fn successes(&self) -> u32 {
        self.successes
    }

    /// First success of the streak that last turned it from HARD to OK.
    #[must_use]
    pub fn recovered_since(&self) -> Option<DateTime<Utc>> {
        self.recovered_since
    }

    /// Whether it changes too often to be believed.
    #[must_use]
    pub fn is_flapping(&self) -> bool {
        self.flapping.is_flapping()
    }

    /// How much of its recent past was change, 0 to 1; see [`Flapping::share`].
    #[must_use]
    pub fn flapping_share(&self) -> f64 {
        self.flapping.share()
    }
}

/// What all probes of a service say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No probe is HARD.
    Clear,
    /// Some are, from fewer sites than the quorum: opens nothing and resolves nothing.
    Disputed,
    /// HARD from at least `sites` distinct sites.
    Failed,
}

/// The verdict over a service's probes.
///
/// | HARD probes | distinct sites they look from | verdict | no incident | incident open |
/// |---|---|---|---|---|
/// | none | – | clear | – | resolves |
/// | some | fewer than `sites` | disputed | – | stays |
/// | some | at least `sites` | failed | opens | stays |
///
/// With `sites = 1` any HARD probe fails the service. Probes that name no site count as one site together.
#[must_use]
pub fn verdict<'a>(rule: &Rule, probes: impl IntoIterator<Item = &'a ProbeState>) -> Verdict {
    let mut sites: Vec<Option<&SiteId>> = Vec::new();
    for probe in probes.into_iter().filter(|probe| probe.is_hard()) {
        if !sites.contains(&probe.site.as_ref()) {
            sites.push(probe.site.as_ref());
        }
    }
    match u32::try_from(sites.len()).unwrap_or(u32::MAX) {
        0 => Verdict::Clear,
        n if n < rule.sites => Verdict::Disputed,
        _ => Verdict::Failed,
    }
}
