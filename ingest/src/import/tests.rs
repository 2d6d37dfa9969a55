//! Tables of what files hold and what becomes of it.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::Path;

use chrono::{DateTime, Utc};
use rebound_schemas::event::{Outcome, Severity};
use rebound_schemas::incident::{Record, fold};
use rebound_schemas::{Event, EventData, Source};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn now() -> DateTime<Utc> {
    NOW.parse().unwrap()
}

fn rows(format: FileFormat, text: &str) -> Result<Rows, ImportError> {
    Rows::read(Path::new("x"), format, Box::new(Cursor::new(text.as_bytes().to_vec())), None)
}

fn utc_clock() -> Clock {
    Clock::new(chrono_tz::UTC, None, None).unwrap()
}

/// What a file of incidents becomes: events, and rejected lines with their reasons.
fn import(mapping: Mapping, rows: Rows, known: HashMap<rebound_schemas::IncidentId, Known>) -> Imported {
    let services = Services::new(mapping.services.clone(), None);
    let source = Source::of_import("test").unwrap();
    let mut incidents = Incidents::new(&rows, mapping, utc_clock(), services, source, known).unwrap();
    let mut imported = Imported::default();
    for line in rows {
        let line = line.unwrap();
        match line.row.and_then(|row| incidents.read(line.number, &row, now())) {
            Ok(Verdict::New(events)) => {
                imported.new += 1;
                imported.events.extend(events);
            }
            Ok(Verdict::Unchanged) => imported.unchanged += 1,
            Ok(Verdict::Restated(events)) => {
                imported.restated += 1;
                imported.events.extend(events);
            }
            Err(reason) => imported.rejected.push((line.number, reason)),
        }
    }
    imported.notes = incidents.notes.clone();
    imported
}

#[derive(Debug, Default)]
struct Imported {
    events: Vec<Event>,
    new: u64,
    unchanged: u64,
    restated: u64,
    rejected: Vec<(u64, String)>,
    notes: Notes,
}

fn csv(text: &str) -> Imported {
    import(Mapping::default(), rows(FileFormat::Csv, text).unwrap(), HashMap::new())
}

fn known(record: &Record) -> HashMap<rebound_schemas::IncidentId, Known> {
    record.incidents().map(|incident| (incident.id.clone(), Known::from(&incident))).collect()
}

#[test]
fn times_are_understood_as_they_are_written() {
    let table = [
        ("2025-03-30T02:15:00Z", "2025-03-30T02:15:00Z"),
        ("2025-03-30T02:15:00.123456+02:00", "2025-03-30T00:15:00.123456Z"),
        ("2025-03-30 02:15:00+0200", "2025-03-30T00:15:00Z"),
        ("2025-03-30 02:15:00 +0200", "2025-03-30T00:15:00Z"),
        ("2025-03-30 02:15:00 UTC", "2025-03-30T02:15:00Z"),
        ("2025-03-30 02:15", "2025-03-30T02:15:00Z"),
        ("2025-03-30", "2025-03-30T00:00:00Z"),
        ("Sun, 30 Mar 2025 02:15:00 +0000", "2025-03-30T02:15:00Z"),
        ("Sun, 30 Mar 2025 02:15:00 GMT", "2025-03-30T02:15:00Z"),
        ("30/Mar/25 2:15 AM", "2025-03-30T02:15:00Z"),
        ("30/Mar/25 2:15 PM", "2025-03-30T14:15:00Z"),
        ("30.03.2025 02:15", "2025-03-30T02:15:00Z"),
        ("03.04.2025 02:15:09", "2025-04-03T02:15:09Z"),
        ("30/03/2025 02:15:00", "2025-03-30T02:15:00Z"),
        ("03/30/2025 02:15 PM", "2025-03-30T14:15:00Z"),
        ("Mar 30, 2025 2:15 PM", "2025-03-30T14:15:00Z"),
        ("20250330T021500Z", "2025-03-30T02:15:00Z"),
        ("20250330021500", "2025-03-30T02:15:00Z"),
        ("1743300900", "2025-03-30T02:15:00Z"),
        ("1743300900.25", "2025-03-30T02:15:00.250Z"),
        ("1743300900123", "2025-03-30T02:15:00.123Z"),
        ("1743300900123456", "2025-03-30T02:15:00.123456Z"),
        ("1743300900123456789", "2025-03-30T02:15:00.123456789Z"),
    ];
    let mut clock = utc_clock();
    for (text, expected) in table {
        assert_eq!(clock.read(text), Ok(expected.parse().unwrap()), "{text}");
    }
}

#[test]
fn what_is_no_time_or_two_is_refused_with_what_to_write() {
    let mut clock = utc_clock();
    let table = [
        ("yesterday", "is no time that is understood"),
        ("", "is no time that is understood"),
        ("2025-02-30 10:00", "is no time that is understood"),
        ("31/02/2025", "is no day of the calendar with month 2"),
        ("03/04/2025", "say --date-order day-first or month-first"),
        ("99999999999999999999", "is too far from 1970"),
    ];
    for (text, part) in table {
        let fault = clock.read(text).unwrap_err();
        assert!(fault.contains(part), "{text}: {fault}");
    }
    let ordered = |order| Clock::new(chrono_tz::UTC, Some(order), None).unwrap().read("03/04/2025");
    assert_eq!(ordered(DateOrder::DayFirst), Ok("2025-04-03T00:00:00Z".parse().unwrap()));
    assert_eq!(ordered(DateOrder::MonthFirst), Ok("2025-03-04T00:00:00Z".parse().unwrap()));
    let mut own = Clock::new(chrono_tz::UTC, None, Some("%H:%M on %d %m %Y".into())).unwrap();
    assert_eq!(own.read("02:15 on 30 03 2025"), Ok("2025-03-30T02:15:00Z".parse().unwrap()));
    assert!(own.read("2025-03-30").unwrap_err().contains("is not written as --time-format"));
    assert!(Clock::new(chrono_tz::UTC, None, Some("%Q".into())).is_err());
    assert!(Clock::zone("Europe/Berln").unwrap_err().contains("\"Europe/Berlin\""));
}

#[test]
fn local_times_follow_the_zones_clock_changes() {
    let mut clock = Clock::new(Clock::zone("Europe/Berlin").unwrap(), None, None).unwrap();
    assert_eq!(clock.read("2025-01-01 12:00"), Ok("2025-01-01T11:00:00Z".parse().unwrap()));
    assert_eq!(clock.read("2025-07-01 12:00"), Ok("2025-07-01T10:00:00Z".parse().unwrap()));
    // Said outright, the zone does not matter.
    assert_eq!(clock.read("2025-07-01 12:00:00 UTC"), Ok("2025-07-01T12:00:00Z".parse().unwrap()));
    // 02:30 of 30 March never was.
    assert!(clock.read("2025-03-30 02:30").unwrap_err().contains("never was in Europe/Berlin"));
    // 02:30 of 26 October was twice: the first, in summer time, is taken and counted.
    assert_eq!(clock.ambiguous, 0);
    assert_eq!(clock.read("2025-10-26 02:30"), Ok("2025-10-26T00:30:00Z".parse().unwrap()));
    assert_eq!(clock.ambiguous, 1);
}

#[test]
fn a_row_becomes_the_events_of_an_incident() {
    let text = "id,service,cause,opened,acknowledged,resolved,severity\n\
        7,api,network,2025-03-01T10:00:00Z,2025-03-01T10:05:00Z,2025-03-01T11:30:00Z,P1\n";
    let imported = csv(text);
    assert_eq!(imported.new, 1);
    let record = fold(&imported.events);
    let incident = record.incidents().next().unwrap();
    assert_eq!(incident.service.as_str(), "api");
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(incident.cause.as_deref(), Some("network"));
    assert_eq!(incident.error_class.as_str(), "network");
    assert_eq!(incident.time_to_acknowledge().map(|t| t.num_seconds()), Some(300));
    assert_eq!(incident.time_to_recover().map(|t| t.num_seconds()), Some(5400));
    assert!(incident.opened_by.source.is_import());
}

#[test]
fn bad_rows_are_named_with_their_line_and_the_good_ones_go_in() {
    let text = "id,service,opened,resolved\n\
        1,api,2025-03-01T10:00:00Z,2025-03-01T10:30:00Z\n\
        2,api,2025-03-01T10:00:00Z,2025-03-01T09:30:00Z\n\
        3,,2025-03-01T10:00:00Z,\n\
        4,api,soon,\n\
        5,api,2025-03-01T10:00:00Z\n\
        1,api,2025-03-01T10:00:00Z,2025-03-01T10:30:00Z\n\
        1,api,2025-03-01T10:00:00Z,2025-03-01T10:45:00Z\n\
        6,api,2031-03-01T10:00:00Z,\n\
        7,\"two words\",2025-03-01T10:00:00Z,2025-03-01T10:00:00Z\n\
        8,api,2025-03-01T10:00:00Z,\n";
    let imported = csv(text);
    assert_eq!((imported.new, imported.unchanged), (3, 1));
    let expected = [
        (3, "resolved 2025-03-01T09:30:00.000Z lies before opened 2025-03-01T10:00:00.000Z"),
        (4, "it has no service"),
        (5, "opened: \"soon\" is no time"),
        (6, "it has 3 cells, the header 4"),
        (8, "its id stands in line 2 already, with other figures"),
        (9, "is not when this can have happened"),
    ];
    assert_eq!(imported.rejected.len(), expected.len(), "{:?}", imported.rejected);
    for ((line, reason), (at, part)) in imported.rejected.iter().zip(expected) {
        assert_eq!(*line, at, "{reason}");
        assert!(reason.contains(part), "{reason} should say {part}");
    }
    assert_eq!((imported.notes.zero_length, imported.notes.open, imported.notes.repeated), (1, 1, 1));
    assert!(imported.events.iter().any(|event| event.subject.as_str() == "two-words"));
}

#[test]
fn imported_again_nothing_changes_and_what_has_changed_is_restated() {
    let first = "id,service,cause,opened,resolved\n\
        1,api,minor,2025-03-01T10:00:00Z,2025-03-01T10:30:00Z\n\
        2,api,minor,2025-03-02T10:00:00Z,\n";
    let imported = csv(first);
    let mut events = imported.events;
    let again = import(Mapping::default(), rows(FileFormat::Csv, first).unwrap(), known(&fold(&events)));
    assert_eq!((again.new, again.unchanged, again.restated), (0, 2, 0));

    let second = "id,service,cause,opened,resolved\n\
        1,api,major,2025-03-01T09:50:00Z,2025-03-01T10:30:00Z\n\
        2,api,minor,2025-03-02T10:00:00Z,2025-03-02T10:10:00Z\n";
    let changed = import(Mapping::default(), rows(FileFormat::Csv, second).unwrap(), known(&fold(&events)));
    assert_eq!((changed.new, changed.unchanged, changed.restated), (0, 0, 2));
    events.extend(changed.events);
    let record = fold(&events);
    let incidents: Vec<_> = record.incidents().collect();
    let corrected = incidents.iter().find(|incident| incident.correction.is_some()).unwrap();
    assert_eq!(corrected.time_to_recover().map(|t| t.num_minutes()), Some(40));
    assert_eq!(corrected.cause.as_deref(), Some("major"));
    let original = corrected.correction.as_ref().unwrap().original_first_failure_at;
    assert_eq!(original, "2025-03-01T10:00:00Z".parse::<DateTime<Utc>>().unwrap());
    assert!(incidents.iter().all(|incident| !incident.is_open()));
    // The same once more, and even the first file again: the original figures are known too.
    for text in [second, first] {
        let once_more = import(Mapping::default(), rows(FileFormat::Csv, text).unwrap(), known(&record));
        assert_eq!(once_more.new, 0, "{text}");
        assert!(once_more.events.iter().all(|event| !matches!(event.data, EventData::IncidentResolved(_))));
    }
    let once_more = import(Mapping::default(), rows(FileFormat::Csv, second).unwrap(), known(&record));
    assert_eq!((once_more.unchanged, once_more.restated), (2, 0));
}

#[test]
fn presets_read_what_these_systems_export() {
    let pagerduty = r#"{"incidents":[{"id":"PT4","status":"resolved","created_at":"2025-10-06T21:30:42Z",
        "service":{"id":"S1","summary":"My Mail Service"},"urgency":"high","title":"fire",
        "acknowledgements":[{"at":"2025-10-06T21:32:52Z","acknowledger":{"summary":"Earline"}}],
        "last_status_change_at":"2025-10-06T21:38:23Z"}]}"#;
    let pagerduty_csv = "id,incident_number,description,service_name,created_on,resolved_on,seconds_to_first_ack,urgency\n\
        PT4,1,fire,My Mail Service,2025-10-06T21:30:42Z,2025-10-06T21:38:23Z,130,high\n";
    let servicenow = "number,short_description,business_service,opened_at,work_start,resolved_at,severity,close_code\n\
        INC1,fire,My Mail Service,2025-10-06 21:30:42,2025-10-06 21:32:52,2025-10-06 21:38:23,1 - High,Hardware\n";
    let jira = "Issue key,Summary,Component/s,Created,Resolved,Priority\n\
        OPS-1,fire,My Mail Service,2025-10-06 21:30:42,2025-10-06 21:38:23,Highest\n";
    let opsgenie = r#"[{"id":"a1","message":"fire","entity":"My Mail Service","createdAt":"2025-10-06T21:30:42Z",
        "priority":"P1","status":"closed","report":{"ackTime":130000,"closeTime":461000,"acknowledgedBy":"e@x"}}]"#;
    let statuspage = r#"{"page":{"id":"p"},"incidents":[{"id":"s1","name":"fire","impact":"critical",
        "created_at":"2025-10-06T21:30:42.000Z","resolved_at":"2025-10-06T21:38:23.000Z",
        "components":[{"name":"My Mail Service"}]}]}"#;
    let atom = "<?xml version=\"1.0\"?><feed xmlns=\"http://www.w3.org/2005/Atom\"><title>t</title><entry>\
        <id>tag:x,2025:1</id><published>2025-10-06T21:30:42Z</published><updated>2025-10-06T21:38:23Z</updated>\
        <title>My Mail Service</title><content type=\"html\">&lt;p&gt;&lt;strong&gt;Resolved&lt;/strong&gt; - \
        it&#39;s back&lt;/p&gt;</content></entry></feed>";
    let upptime = r#"[{"number":5,"title":"🛑 My Mail Service is down","created_at":"2025-10-06T21:30:42Z",
        "closed_at":"2025-10-06T21:38:23Z"}]"#;
    let table = [
        (Preset::PagerDuty, FileFormat::Json, pagerduty, true),
        (Preset::PagerDuty, FileFormat::Csv, pagerduty_csv, true),
        (Preset::ServiceNow, FileFormat::Csv, servicenow, true),
        (Preset::Jira, FileFormat::Csv, jira, false),
        (Preset::Opsgenie, FileFormat::Json, opsgenie, true),
        (Preset::Statuspage, FileFormat::Json, statuspage, false),
        (Preset::Atom, FileFormat::Atom, atom, false),
        (Preset::Upptime, FileFormat::Json, upptime, false),
    ];
    for (preset, format, text, acknowledged) in table {
        let imported = import(Mapping::of(preset), rows(format, text).unwrap(), HashMap::new());
        assert_eq!(imported.rejected, [], "{preset:?}");
        let record = fold(&imported.events);
        let incident = record.incidents().next().unwrap();
        assert_eq!(incident.service.as_str(), "My-Mail-Service", "{preset:?}");
        assert_eq!(incident.time_to_recover().map(|t| t.num_seconds()), Some(461), "{preset:?}");
        let expected = acknowledged.then_some(130);
        assert_eq!(incident.time_to_acknowledge().map(|t| t.num_seconds()), expected, "{preset:?}");
    }
}

#[test]
fn a_mapping_file_says_what_is_what_and_its_faults_are_told() {
    let path = Path::new("map.toml");
    let text = "source = \"legacy\"\ntz = \"Europe/Berlin\"\n[columns]\nid = \"Ticket\"\nopened = \"From\"\nresolved = \"To\"\n\
        service = \"System\"\ncause = \"Why\"\n[services]\n\"Mail (old)\" = \"mail\"\n[causes]\nDisk = \"resource_constraint\"\n";
    let mapping = Mapping::from_toml(path, text).unwrap();
    assert_eq!(mapping.source.as_deref(), Some("legacy"));
    let file = "Ticket;System;Why;From;To\n9;Mail (old);Disk;2025-03-01 10:00;2025-03-01 10:30\n";
    let imported = import(mapping, rows(FileFormat::Csv, file).unwrap(), HashMap::new());
    let record = fold(&imported.events);
    let incident = record.incidents().next().unwrap();
    assert_eq!((incident.service.as_str(), incident.error_class.as_str()), ("mail", "resource_constraint"));
    let faults = [
        ("preset = \"remedy\"", "preset \"remedy\" is unknown: write one of servicenow"),
        ("[columns]\nopend = \"x\"", "did you mean \"opened\"?"),
        ("[causes]\nx = \"bad\"", "[causes] \"x\": \"bad\" is no class"),
        ("service_pattern = \"x\"", "has no group"),
        ("service_pattern = \"(\"", "service_pattern:"),
        ("format = \"xls\"", "format \"xls\" is unknown"),
        ("colums = 1", "unknown field `colums`"),
    ];
    for (text, part) in faults {
        let fault = Mapping::from_toml(path, text).unwrap_err().to_string();
        assert!(fault.starts_with("map.toml: ") && fault.contains(part), "{fault}");
    }
}

#[test]
fn a_missing_column_is_named_with_the_nearest_that_is_there() {
    let text = "ticket,service,opened_on\n1,api,2025-03-01\n";
    let refused = |mapping: Mapping| {
        let rows = rows(FileFormat::Csv, text).unwrap();
        let source = Source::of_import("test").unwrap();
        Incidents::new(&rows, mapping, utc_clock(), Services::default(), source, HashMap::new())
            .unwrap_err()
            .to_string()
    };
    let mut mapping = Mapping::default();
    mapping.set("id", Column::named("tickets"));
    assert_eq!(
        refused(mapping.clone()),
        "x has no column for id: \"tickets\" is not in its header; did you mean \"ticket\"? (it has ticket, service, opened_on)"
    );
    mapping.set("id", Column::named("ticket"));
    assert_eq!(
        refused(mapping),
        "x has no column for opened: say which by --opened COLUMN (it has ticket, service, opened_on)"
    );
}

#[test]
fn files_that_are_not_what_they_say_are_refused_as_a_whole_or_by_row() {
    let fault = |format, text: &str| rows(format, text).map(|_| ()).unwrap_err().to_string();
    assert!(fault(FileFormat::Json, "{\"a\":1}\n{\"a\":2}").contains("give --format ndjson"));
    assert!(fault(FileFormat::Json, "{\"a\":1}").contains("an object without a list"));
    assert!(fault(FileFormat::Json, "{\"a\":[],\"b\":[]}").contains("several lists"));
    assert!(fault(FileFormat::Atom, "<feed></feed>").contains("expected an Atom feed"));
    assert!(fault(FileFormat::Atom, "<feed><entry></feed>").contains("no XML"));
    assert_eq!(fault(FileFormat::Csv, ""), "x holds no rows");
    let lines: Vec<_> = rows(FileFormat::Ndjson, "{\"a\":1}\n\nnot json\n[1]\n").unwrap().map(Result::unwrap).collect();
    assert_eq!(
        lines.iter().map(|line| (line.number, line.row.is_ok())).collect::<Vec<_>>(),
        [(1, true), (3, false), (4, false)]
    );
    let long = format!("{{\"a\":\"{}\"}}\n{{\"a\":1}}\n", "x".repeat(MAX_ROW_BYTES));
    let lines: Vec<_> = rows(FileFormat::Ndjson, &long).unwrap().map(Result::unwrap).collect();
    assert!(lines[0].row.as_ref().unwrap_err().contains("longer than 1024 KiB"));
    assert!(lines[1].row.is_ok() && lines[1].number == 2);
    let latin =
        Rows::read(Path::new("x"), FileFormat::Csv, Box::new(Cursor::new(b"a,b\n1,\xfc\n2,x\n".to_vec())), None);
    let lines: Vec<_> = latin.unwrap().map(Result::unwrap).collect();
    assert!(lines[0].row.as_ref().unwrap_err().contains("column \"b\" is not UTF-8"));
    assert!(lines[1].row.is_ok());
}

#[test]
fn rejected_rows_can_be_mended_and_imported_again() {
    let text = "id,service,opened\n1,api,soon\n2,api\n";
    let rejected = |format, text: &str| {
        let rows = rows(format, text).unwrap();
        let mut out = Vec::new();
        let mut rejects = Rejects::new(&mut out, rows.header()).unwrap();
        for line in rows {
            rejects.write(&line.unwrap(), "why").unwrap();
        }
        rejects.finish().unwrap();
        drop(rejects);
        String::from_utf8(out).unwrap()
    };
    let written = rejected(FileFormat::Csv, text);
    assert_eq!(written, "id,service,opened,rejected_line,rejected_reason\n1,api,soon,2,why\n\"2,api\",,,3,why\n");
    // Rejected again, its columns are not doubled.
    assert_eq!(rejected(FileFormat::Csv, &written).lines().next(), written.lines().next());
    assert_eq!(csv(&written.replace("soon", "2025-03-01")).new, 1);
    let written = rejected(FileFormat::Ndjson, "{\"id\":1}\nnope\n");
    assert_eq!(
        written,
        "{\"id\":1,\"rejected_line\":1,\"rejected_reason\":\"why\"}\n{\"raw\":\"nope\",\"rejected_line\":2,\"rejected_reason\":\"why\"}\n"
    );
}

#[test]
fn probe_results_are_read_and_count_once() {
    let text = "time,service,outcome,latency_ms\n\
        2025-03-01T10:00:00Z,api,up,12.5\n\
        2025-03-01T10:00:10Z,api,down,\n\
        2025-03-01T10:00:10Z,api,down,\n\
        2025-03-01T10:00:20Z,api,perhaps,1\n\
        2025-03-01T10:00:20Z,api,1,-4\n";
    let read = |known: Vec<String>| {
        let rows = rows(FileFormat::Csv, text).unwrap();
        let source = Source::of_import("test").unwrap();
        let mut probes =
            Probes::new(&rows, Mapping::default(), utc_clock(), Services::default(), source, known).unwrap();
        rows.map(|line| probes.read(&line.unwrap().row.unwrap(), now())).collect::<Vec<_>>()
    };
    let first = read(Vec::new());
    let Ok(Verdict::New(events)) = &first[0] else { panic!("{:?}", first[0]) };
    let EventData::ProbeCompleted(data) = &events[0].data else { panic!("a probe result") };
    assert_eq!((data.outcome, data.latency_us), (Outcome::Healthy, 12_500));
    assert!(matches!(first[1], Ok(Verdict::New(_))));
    assert_eq!(first[2], Ok(Verdict::Unchanged));
    assert!(first[3].as_ref().unwrap_err().contains("\"perhaps\" is no outcome"));
    assert!(first[4].as_ref().unwrap_err().contains("\"-4\" is no number of milliseconds"));
    let again = read(vec![events[0].id.as_str().to_owned()]);
    assert_eq!(again[0], Ok(Verdict::Unchanged));
}

#[test]
fn severities_are_known_by_word_and_by_number() {
    let table = [
        ("critical", Some(Severity::Critical)),
        ("SEV-1", Some(Severity::Critical)),
        ("P3", Some(Severity::Warning)),
        ("4 - Low", Some(Severity::Info)),
        ("High", Some(Severity::Critical)),
        ("minor", Some(Severity::Warning)),
        ("purple", None),
    ];
    for (word, expected) in table {
        assert_eq!(words::severity(word), expected, "{word}");
    }
    let imported = csv("id,service,opened,severity\n1,api,2025-03-01,purple\n");
    assert_eq!(imported.notes.unknown_severities, BTreeMap::from([("purple".to_owned(), 1)]));
}
