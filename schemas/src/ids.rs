//! Names of things: one newtype an id, so that a service can't be passed where a probe is meant.
//!
//! Ids that a person writes (services, probes, sites…) follow one rule, checked when they are parsed. Ids that
//! Rebound decides ([`IncidentId`], [`AlertId`], [`RecoveryId`]) are digests of what was decided about, so that
//! a decision made twice carries the same id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Longest id accepted, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text was empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text was longer than [`MAX_ID_BYTES`].
    #[error("an id has at most {MAX_ID_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A character that the kind of id does not allow.
    #[error("{0:?} is not allowed in an id: use letters, digits, '.', '_', '-', ':' and '/'")]
    Character(char),
}

fn check_name(text: &str) -> Result<(), IdError> {
    check_text(text)?;
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/'))) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(()),
    }
}

fn check_text(text: &str) -> Result<(), IdError> {
    match text.len() {
        0 => return Err(IdError::Empty),
        n if n > MAX_ID_BYTES => return Err(IdError::TooLong(n)),
        _ => {}
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(()),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident: $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that follows the rule for this id.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a text (", stringify!($name), ")"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES })
            }
        }
    )*};
}

ids! {
    /// A protected service, as the plan names it: the CloudEvents `subject` and the bus key.
    ServiceId: check_name;
    /// A probe of a service.
    ProbeId: check_name;
    /// A place where services run and probes look from.
    SiteId: check_name;
    /// A tier of recovery priority.
    TierId: check_name;
    /// An alerting policy.
    PolicyId: check_name;
    /// A recovery procedure.
    ProcedureId: check_name;
    /// A step of a procedure.
    StepId: check_name;
    /// A notification channel.
    ChannelId: check_name;
    /// A recovery drill.
    DrillId: check_name;
    /// Content hash of the plan that a decision was made under.
    PlanVersion: check_name;
    /// An incident: one outage of one service.
    IncidentId: check_name;
    /// An alert: one policy firing over one incident.
    AlertId: check_name;
    /// A recovery: one attempt at one incident.
    RecoveryId: check_name;
    /// CloudEvents `id`: unique within its [`Source`].
    EventId: check_text;
    /// CloudEvents `source`: who says so.
    Source: check_text;
}

/// A digest of `parts` behind a short prefix: the same parts always give the same text.
///
/// Parts are length-prefixed before hashing, so `["ab", "c"]` and `["a", "bc"]` differ. 80 bits of SHA-256 in
/// lower-case base 32: a collision among a million ids is a matter of 10⁻¹².
fn digest(prefix: &str, parts: &[&str]) -> Arc<str> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let text = data_encoding::BASE32_NOPAD.encode(&hash.finalize()[..10]).to_lowercase();
    format!("{prefix}-{text}").into()
}

impl IncidentId {
    /// The incident that began with this failed probe: whoever sees the same first failure opens the same one.
    #[must_use]
    pub fn derive(service: &ServiceId, first_source: &Source, first_id: &EventId) -> Self {
        Self(digest("inc", &[service.as_str(), first_source.as_str(), first_id.as_str()]))
    }
}

impl AlertId {
    /// The alert that a policy raises over an incident.
    #[must_use]
    pub fn derive(policy: &PolicyId, incident: &IncidentId) -> Self {
        Self(digest("alr", &[policy.as_str(), incident.as_str()]))
    }
}

impl RecoveryId {
    /// The `attempt`-th (from 1) recovery of an incident. The plan is left out on purpose: a plan edited between
    /// two decisions must not make a second recovery of the same attempt.
    #[must_use]
    pub fn derive(service: &ServiceId, incident: &IncidentId, attempt: u32) -> Self {
        Self(digest("rec", &[service.as_str(), incident.as_str(), &attempt.to_string()]))
    }
}

impl PlanVersion {
    /// The version of a plan's text: equal bytes, equal version.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(digest("plan", &[text]))
    }
}

/// What the sources of all probers begin with.
const PROBE_SOURCES: &str = "rebound/probe/";

impl Source {
    /// The source of one run of a prober: its instance is unique among those that run at the same time, its run
    /// among all of the instance. A prober numbers the ids of its events from 1.
    pub fn of_probe_run(instance: &str, run: &str) -> Result<Self, IdError> {
        Self::new(&format!("{PROBE_SOURCES}{instance}/{run}"))
    }

    /// The instance and the run, if this is a source of [`Source::of_probe_run`].
    #[must_use]
    pub fn probe_run(&self) -> Option<(&str, &str)> {
        self.as_str().strip_prefix(PROBE_SOURCES)?.rsplit_once('/')
    }
}

/// What the sources of all imports begin with.
const IMPORT_SOURCES: &str = "rebound/import/";

impl Source {
    /// The source of what is imported from somewhere else, by that place's name.
    pub fn of_import(name: &str) -> Result<Self, IdError> {
        Self::new(&format!("{IMPORT_SOURCES}{name}"))
    }

    /// Whether it is history from somewhere else: it counts in every figure, and nothing is decided about it.
    #[must_use]
    pub fn is_import(&self) -> bool {
        self.as_str().starts_with(IMPORT_SOURCES)
    }
}

impl EventId {
    /// The id of an event that follows from a decision: `subject` is the decided thing, `what` the transition.
    /// Deciding again gives the same id, which readers count once.
    #[must_use]
    pub fn derive(subject: &str, what: &str) -> Self {
        Self(format!("{subject}:{what}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_their_rule() {
        assert_eq!(ServiceId::new(""), Err(IdError::Empty));
        assert_eq!(ServiceId::new("a b"), Err(IdError::Character(' ')));
        assert_eq!(ServiceId::new(&"x".repeat(257)), Err(IdError::TooLong(257)));
        assert_eq!(ServiceId::new("db/primary-1").unwrap().as_str(), "db/primary-1");
        assert_eq!(EventId::new("a b ü").unwrap().as_str(), "a b ü");
        assert_eq!(EventId::new("a\nb"), Err(IdError::Character('\n')));
    }

    #[test]
    fn a_probers_source_says_which_run_of_which_instance_it_is() {
        let source = Source::of_probe_run("host/a", "19f3").unwrap();
        assert_eq!(source.as_str(), "rebound/probe/host/a/19f3");
        assert_eq!(source.probe_run(), Some(("host/a", "19f3")));
        assert_eq!(Source::new("probe/a").unwrap().probe_run(), None);
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_on_nothing_else() {
        let (service, source, id) =
            (ServiceId::new("api").unwrap(), Source::new("probe/a").unwrap(), EventId::new("7").unwrap());
        let incident = IncidentId::derive(&service, &source, &id);
        assert_eq!(incident, IncidentId::derive(&service, &source, &id));
        assert_ne!(incident, IncidentId::derive(&service, &source, &EventId::new("8").unwrap()));
        assert_ne!(RecoveryId::derive(&service, &incident, 1), RecoveryId::derive(&service, &incident, 2));
        assert_ne!(digest("x", &["ab", "c"]), digest("x", &["a", "bc"]));
        // Pinned: an id that changes between releases would run a recovery twice.
        assert_eq!(incident.as_str().len(), "inc-".len() + 16);
    }
}
