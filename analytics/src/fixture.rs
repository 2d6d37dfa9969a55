//! A small event log on disk and the events to put into it, for this crate's tests.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use arrow::compute::cast;
use chrono::{DateTime, Utc};
use deltalake::{DeltaTable, kernel::Version};
use rebound_schemas::codec::{decode_full, encode};
use rebound_schemas::event::*;
use rebound_schemas::ids::*;
use rebound_schemas::table::{PARTITION_COLUMN, Position, Row, RowBuilder, table_schema};
use tempfile::TempDir;

pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
}

pub(crate) fn service(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

/// That a figure is the published one, to nine digits behind the point.
pub(crate) fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

pub(crate) fn event(source: &str, id: &str, service: &str, seconds: i64, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(id).unwrap(),
        source: Source::new(source).unwrap(),
        subject: self::service(service),
        occurred_at: at(seconds),
        plan: None,
        data: data.into(),
    }
}

pub(crate) fn probe(source: &str, id: &str, service: &str, seconds: i64, outcome: Outcome) -> Event {
    let data = ProbeCompleted {
        probe: ProbeId::new(&format!("{service}/http")).unwrap(),
        outcome,
        latency_us: 1_500,
        site: None,
        error_class: (outcome == Outcome::Failed).then_some(ErrorClass::Network),
        reason: None,
        http_status: Some(200),
        certificate_expires_at: None,
    };
    event(source, id, service, seconds, data)
}

pub(crate) fn opened(n: u32, service: &str, t0: i64, t1: i64) -> Event {
    let data = IncidentOpened {
        incident: IncidentId::new(&format!("inc-{n}")).unwrap(),
        severity: Severity::Critical,
        first_failure_at: at(t0),
        last_success_at: None,
        detected_at: at(t1),
        policy: None,
        error_class: ErrorClass::Network,
        cause: None,
        reason: "refused".into(),
    };
    event("rebound/alerting", &format!("inc-{n}:opened"), service, t1, data)
}

pub(crate) fn resolved(n: u32, service: &str, t3: i64, t4: i64) -> Event {
    let incident = IncidentId::new(&format!("inc-{n}")).unwrap();
    let data = IncidentResolved { incident, recovered_at: at(t3), recovery: None };
    event("rebound/alerting", &format!("inc-{n}:resolved"), service, t4, data)
}

/// An incident from t0 to t3, each known ten seconds later.
pub(crate) fn outage(n: u32, service: &str, t0: i64, t3: i64) -> Vec<Event> {
    vec![opened(n, service, t0, t0 + 10), resolved(n, service, t3, t3 + 10)]
}

pub(crate) fn excluded(n: u32, service: &str, seconds: i64) -> Event {
    let data = IncidentCorrected {
        incident: IncidentId::new(&format!("inc-{n}")).unwrap(),
        by: "kim".into(),
        reason: "a false alarm".into(),
        first_failure_at: None,
        recovered_at: None,
        error_class: None,
        cause: None,
        exclude: true,
    };
    event("console", &format!("inc-{n}:corrected"), service, seconds, data)
}

pub(crate) fn acknowledged(n: u32, service: &str, seconds: i64, automated: bool) -> Event {
    let incident = IncidentId::new(&format!("inc-{n}")).unwrap();
    let data = IncidentAcknowledged { incident, by: "kim".into(), automated, comment: None };
    event("console", &format!("inc-{n}:acknowledged"), service, seconds, data)
}

/// The events of one recovery with one step.
pub(crate) fn recovery(n: u32, service: &str, from: i64) -> Vec<Event> {
    let (recovery, incident) =
        (RecoveryId::new(&format!("rec-{n}")).unwrap(), IncidentId::new(&format!("inc-{n}")).unwrap());
    let (procedure, step) = (ProcedureId::new("restart").unwrap(), StepId::new("start").unwrap());
    let method = Some(RecoveryMethod::WarmStandby);
    let triggered = RecoveryTriggered {
        recovery: recovery.clone(),
        incident: incident.clone(),
        attempt: 1,
        procedure: procedure.clone(),
        method,
        mode: TriggerMode::Auto,
        first_failure_at: at(from - 10),
        not_before: None,
        by: None,
        reason: None,
        error_class: None,
        approve_until: None,
        asked: None,
    };
    let started = RecoveryStarted {
        recovery: recovery.clone(),
        incident: incident.clone(),
        procedure: procedure.clone(),
        runner: "runner-1".into(),
    };
    let done = StepFinished {
        recovery: recovery.clone(),
        incident: incident.clone(),
        step,
        index: 0,
        attempt: 1,
        outcome: StepOutcome::Succeeded,
        duration_ms: 2_500,
        code: Some(0),
        output: None,
        error: None,
    };
    let verified = RecoveryVerified {
        recovery: recovery.clone(),
        incident: incident.clone(),
        passed: true,
        checks: vec![],
        evidence: vec![],
    };
    let finished = RecoveryFinished {
        recovery,
        incident,
        attempt: 1,
        procedure,
        method,
        outcome: RecoveryOutcome::Succeeded,
        duration_ms: 9_000,
        error_class: None,
        reason: None,
    };
    let say = |what: &str, seconds, data: EventData| {
        event("rebound/recovery", &format!("rec-{n}:{what}"), service, seconds, data)
    };
    vec![
        say("triggered", from, triggered.into()),
        say("started", from + 1, started.into()),
        say("step", from + 4, done.into()),
        say("verified", from + 9, verified.into()),
        say("finished", from + 10, finished.into()),
    ]
}

pub(crate) struct Log {
    folder: TempDir,
    table: DeltaTable,
    offset: i64,
}

impl Log {
    /// A log with these events in one commit.
    pub(crate) async fn with(events: &[Event]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = deltalake::table::builder::parse_table_uri(folder.path().to_str().unwrap()).unwrap();
        let table = DeltaTable::try_from_url(url).await.unwrap();
        let mut log = Self { folder, table, offset: 0 };
        log.append(events).await;
        log
    }

    pub(crate) fn location(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// One commit, each event at the next offset of its topic's partition 0, taken in a second after the last.
    pub(crate) async fn append(&mut self, events: &[Event]) {
        let mut rows = RowBuilder::new();
        for event in events {
            let json = encode(event);
            let decoded = decode_full(&json).unwrap();
            let ingested_at = at(self.offset).timestamp_micros();
            let position = Position { topic: event.kind().topic(), partition: 0, offset: self.offset, ingested_at };
            rows.push(&Row::of_event(&decoded, position));
            self.offset += 1;
        }
        let batches = rows.finish().into_iter().map(|day| {
            let schema = table_schema();
            let column = |name: &str, kind| -> ArrayRef {
                if name == PARTITION_COLUMN {
                    return Arc::new(Date32Array::from(vec![day.day; day.batch.num_rows()]));
                }
                cast(day.batch.column_by_name(name).unwrap(), kind).unwrap()
            };
            let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
            RecordBatch::try_new(schema, columns).unwrap()
        });
        let mut batches: Vec<_> = batches.collect();
        // A log in which nothing happened yet has its columns all the same.
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(table_schema()));
        }
        let write = self.table.clone().write(batches);
        self.table = write.with_partition_columns([PARTITION_COLUMN]).await.unwrap();
    }

    /// Rewrites the data files into fewer, without changing what they hold.
    pub(crate) async fn compact(&mut self) {
        self.table = self.table.clone().optimize().await.unwrap().0;
    }

    pub(crate) fn version(&self) -> Version {
        self.table.version().unwrap()
    }
}
