//! Which column is what: from flags, from a mapping file, from a preset, and from usual names, in this order.

use std::collections::BTreeMap;
use std::path::Path;

use rebound_schemas::ServiceId;
use rebound_schemas::event::ErrorClass;
use regex::Regex;
use serde::Deserialize;

use super::{FileFormat, ImportError, Rows};

/// Where a value stands: the name of a column, or the path of a JSON member with dots (`service.summary`,
/// `acknowledgements.0.at`). Of several, the first that is there and not empty counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(super) names: Vec<String>,
    /// Somebody asked for it by name: a file without it is refused.
    pub(super) asked: bool,
}

impl Column {
    /// The column that somebody names.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { names: vec![name.to_owned()], asked: true }
    }

    /// The first of these, `|` between them.
    fn any(names: &str) -> Self {
        Self { names: names.split('|').map(str::to_owned).collect(), asked: false }
    }
}

/// The fields that columns can tell, in the order in which they are missed; and where each stands in a file.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident: $($field:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            $(pub(super) $field: Column,)+
        }

        impl $name {
            const FIELDS: &[&str] = &[$(stringify!($field)),+];

            /// Errors: the file's header lacks a column that is needed or was asked for.
            pub(super) fn of(rows: &Rows, mapping: &Mapping, needed: &[&str]) -> Result<Self, ImportError> {
                Ok(Self { $($field: mapping.demand(rows, stringify!($field), needed)?,)+ })
            }
        }
    };
}

columns! {
    /// What an incident's columns can tell.
    IncidentColumns:
    id, service, opened, cause, detected, acknowledged, acknowledged_by, acknowledged_after_s, acknowledged_after_ms,
    resolved, resolved_after_s, resolved_after_ms, closed, severity, reason, status, changed,
}

columns! {
    /// What a probe result's columns can tell.
    ProbeColumns:
    time, service, outcome, latency_ms, probe, site, cause, reason,
}

/// Everything that a column can tell.
fn fields() -> impl Iterator<Item = &'static str> {
    IncidentColumns::FIELDS.iter().chain(ProbeColumns::FIELDS).copied()
}

/// The usual names, tried where nothing else is said.
const USUAL: &[(&str, &str)] = &[
    ("id", "id|incident|incident_id|number|key"),
    ("service", "service|service_name|service_id|subject|component"),
    ("cause", "cause|root_cause|error_class"),
    ("opened", "opened|opened_at|started|started_at|created|created_at"),
    ("detected", "detected|detected_at"),
    ("acknowledged", "acknowledged|acknowledged_at"),
    ("acknowledged_by", "acknowledged_by"),
    ("resolved", "resolved|resolved_at|recovered_at|closed|closed_at"),
    ("severity", "severity|priority|impact"),
    ("reason", "reason|title|summary|description"),
    ("time", "time|timestamp|occurred_at|at|date"),
    ("outcome", "outcome|status|state|result|up"),
    ("latency_ms", "latency_ms|response_time_ms|duration_ms"),
    ("probe", "probe|check|monitor"),
    ("site", "site|location|region"),
];

/// Where a file comes from, with the columns that its exports have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// ServiceNow: incidents as CSV, by field name or by label.
    ServiceNow,
    /// Jira: issues as CSV, from the issue navigator or the data pipeline.
    Jira,
    /// PagerDuty: incidents from the API (JSON) or as CSV.
    PagerDuty,
    /// Opsgenie: alerts from the API (JSON).
    Opsgenie,
    /// Statuspage: `incidents.json` of a status page.
    Statuspage,
    /// An Atom feed of a status page.
    Atom,
    /// Upptime: the repository's issues (JSON).
    Upptime,
}

impl Preset {
    /// Every preset by its name.
    pub const ALL: &[(&'static str, Self)] = &[
        ("servicenow", Self::ServiceNow),
        ("jira", Self::Jira),
        ("pagerduty", Self::PagerDuty),
        ("opsgenie", Self::Opsgenie),
        ("statuspage", Self::Statuspage),
        ("atom", Self::Atom),
        ("upptime", Self::Upptime),
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, preset)| *preset == self).map_or("", |(name, _)| name)
    }

    /// The preset of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, preset)| *preset)
    }

    fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ServiceNow => &[
                ("id", "number|Number"),
                (
                    "service",
                    "business_service.display_value|business_service|cmdb_ci.display_value|cmdb_ci|Business service|\
                     Service|Configuration item",
                ),
                ("cause", "cause|u_cause|close_code|category|Cause|Resolution code|Close code|Category"),
                ("opened", "opened_at|sys_created_on|Opened|Created"),
                ("acknowledged", "work_start|Actual start"),
                ("acknowledged_by", "assigned_to.display_value|assigned_to|Assigned to"),
                ("resolved", "resolved_at|closed_at|Resolved|Closed"),
                ("closed", "closed_at|Closed"),
                ("severity", "severity|priority|Severity|Priority"),
                ("reason", "short_description|Short description"),
            ],
            Self::Jira => &[
                ("id", "Issue key|key"),
                (
                    "service",
                    "Affected services|Custom field (Affected services)|Component/s|Components|Component|\
                     fields.components.0.name|Project name|project_name|fields.project.name",
                ),
                ("cause", "Custom field (Root cause)|Root cause|Resolution|resolution|fields.resolution.name"),
                ("opened", "Created|created_date|fields.created"),
                ("resolved", "Resolved|resolution_date|fields.resolutiondate"),
                ("severity", "Custom field (Severity)|Priority|priority_name|fields.priority.name"),
                ("reason", "Summary|summary|fields.summary"),
            ],
            Self::PagerDuty => &[
                ("id", "id|incident_number"),
                ("service", "service_name|service.summary|service.id|service_id"),
                ("cause", "cause|resolve_reason.type"),
                ("opened", "created_at|created_on|created"),
                ("acknowledged", "acknowledgements.0.at|acknowledged_at"),
                ("acknowledged_by", "acknowledgements.0.acknowledger.summary"),
                ("acknowledged_after_s", "seconds_to_first_ack"),
                ("resolved", "resolved_at|resolved_on|resolved"),
                ("resolved_after_s", "seconds_to_resolve"),
                ("severity", "priority.summary|priority_name|urgency"),
                ("reason", "title|description|summary"),
                ("status", "status"),
                ("changed", "last_status_change_at"),
            ],
            Self::Opsgenie => &[
                ("id", "id|alertId|tinyId"),
                ("service", "entity|extraProperties.service|details.service|integration.name|source"),
                ("opened", "createdAt"),
                ("acknowledged_by", "report.acknowledgedBy"),
                ("acknowledged_after_ms", "report.ackTime"),
                ("resolved", "closedAt"),
                ("resolved_after_ms", "report.closeTime"),
                ("severity", "priority"),
                ("reason", "message"),
                ("status", "status"),
                ("changed", "updatedAt"),
            ],
            Self::Statuspage => &[
                ("id", "id"),
                ("service", "components.0.name|page_id|name"),
                ("cause", "impact"),
                ("opened", "started_at|created_at"),
                ("resolved", "resolved_at"),
                ("severity", "impact"),
                ("reason", "name"),
            ],
            Self::Atom => &[
                ("id", "id"),
                ("service", "title"),
                ("opened", "published"),
                ("resolved", "resolved"),
                ("reason", "title"),
            ],
            Self::Upptime => &[
                ("id", "number"),
                ("service", "title"),
                ("opened", "created_at|createdAt"),
                ("resolved", "closed_at|closedAt"),
                ("reason", "title"),
            ],
        }
    }

    /// What of the service's cell is its name.
    fn service_pattern(self) -> Option<&'static str> {
        match self {
            // "🛑 Shop is down", "⚠️ Shop has degraded performance".
            Self::Upptime => Some(r"^\W*(.+?) (?:is down|has degraded performance)"),
            _ => None,
        }
    }

    fn format(self) -> Option<FileFormat> {
        match self {
            Self::Atom => Some(FileFormat::Atom),
            Self::Statuspage | Self::Upptime | Self::Opsgenie => Some(FileFormat::Json),
            Self::ServiceNow | Self::Jira | Self::PagerDuty => None,
        }
    }
}

/// A mapping file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMapping {
    preset: Option<String>,
    format: Option<String>,
    tz: Option<String>,
    date_order: Option<String>,
    time_format: Option<String>,
    source: Option<String>,
    service: Option<String>,
    service_pattern: Option<String>,
    #[serde(default)]
    columns: BTreeMap<String, String>,
    #[serde(default)]
    services: BTreeMap<String, ServiceId>,
    #[serde(default)]
    causes: BTreeMap<String, String>,
}

/// How a file is to be understood.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    /// What stands where.
    columns: BTreeMap<&'static str, Column>,
    /// What kind of file it is; by its name when absent.
    pub format: Option<FileFormat>,
    /// Zone of times without one; UTC when absent.
    pub tz: Option<String>,
    /// `day-first` or `month-first`.
    pub date_order: Option<String>,
    /// As of `strftime`.
    pub time_format: Option<String>,
    /// What the source is called; by the preset or the kind of file when absent.
    pub source: Option<String>,
    /// The service that all rows are about.
    pub service: Option<String>,
    /// What of the service's cell is its name: the first group of this regular expression.
    pub service_pattern: Option<Regex>,
    /// Names to services.
    pub services: BTreeMap<String, ServiceId>,
    /// Causes to their classes.
    pub causes: BTreeMap<String, ErrorClass>,
}

impl Mapping {
    /// Of a preset.
    #[must_use]
    pub fn of(preset: Preset) -> Self {
        Self {
            columns: preset.columns().iter().map(|(field, names)| (*field, Column::any(names))).collect(),
            format: preset.format(),
            source: Some(preset.as_str().to_owned()),
            service_pattern: preset.service_pattern().map(|text| Regex::new(text).expect("a constant pattern")),
            ..Self::default()
        }
    }

    /// From a mapping file.
    ///
    /// # Errors
    /// It can't be read, or something in it is wrong; the message says where.
    pub fn load(path: &Path) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read { file: path.to_owned(), source };
        Self::from_toml(path, &std::fs::read_to_string(path).map_err(read)?)
    }

    /// From a mapping file's text; `path` is for messages.
    pub(super) fn from_toml(path: &Path, text: &str) -> Result<Self, ImportError> {
        let fault = |message: String| ImportError::Mapping(format!("{}: {message}", path.display()));
        let raw: RawMapping = toml::from_str(text).map_err(|e| fault(e.to_string().trim_end().to_owned()))?;
        let mut mapping = match &raw.preset {
            None => Self::default(),
            Some(name) => Self::of(Preset::parse(name).ok_or_else(|| {
                let known: Vec<_> = Preset::ALL.iter().map(|(name, _)| *name).collect();
                fault(format!("preset {name:?} is unknown: write one of {}", known.join(", ")))
            })?),
        };
        if let Some(format) = &raw.format {
            mapping.format =
                Some(FileFormat::parse(format).ok_or_else(|| {
                    fault(format!("format {format:?} is unknown: write csv, tsv, ndjson, json or atom"))
                })?);
        }
        if let Some(pattern) = &raw.service_pattern {
            let regex = Regex::new(pattern).map_err(|e| fault(format!("service_pattern: {e}")))?;
            if regex.captures_len() < 2 {
                return Err(fault(format!("service_pattern {pattern:?} has no group: put ( ) around the name")));
            }
            mapping.service_pattern = Some(regex);
        }
        for (field, column) in &raw.columns {
            let known = known_field(field).ok_or_else(|| {
                let near = super::source::nearest(field, fields());
                fault(format!("[columns] {field:?} is nothing that a column can tell: did you mean {near:?}?"))
            })?;
            mapping.set(known, Column::named(column));
        }
        for (cause, class) in &raw.causes {
            let class = ErrorClass::parse(class).ok_or_else(|| {
                let known: Vec<_> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
                fault(format!("[causes] {cause:?}: {class:?} is no class: write one of {}", known.join(", ")))
            })?;
            mapping.causes.insert(cause.clone(), class);
        }
        mapping.services = raw.services;
        mapping.tz = raw.tz;
        mapping.date_order = raw.date_order;
        mapping.time_format = raw.time_format;
        mapping.service = raw.service;
        mapping.source = raw.source.or(mapping.source);
        Ok(mapping)
    }

    /// Says where a field stands; over what was said before.
    pub fn set(&mut self, field: &'static str, column: Column) {
        self.columns.insert(field, column);
    }

    /// Where a field stands in a file. A service is needed too, unless all rows are about one.
    fn demand(&self, rows: &Rows, field: &'static str, needed: &[&str]) -> Result<Column, ImportError> {
        let column = self.column(field);
        rows.demand(field, &column, needed.contains(&field) || (field == "service" && self.service.is_none()))?;
        Ok(column)
    }

    /// Where a field stands.
    fn column(&self, field: &'static str) -> Column {
        let usual = || USUAL.iter().find(|(name, _)| *name == field).map_or("", |(_, names)| names);
        // With a preset or a mapping, what it leaves out is not there.
        let none = Column { names: Vec::new(), asked: false };
        self.columns.get(field).cloned().unwrap_or_else(|| match self.has_preset() {
            true => none,
            false => Column::any(usual()),
        })
    }

    fn has_preset(&self) -> bool {
        self.columns.values().any(|column| !column.asked)
    }
}

fn known_field(name: &str) -> Option<&'static str> {
    fields().find(|field| *field == name)
}
