//! Recoveries that people refused, or that nobody let go on.

use super::*;

#[test]
fn a_refusal_is_part_of_its_recovery_and_acknowledges_the_incident() {
    let history = [opened(1, 0, 20), triggered(1, 1, 21, None), rejected(1, 30), cancelled(1, 40)];
    let record = fold(&history);
    let refused = record.recoveries().next().unwrap().refused.unwrap();
    assert_eq!((refused.at, refused.by.as_deref(), refused.how), (at(30), Some("lee"), Refused::Rejected), "the first");
    let incident = record.incident_of(&inc(1)).unwrap();
    assert_eq!(incident.acknowledged_by_human.map(|a| (a.at, a.by)), Some((at(30), "lee".into())));
    assert_eq!(incident.acknowledged_by_automation, None);
    // Said before the trigger was seen, it is the same.
    assert_eq!(fold(history.iter().rev()), record);
}

#[test]
fn an_approval_that_nobody_gave_in_time_is_part_of_the_incident_and_nobodys_acknowledgement() {
    let record = fold(&[opened(1, 0, 20), triggered(1, 1, 21, None), expired(1, 1, 80)]);
    let refused = record.recoveries().next().unwrap().refused.unwrap();
    assert_eq!((refused.at, refused.by, refused.how), (at(80), None, Refused::Expired));
    assert_eq!(record.incident_of(&inc(1)).unwrap().acknowledged, None);
}

#[test]
fn a_step_that_was_let_go_on_is_no_approval_of_the_recovery() {
    let step = Some(StepId::new("sure").unwrap());
    let data = RecoveryApproved { recovery: rec(1), by: "kim".into(), comment: None, step };
    let record = fold(&[opened(1, 0, 20), triggered(1, 1, 21, None), event("step", 30, data)]);
    let recovery = record.recoveries().next().unwrap();
    assert_eq!((recovery.approved_at, recovery.approved_by), (None, None));
    assert_eq!(record.incident_of(&inc(1)).unwrap().acknowledged_by_human.map(|a| a.at), Some(at(30)));
}
