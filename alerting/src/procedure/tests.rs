//! How texts are filled in, procedures unfolded and actions described.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rebound_schemas::event::{ErrorClass, StepFinished, StepOutcome};
use rebound_schemas::plan::{OnCancel, OnFailure, Plan, Procedure, Step};
use rebound_schemas::{IncidentId, RecoveryId, ServiceId, SiteId};

use super::*;

pub(super) fn placeholders() -> Placeholders {
    Placeholders {
        service: ServiceId::new("api").unwrap(),
        site: SiteId::new("primary").unwrap(),
        incident: IncidentId::new("inc-1").unwrap(),
        recovery: RecoveryId::new("rec-1").unwrap(),
        attempt: 2,
        reason: "connection {refused}".into(),
        error_class: ErrorClass::Network,
        first_failure_at: chrono::DateTime::from_timestamp(0, 0).unwrap(),
        inputs: BTreeMap::new(),
    }
}

pub(super) fn plan() -> Plan {
    let service = |id: &str, needs: &str| format!("[[service]]\nid = \"{id}\"\ndepends_on = [{needs}]\n");
    let text = service("db", "") + &service("api", "\"db\"") + &service("web", "\"api\"") + &service("app", "\"web\"");
    let inner = "[[procedure]]\nid = \"inner\"\n\
        [[procedure.step]]\nid = \"find\"\ncommand = [\"/bin/find\"]\n\
        [[procedure.step]]\nid = \"use\"\ncommand = [\"/bin/use\", \"{steps.find.output}\"]\n\
        [[procedure.rollback]]\nundoes = \"use\"\ncommand = [\"/bin/undo\"]\n";
    Plan::parse(&format!("allow = [\"/bin/find\", \"/bin/use\", \"/bin/undo\"]\n{text}{inner}"), "plan.toml").unwrap()
}

pub(super) fn step(id: &str, needs: &[&str]) -> Step {
    Step {
        id: StepId::new(id).unwrap(),
        name: id.into(),
        needs: needs.iter().map(|n| StepId::new(n).unwrap()).collect(),
        after: vec![],
        when: None,
        each: None,
        undoes: None,
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(3),
        action: Action::Command { argv: vec!["/bin/true".into(), "{service}".into()], env: BTreeMap::new() },
        timeout: Duration::from_secs(1),
        retries: 0,
        on_failure: OnFailure::Stop,
    }
}

pub(super) fn procedure(steps: Vec<Step>) -> Procedure {
    let (rollback, failover) = (vec![], None);
    let id = ProcedureId::new("p").unwrap();
    Procedure {
        id,
        name: "p".into(),
        steps,
        rollback,
        concurrency: 1,
        parallel: 1,
        failover,
        inputs: BTreeMap::new(),
        demotion: None,
        on_cancel: OnCancel::Stop,
    }
}

#[test]
fn placeholders_are_filled_and_nothing_else_is_touched() {
    let cases = [
        ("restart {service} at {site}", Ok("restart api at primary")),
        ("{incident}/{recovery}#{attempt}", Ok("inc-1/rec-1#2")),
        ("{servise}", Err("servise")),
        ("{{service}}", Ok("{service}")),
        ("{{servise}}", Ok("{servise}")),
        (r#"{"a": {"b": "{service}"}}"#, Ok(r#"{"a": {"b": "api"}}"#)),
        (r#"{"a":{service}}"#, Ok(r#"{"a":api}"#)),
        ("${HOME} {} { } {", Ok("${HOME} {} { } {")),
        ("{{{service}}}", Ok("{{service}}")),
        ("", Ok("")),
        ("ü{service}ü", Ok("üapiü")),
    ];
    for (text, want) in cases {
        let value = |name: &str| placeholders().value(name).ok_or_else(|| name.to_owned());
        assert_eq!(fill(text, &value), want.map(String::from).map_err(String::from), "{text}");
    }
}

#[test]
fn values_are_not_filled_again() {
    let value = |name: &str| Ok(if name == "steps.a-b.output" { "{site}".to_owned() } else { name.to_uppercase() });
    assert_eq!(fill("{steps.a-b.output} {site} {{steps.a.output}}", &value).unwrap(), "{site} SITE {steps.a.output}");
}

#[test]
fn steps_are_put_in_order_and_faults_are_named() {
    let unfolded =
        unfold(&procedure(vec![step("c", &["b"]), step("a", &[]), step("b", &["a"])]), &plan(), &placeholders());
    let unfolded = unfolded.unwrap().steps;
    let order: Vec<_> = unfolded.iter().map(|r| (r.step.id.as_str(), r.needs.clone())).collect();
    assert_eq!(order, [("a", vec![]), ("b", vec![0]), ("c", vec![1])]);

    let cycle =
        unfold(&procedure(vec![step("a", &["b"]), step("b", &["a"]), step("c", &[])]), &plan(), &placeholders());
    assert_eq!(cycle.unwrap_err().to_string(), "procedure p: steps need one another: a, b");
    let unknown = unfold(&procedure(vec![step("a", &["x"])]), &plan(), &placeholders()).unwrap_err();
    assert_eq!(unknown.to_string(), "procedure p, step a: it needs x, which is not a step of the procedure");
    let mut wrong = step("a", &[]);
    wrong.action = Action::Manual { instruction: "call {who}".into() };
    let error = unfold(&procedure(vec![wrong]), &plan(), &placeholders()).unwrap_err().to_string();
    assert!(error.starts_with("procedure p, step a: {who} is not a placeholder"), "{error}");
    assert!(error.ends_with("(write {{who}} for the text itself)"), "{error}");
}

#[test]
fn descriptions_carry_no_secrets() {
    let env = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
    let command = Action::Command { argv: vec!["/bin/restart".into(), "api".into()], env: env.clone() };
    assert_eq!(describe(&command), "run /bin/restart api");
    let http = Action::Http {
        method: "POST".into(),
        url: "https://me:hunter2@example.com:8443/restart?token=hunter2#hunter2".into(),
        headers: env,
        body: Some("hunter2".into()),
        allow_private: false,
    };
    assert_eq!(describe(&http), "POST https://example.com:8443/restart");
    let long = Action::Manual { instruction: "ü".repeat(400) };
    assert!(describe(&long).len() <= MAX_DESCRIPTION_BYTES && describe(&long).ends_with('…'));
}

pub(super) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((any::<u8>(), 0..3u32, any::<bool>(), 0..6u8), 0..8).prop_map(|rows| {
        let steps = rows.iter().enumerate().map(|(index, (needs, retries, stop, manual_if_zero))| {
            // Needs point backwards only, so that there is an order; the rows are turned round afterwards.
            let needs: Vec<String> = (0..index).filter(|n| needs >> n & 1 == 1).map(|n| format!("s{n}")).collect();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let mut step = step(&format!("s{index}"), &needs);
            step.retries = *retries;
            step.on_failure = if *stop { OnFailure::Stop } else { OnFailure::Continue };
            if *manual_if_zero == 0 {
                step.action = Action::Manual { instruction: "look".into() };
            }
            step
        });
        steps.rev().collect()
    })
}

proptest! {
    #![proptest_config(crate::cases::cheap())]

    #[test]
    fn needs_come_first_whatever_the_order_written(steps in any_steps()) {
        let unfolded = unfold(&procedure(steps.clone()), &plan(), &placeholders()).unwrap().steps;
        prop_assert_eq!(unfolded.len(), steps.len());
        for (index, ready) in unfolded.iter().enumerate() {
            prop_assert!(ready.needs.iter().all(|needed| *needed < index));
        }
    }

}

#[test]
fn inputs_are_those_handed_or_the_procedures_own() {
    let text = "allow = [\"/bin/true\"]\n[[service]]\nid = \"api\"\n\
        [[procedure]]\nid = \"outer\"\ninputs = { until = \"latest\", level = \"full\" }\n\
        [[procedure.step]]\nid = \"own\"\nwhen = \"input.level == 'full'\"\ncommand = [\"/bin/true\", \"{input.until}\"]\n\
        [[procedure.step]]\nid = \"nested\"\nprocedure = \"inner\"\n\
        [[procedure]]\nid = \"inner\"\ninputs = { until = \"never\", where = \"here\" }\n\
        [[procedure.step]]\nid = \"deep\"\ncommand = [\"/bin/true\", \"{input.until} {input.where}\"]\n";
    let plan = Plan::parse(text, "plan.toml").unwrap();
    let outer = &plan.procedures()[&ProcedureId::new("outer").unwrap()];
    let actions = |handed: &[(&str, &str)]| {
        let inputs = handed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut state = RunState::new(unfold(outer, &plan, &Placeholders { inputs, ..placeholders() }).unwrap());
        let mut told = Vec::new();
        while let Next::Run { index, attempt, action, .. } = state.next() {
            told.push(describe(&action));
            let step = state.steps()[index].step.id.clone();
            let (recovery, incident) = (RecoveryId::new("rec-1").unwrap(), IncidentId::new("inc-1").unwrap());
            let (code, output, error, outcome, duration_ms) = (None, None, None, StepOutcome::Succeeded, 1);
            let index = u32::try_from(index).unwrap();
            let data =
                StepFinished { recovery, incident, step, index, attempt, outcome, duration_ms, code, output, error };
            state.evolve(&data.into());
        }
        told
    };
    assert_eq!(actions(&[]), ["run /bin/true latest", "run /bin/true latest here"], "the outer's value holds within");
    assert_eq!(
        actions(&[("until", "10:00"), ("where", "there")]),
        ["run /bin/true 10:00", "run /bin/true 10:00 there"]
    );
}
