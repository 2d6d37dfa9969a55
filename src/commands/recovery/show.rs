//! Recoveries as people read them: what holds automation back first, then what needs somebody, then the rest.

use serde_json::Value;

use crate::commands::print_table;

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// To the second: people read it.
fn time(value: &Value) -> String {
    text(value).get(..19).map(|text| format!("{text}Z")).unwrap_or_default()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What people and programs wrote, on one line and without control characters.
fn line(value: &Value) -> String {
    let mut words = text(value).split_whitespace().collect::<Vec<_>>().join(" ");
    words.retain(|c| !c.is_control());
    words
}

fn state(row: &Value) -> String {
    row["outcome"].as_str().unwrap_or_else(|| text(&row["state"])).replace('_', " ")
}

pub(super) fn list(answer: &Value) {
    for pause in rows(&answer["pauses"]) {
        let until = match &pause["until"] {
            Value::Null => "until somebody resumes".to_owned(),
            until => format!("until {}", time(until)),
        };
        let (covers, since) = (text(&pause["covers"]), time(&pause["since"]));
        println!("paused: {covers}, since {since}, {until}, by {}: {}", line(&pause["by"]), line(&pause["reason"]));
    }
    for demoted in rows(&answer["demoted"]) {
        let (procedure, since) = (text(&demoted["procedure"]), time(&demoted["since"]));
        let percent = demoted["below"].as_f64().unwrap_or_default() * 100.0;
        println!(
            "demoted: procedure {procedure}, since {since}: {} of {} recoveries worked, and at least {percent:.0} % of {} \
             must; people approve each until `rebound recovery promote {procedure}`",
            demoted["succeeded"], demoted["attempts"], demoted["over"]
        );
    }
    for request in rows(&answer["requests"]) {
        let what = match &request["declined"] {
            Value::Null => "nobody has decided yet".to_owned(),
            why => format!("declined: {}", line(why)),
        };
        let (by, service) = (line(&request["by"]), text(&request["service"]));
        println!("asked for: {service}, by {by} at {}: {what}", time(&request["at"]));
    }
    let recoveries = rows(&answer["recoveries"]);
    if recoveries.is_empty() {
        println!("no recovery to show");
        return;
    }
    let row = |row: &Value| {
        let at = ["finished_at", "started_at", "triggered_at", "withheld_at"].iter().find(|key| !row[**key].is_null());
        [
            text(&row["recovery"]).to_owned(),
            text(&row["service"]).to_owned(),
            row["attempt"].to_string(),
            text(&row["procedure"]).to_owned(),
            state(row),
            at.map(|key| time(&row[*key])).unwrap_or_default(),
            row["by"].as_str().map_or_else(|| "automation".to_owned(), |_| line(&row["by"])),
            why(row),
        ]
    };
    print_table(
        ["recovery", "service", "attempt", "procedure", "state", "since", "by", "why"],
        recoveries.iter().map(row),
    );
}

/// Why it ended so; else what it waits for, and what for it is.
fn why(row: &Value) -> String {
    let reason = line(&row["reason"]);
    match (&row["outcome_reason"], &row["waits_for"]) {
        (Value::Null, Value::Null) => reason,
        (Value::Null, waits_for) => format!("waits for {}; {reason}", line(waits_for)),
        (ended, _) => line(ended),
    }
}

pub(super) fn detail(answer: &Value) {
    let word = |key: &str| line(&answer[key]);
    let (recovery, service, procedure) = (word("recovery"), word("service"), word("procedure"));
    let by_procedure = if procedure.is_empty() { String::new() } else { format!(" by procedure {procedure}") };
    println!("{recovery}: {service}{by_procedure}, attempt {}, {}", answer["attempt"], state(answer));
    if let Some(incident) = answer["incident"].as_str() {
        println!("for {incident}: `rebound explain {incident}` tells its whole story");
    }
    let by = answer["by"].as_str().map_or_else(|| "automation".to_owned(), |_| word("by"));
    match &answer["triggered_at"] {
        Value::Null => println!("not triggered, since {}: {}", time(&answer["withheld_at"]), word("reason")),
        at => println!("asked for by {by} at {}: {}", time(at), word("reason")),
    }
    if !answer["waits_for"].is_null() {
        println!("it waits for {}", word("waits_for"));
    }
    for gate in rows(&answer["gates"]) {
        println!("step {} asks: {}", text(&gate["step"]), line(&gate["question"]));
    }
    let overrides: Vec<&str> = rows(&answer["overrides"]).iter().map(text).collect();
    if !overrides.is_empty() {
        println!("forced past: {}", overrides.join(", "));
    }
    for said in rows(&answer["words"]) {
        let comment = if said["comment"].is_null() { String::new() } else { format!(": {}", line(&said["comment"])) };
        let step = said["step"].as_str().map(|step| format!(" step {step}")).unwrap_or_default();
        println!("{}{step} by {} at {}{comment}", text(&said["word"]), line(&said["by"]), time(&said["at"]));
    }
    let row = |row: &Value| {
        let end = text(if row["error"].is_null() { &row["output"] } else { &row["error"] });
        let end = line(&end.trim_end().lines().last().unwrap_or_default().into());
        let outcome = row["outcome"].as_str().unwrap_or("running").replace('_', " ");
        [text(&row["step"]).to_owned(), row["attempt"].to_string(), line(&row["action"]), outcome, end]
    };
    let steps: Vec<_> = rows(&answer["steps"]).iter().map(row).collect();
    if !steps.is_empty() {
        print_table(["step", "attempt", "action", "outcome", "end"], steps);
    }
    if !answer["outcome_reason"].is_null() {
        println!("{}", word("outcome_reason"));
    }
    for remedy in remedies(answer, &recovery, &service) {
        println!("{remedy}");
    }
}

/// What a person can do about it now.
fn remedies(answer: &Value, recovery: &str, service: &str) -> Vec<String> {
    match text(&answer["state"]) {
        "awaiting_approval" => vec![
            format!("yes: rebound recovery approve {recovery}"),
            format!("no:  rebound recovery reject {recovery} --comment WHY"),
        ],
        "awaiting_step" => {
            let yes = |gate: &Value| format!("yes: rebound recovery approve {recovery} --step {}", text(&gate["step"]));
            let no = format!("no:  rebound recovery cancel {recovery} --comment WHY");
            rows(&answer["gates"]).iter().map(yes).chain([no]).collect()
        }
        "withheld" => vec![format!("all the same: rebound recovery run {service} --comment WHY")],
        "running" | "queued" | "paused" => vec![format!("stop it: rebound recovery cancel {recovery} --comment WHY")],
        _ => Vec::new(),
    }
}
