//! Payloads of the alerts topic: what was decided about what was seen, who was told of it, the incidents, and what
//! keeps alerts quiet.

use chrono::{DateTime, Utc};

use super::parts::{EventRef, Matcher, Standing, Told, is_zero, payloads};
use super::words::{ErrorClass, Severity, SuppressionCause, Transition};
use crate::ids::{AlertId, ChannelId, IncidentId, PolicyId, RecoveryId, ServiceId};

payloads! {
    /// A policy's threshold was met.
    AlertRaised {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy that fired.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// How loudly.
        severity: Severity,
        /// Failures counted when it fired.
        failures: u32,
        /// t0: the first failed probe of the streak.
        first_failure_at: DateTime<Utc>,
        /// What was seen, in words.
        reason: String,
        /// The failed probes that it rests on, oldest first (at most 20).
        evidence: Vec<EventRef>,
    }
    /// An alert told nobody and triggered nothing; its state is tracked all the same.
    AlertSuppressed {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// Why.
        cause: SuppressionCause,
        /// The dependency, silence or window that suppressed it.
        by: String,
    }
    /// An alert's service passed its recovery threshold.
    AlertResolved {
        /// The alert.
        alert: AlertId,
        /// The incident that it belongs to.
        incident: IncidentId,
        /// The policy.
        policy: PolicyId,
        /// The policy's condition that warns; none for an outage. A warning has no incident: `incident` is then only
        /// the name under which it is tracked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
        /// t3: the first success of the streak that met the recovery threshold.
        recovered_at: DateTime<Utc>,
        /// Length of that streak when it resolved.
        successes: u32,
    }
    /// What a message tells is fixed, before it is sent: after a crash the same is sent again, under the same key.
    NotificationPlanned {
        /// The same for every attempt at this message, so that a receiver can drop repeats.
        dedup_key: String,
        /// Where it goes.
        channel: ChannelId,
        /// The route's group that it speaks of, when the route groups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// The route that leads there, by its place in the plan; none: the policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route: Option<String>,
        /// What automation was doing about the incidents: a message that is sent again says the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recoveries: Vec<Standing>,
        /// Every transition that it tells, in order.
        members: Vec<Told>,
    }
    /// A notification was taken by its channel.
    NotificationSent {
        /// The same for every attempt at the same transition, so that a receiver can drop repeats.
        dedup_key: String,
        /// The alert.
        alert: AlertId,
        /// The incident.
        incident: IncidentId,
        /// Where it went.
        channel: ChannelId,
        /// What it told.
        transition: Transition,
        /// Which attempt succeeded, from 1.
        attempt: u32,
        /// Every transition that the message told, when it told more than one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<Told>,
    }
    /// A notification could not be delivered, and no further attempt will be made.
    NotificationFailed {
        /// The same for every attempt at the same transition.
        dedup_key: String,
        /// The alert.
        alert: AlertId,
        /// The incident.
        incident: IncidentId,
        /// Where it should have gone.
        channel: ChannelId,
        /// What it should have told.
        transition: Transition,
        /// How many attempts were made.
        attempts: u32,
        /// What the channel said, secrets removed.
        error: String,
        /// How often it was retried by hand before this.
        #[serde(default, skip_serializing_if = "is_zero")]
        round: u32,
        /// Every transition that the message told, when it told more than one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<Told>,
    }
    /// An undeliverable message is to be tried again, under its old key.
    NotificationRetried {
        /// The message's key.
        dedup_key: String,
        /// The `round` of the `notification.failed` that is to be made good.
        #[serde(default, skip_serializing_if = "is_zero")]
        round: u32,
        /// Who asked.
        by: String,
    }
    /// A service's outage became certain.
    IncidentOpened {
        /// The incident.
        incident: IncidentId,
        /// How bad, by the policy and the service's tier.
        severity: Severity,
        /// t0: first failed probe of the streak; the true onset lies in (`last_success_at`, t0].
        first_failure_at: DateTime<Utc>,
        /// The last success before it, where one was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_success_at: Option<DateTime<Utc>>,
        /// t1: when it was decided.
        detected_at: DateTime<Utc>,
        /// The policy that decided; none for incidents reported by people or imported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyId>,
        /// Why, coarsely.
        error_class: ErrorClass,
        /// Why, as whoever reported it puts it; none where only the class is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        /// Why, in words.
        reason: String,
    }
    /// A person or an automaton took it on.
    IncidentAcknowledged {
        /// The incident.
        incident: IncidentId,
        /// Who.
        by: String,
        /// Whether by automation; human and automated acknowledgements are counted apart.
        #[serde(default)]
        automated: bool,
        /// What they said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    }
    /// The outage is over. The event's own time is t4.
    IncidentResolved {
        /// The incident.
        incident: IncidentId,
        /// t3: the first success of the streak that met the recovery threshold.
        recovered_at: DateTime<Utc>,
        /// The recovery that brought it back, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<RecoveryId>,
    }
    /// A person restated an incident; the original figures are kept.
    IncidentCorrected {
        /// The incident.
        incident: IncidentId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Restated t0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_failure_at: Option<DateTime<Utc>>,
        /// Restated t3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovered_at: Option<DateTime<Utc>>,
        /// Restated class of cause.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_class: Option<ErrorClass>,
        /// Restated cause, as whoever reported it puts it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        /// Leave it out of every figure (a false alarm).
        #[serde(default)]
        exclude: bool,
    }
    /// Planned work: failures in the window notify nobody and trigger nothing.
    MaintenanceScheduled {
        /// The window's name.
        maintenance: String,
        /// The services it covers.
        services: Vec<ServiceId>,
        /// Start.
        from: DateTime<Utc>,
        /// End.
        until: DateTime<Utc>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// Somebody asked for quiet about services.
    SilenceCreated {
        /// The silence's name.
        silence: String,
        /// The services it covers; with neither services nor matchers it covers its subject.
        #[serde(default)]
        services: Vec<ServiceId>,
        /// What must all hold of an alert besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        matchers: Vec<Matcher>,
        /// Start.
        from: DateTime<Utc>,
        /// End.
        until: DateTime<Utc>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    }
    /// A silence was ended before its time.
    SilenceExpired {
        /// The silence.
        silence: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// Planned work was called off, or ended before its time.
    MaintenanceCancelled {
        /// The window.
        maintenance: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
}
