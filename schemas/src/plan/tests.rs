//! The plan as a whole: defaults, what the examples say, and that no text makes the parser panic.

use std::time::Duration;

use super::*;

/// The smallest plan.
const SMALL: &str = "[[service]]\nid = \"web\"\n[[service.probe]]\nhttp = \"http://127.0.0.1:8080/\"\n";

#[test]
fn a_plan_of_four_lines_has_every_default() {
    let plan = Plan::parse(SMALL, "plan.toml").unwrap();
    let web = &plan.services()["web"];
    assert_eq!((web.tier.as_str(), web.site.as_str(), web.policy.as_str()), ("tier-1", "primary", "default"));
    assert_eq!(web.name, "web");
    let probe = &plan.probes()["web/http"];
    assert_eq!((probe.every, probe.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    let policy = plan.policy_of(&web.id).unwrap();
    assert_eq!((policy.failures, policy.recoveries, policy.sites), (3, 2, 1));
    assert_eq!(policy.silent_after, Duration::from_secs(30));
    assert_eq!(policy.verify_within, Duration::from_secs(60));
    assert_eq!(policy.notify[0].as_str(), "log");
    assert_eq!(plan.channels()["log"].kind, ChannelKind::Log);
    assert_eq!(plan.start_order()[0].as_str(), "web");
}
