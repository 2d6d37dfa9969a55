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

#[test]
fn times_follow_the_slowest_probe_unless_written() {
    let slow = format!("{SMALL}every = \"2m\"\n");
    let plan = Plan::parse(&slow, "plan.toml").unwrap();
    let policy = &plan.policies()["default"];
    assert_eq!((policy.silent_after, policy.verify_within), (Duration::from_secs(360), Duration::from_secs(240)));
    let written = format!("{slow}[[policy]]\nid = \"default\"\nsilent_after = \"5m\"\nverify_within = \"3m\"\n");
    let plan = Plan::parse(&written, "plan.toml").unwrap();
    let policy = &plan.policies()["default"];
    assert_eq!((policy.silent_after, policy.verify_within), (Duration::from_secs(300), Duration::from_secs(180)));
}

#[test]
fn the_objective_may_be_exactly_as_long_as_detection_and_verification() {
    // 3 failures 10 s apart and 60 s of verification: 90 s.
    let with = |rto: &str| Plan::parse(&SMALL.replace("id =", &format!("rto = \"{rto}\"\nid =")), "plan.toml");
    assert!(with("90s").is_ok());
    assert!(with("89s").unwrap_err().to_string().contains("service.web.rto: 1m 29s can't be met"));
}

#[test]
fn steps_need_the_one_above_unless_they_say_otherwise() {
    let text = format!(
        "{SMALL}[[procedure]]\nid = \"p\"\n\
         [[procedure.step]]\nid = \"c\"\nneeds = [\"b\"]\nmanual = \"x\"\n\
         [[procedure.step]]\nid = \"a\"\nneeds = []\nmanual = \"x\"\n\
         [[procedure.step]]\nid = \"b\"\nmanual = \"x\"\n"
    );
    let plan = Plan::parse(&text, "plan.toml").unwrap();
    let steps = &plan.procedures()["p"].steps;
    let found: Vec<_> =
        steps.iter().map(|step| (step.id.as_str(), step.needs.iter().map(AsRef::as_ref).collect())).collect();
    assert_eq!(found, [("a", vec![]), ("b", vec!["a"]), ("c", vec!["b"])]);
}

#[test]
fn services_that_the_start_order_leaves_out_come_as_soon_as_they_can() {
    let service = |id: &str, needs: &str| format!("[[service]]\nid = \"{id}\"\ndepends_on = [{needs}]\n");
    let text = format!(
        "start_order = [\"c\", \"a\"]\n{}{}{}{}",
        service("a", "\"b\""),
        service("b", ""),
        service("c", ""),
        service("d", "\"a\"")
    );
    let plan = Plan::parse(&text, "plan.toml").unwrap();
    assert_eq!(plan.start_order().iter().map(ServiceId::as_str).collect::<Vec<_>>(), ["b", "c", "a", "d"]);
}

#[test]
fn relative_paths_are_of_the_plans_folder() {
    let text =
        "allow = [\"./bin/x\"]\n[[service]]\nid = \"web\"\n[[service.probe]]\ncommand = [\"./bin/x\", \"./y\"]\n";
    let plan = Plan::parse_in(text, "plan.toml", "/srv/plan/").unwrap();
    assert_eq!(plan.allow(), ["/srv/plan/bin/x"]);
    let Check::Command(command) = &plan.probes()["web/command"].check else { panic!("not a command") };
    assert_eq!(command.argv, ["/srv/plan/bin/x", "./y"]);
    assert_eq!(command.exit_codes.len(), 2);
    let errors = Plan::parse(text, "plan.toml").unwrap_err();
    assert!(errors.to_string().starts_with("plan.toml:1: allow: \"./bin/x\" is relative, and the plan's folder"));
}

#[test]
fn a_secret_in_the_plan_is_refused_without_repeating_it() {
    let text = format!(
        "{SMALL}[[channel]]\nid = \"m\"\nkind = \"email\"\nserver = \"h:25\"\nfrom = \"a@b\"\nto = [\"a@b\"]\n\
         user = \"u\"\npassword = \"hunter2\"\n"
    );
    let errors = Plan::parse(&text, "plan.toml").unwrap_err();
    assert!(errors.to_string().contains("channel.m.password: is a secret"), "{errors}");
    assert!(!format!("{errors}{errors:?}").contains("hunter2"));
}

#[test]
fn a_policy_says_what_it_does() {
    let plan = Plan::parse(SMALL, "plan.toml").unwrap();
    assert_eq!(
        plan.policies()["default"].explain(),
        "3 failures in a row make it HARD; 2 successes in a row resolve it; 30s without any observation make it \
         unobserved; log is told as loudly as the service's tier says, once; its procedure runs at once; its own \
         probes must pass within 1m; the wait before another try doubles from 10s to 5m and starts anew after 10m of \
         health; more than 3 in 1h stop and escalate."
    );
    let text = format!(
        "{SMALL}[[policy]]\nid = \"default\"\nfailures = 2\nof = 5\nrecoveries = 1\nnotify = []\ntrigger = \"off\"\n"
    );
    let plan = Plan::parse(&text, "plan.toml").unwrap();
    assert_eq!(
        plan.policies()["default"].explain(),
        "2 failures among the last 5 observations make it HARD; 1 success resolves it; 30s without any observation \
         make it unobserved; nobody is told; no procedure runs by itself."
    );
}

#[test]
fn a_plan_says_what_it_protects() {
    let plan = Plan::parse(SMALL, "plan.toml").unwrap();
    let words = plan.explain();
    let expected = "  web at primary: RTO 1h, RPO 1d, manual-restore by people; http every 10s; policy default\n";
    assert!(words.contains(expected), "{words}");
    assert!(words.contains("start order: web\n") && words.contains("\npolicy default: 3 failures in a row"), "{words}");
}

#[test]
fn what_was_probably_not_meant_is_a_warning() {
    let text = "[[service]]\nid = \"blind\"\nprocedure = \"p\"\nrto = \"30m\"\ndepends_on = [\"slow\"]\n\
        [[service]]\nid = \"slow\"\n\
        [[service.probe]]\nhttp = \"https://u:p@h/\"\ninsecure = true\nheaders = { Authorization = \"x\" }\n\
        [[policy]]\nid = \"idle\"\n[[channel]]\nid = \"quiet\"\nkind = \"log\"\n\
        [[policy]]\nid = \"default\"\nnotify = []\n\
        [[procedure]]\nid = \"p\"\n[[procedure.step]]\nid = \"s\"\nmanual = \"x\"\n";
    let text = text.replace("[[policy]]\nid = \"idle\"", "[[policy]]\nid = \"idle\"\nnotify = []");
    let expected = [
        "service.blind: has no probe: its failures can't be seen",
        "service.blind.rto: 30m can't be promised: it depends on slow, whose rto is 1h",
        "service.slow: has no procedure: its failures are told, and people bring it back",
        "service.slow.probe.slow/http.headers.Authorization: a credential in the plan is readable by whoever reads the plan",
        "service.slow.probe.slow/http.http: a password in the plan is readable by whoever reads the plan",
        "service.slow.probe.slow/http.insecure: anybody's certificate is accepted",
        "policy.default.notify: nobody is told of its alerts",
        "policy.idle: no service follows it",
        "channel.quiet: no route and no policy notifies it",
    ];
    assert_eq!(Plan::parse(&text, "plan.toml").unwrap().warnings(), expected);
}

#[test]
fn a_plan_of_ten_thousand_services_is_read_and_its_long_cycle_named() {
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("[[service]]\nid = \"s{n}\"\ndepends_on = [\"s{}\"]\n", (n + 1) % 10_000));
    }
    let errors = Plan::parse(&text, "plan.toml").unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert!(errors.0[0].message.starts_with("a cycle of dependencies: s0 → s1 → s2"));
}

/// The example with the most in it.
const ERLMCP: &str = include_str!("../../../examples/erlmcp/plan.toml");

/// Cuts, repeats, swaps and overwrites at places given by the numbers: most of what comes out is still a plan.
fn mutate(text: &str, edits: &[(u16, u16, u8)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (a, b, what) in edits {
        if lines.is_empty() {
            break;
        }
        let (a, b) = (usize::from(*a) % lines.len(), usize::from(*b) % lines.len());
        match what % 7 {
            0 => drop(lines.remove(a)),
            1 => lines.swap(a, b),
            2 => lines.insert(a, lines[b].clone()),
            3 => lines[a] = lines[a].replace('"', ""),
            4 => lines[a] = lines[a].chars().rev().collect(),
            5 => {
                // The value of one key under the name of another.
                let value = lines[b].split_once('=').map(|(_, value)| value.to_owned());
                let key = lines[a].split_once('=').map(|(key, _)| key.to_owned());
                if let (Some(key), Some(value)) = (key, value) {
                    lines[a] = format!("{key}={value}");
                }
            }
            _ => {
                let digits = lines[a].replace(|c: char| c.is_ascii_digit(), "9");
                lines[a] = digits;
            }
        }
    }
    lines.join("\n")
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_makes_the_parser_panic(edits in proptest::collection::vec((0u16.., 0u16.., 0u8..), 1..6)) {
        let text = mutate(ERLMCP, &edits);
        let (once, again) = (Plan::parse_in(&text, "p", "/srv"), Plan::parse_in(&text, "p", "/srv"));
        proptest::prop_assert_eq!(&once, &again);
        let lines = text.lines().count().max(1);
        match once {
            Ok(plan) => {
                proptest::prop_assert_eq!(plan.explain(), again.unwrap().explain());
                proptest::prop_assert_eq!(plan.start_order().len(), plan.services().len());
                proptest::prop_assert_eq!(plan.warnings(), plan.clone().warnings());
            }
            Err(errors) => {
                proptest::prop_assert!(!errors.0.is_empty());
                for error in &errors.0 {
                    proptest::prop_assert!((1..=lines + 1).contains(&error.line), "{} of {}", error, lines);
                    proptest::prop_assert!(!error.message.is_empty());
                }
            }
        }
    }

    #[test]
    fn arbitrary_text_is_no_worse(text in "[\\[\\]a-z =\"\n{}.,0-9#']{0,300}") {
        drop(Plan::parse(&text, "p"));
    }

    #[test]
    fn the_version_is_that_of_the_text(comment in "[a-z ]{0,20}", other in "[a-z ]{0,20}") {
        let version = |comment: &str| {
            Plan::parse(&format!("# {comment}\n{SMALL}"), "p").map(|plan| plan.version().clone())
        };
        proptest::prop_assert_eq!(version(&comment) == version(&other), comment == other);
    }
}

#[test]
fn a_plan_of_ten_thousand_targets_is_read_whole() {
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("[[service]]\nid = \"s{n}\"\n[[service.probe]]\ntcp = \"127.0.0.1:80\"\n"));
    }
    let plan = Plan::parse(&text, "p").unwrap();
    assert_eq!((plan.services().len(), plan.probes().len(), plan.start_order().len()), (10_000, 10_000, 10_000));
    assert_eq!(plan.warnings().len(), 10_000, "each has no procedure");
}

#[test]
fn empty_lists_are_as_good_as_none() {
    let plan = Plan::parse(&format!("site = []\ntier = []\nchannel = []\n{SMALL}"), "p").unwrap();
    assert!(plan.sites().contains_key("primary") && plan.tiers().contains_key("tier-1"));
    assert!(plan.channels().contains_key("log"));
    assert!(Plan::parse("service = []\n", "p").unwrap_err().to_string().contains("protects nothing"));
}

#[test]
fn probes_and_dependants_are_found_by_service() {
    let text = format!(
        "{SMALL}[[service]]\nid = \"b\"\ndepends_on = [\"web\"]\n[[service]]\nid = \"a\"\ndepends_on = [\"web\"]\n"
    );
    let plan = Plan::parse(&text, "p").unwrap();
    let (web, a) = (ServiceId::new("web").unwrap(), ServiceId::new("a").unwrap());
    assert_eq!(plan.dependants_of(&web).map(|service| service.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(plan.probes_of(&web).map(|probe| probe.id.as_str()).collect::<Vec<_>>(), ["web/http"]);
    assert_eq!((plan.probes_of(&a).count(), plan.dependants_of(&a).count()), (0, 0));
}

#[test]
fn durations_are_told_as_they_are_written() {
    let cases = [("0s", 0), ("250ms", 250), ("1m 30s", 90_000), ("90d", 90 * 86_400_000), ("1d 1h", 90_000_000)];
    for (text, millis) in cases {
        assert_eq!(reader::words(Duration::from_millis(millis)), text);
        assert_eq!(humantime::parse_duration(text).unwrap(), Duration::from_millis(millis));
    }
}

#[test]
fn a_procedure_says_what_it_does() {
    let text = format!(
        "allow = [\"/bin/x\"]\n{SMALL}[[procedure]]\nid = \"p\"\nparallel = 2\n\
         [[procedure.step]]\nid = \"up\"\neach = \"dependencies\"\ncommand = [\"/bin/x\", \"{{each}}\"]\nretries = 2\n\
         [[procedure.step]]\nid = \"sure\"\napprove = \"go on?\"\n\
         [[procedure.step]]\nid = \"do\"\nwhen = \"attempt > 1\"\nask = \"rundeck\"\non_failure = \"rollback\"\n\
         [[procedure.rollback]]\nundoes = \"up\"\ncommand = [\"/bin/x\"]\n\
         [[validation]]\nid = \"v\"\ncategory = \"data\"\nservices = [\"web\"]\ncommand = [\"/bin/x\"]\n"
    );
    let plan = Plan::parse(&text, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        plan.procedures()["p"].explain(),
        "p (p): up to 2 steps at once\n  up: run /bin/x {each}, for everything that the service needs in the start \
         order, tried 3 times\n  sure: wait until a person approves: go on?; people are asked if it fails within 1h\n  \
         do: ask rundeck and wait for its answer, when attempt > 1; rolls back if it fails\n  \
         can be rolled back, the last first: up"
    );
    assert_eq!(
        plan.validations()["v"].explain(),
        "v (data): after recoveries of service web, run /bin/x, or the recovery failed"
    );
}

/// Alertmanager's rules: the first match, on as long as a route says so, children before their parent, who is
/// what they leave out.
#[test]
fn routes_are_taken_as_in_alertmanager() {
    let plan = Plan::parse(ROUTES, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let taken = |service: &str, severity| -> Vec<(String, Vec<String>)> {
        let service: ServiceId = service.parse().unwrap();
        let routes = plan.routes_of(&service, &"default".parse().unwrap(), severity);
        let names = |route: &&Route| route.channels.iter().map(ToString::to_string).collect();
        routes.iter().map(|route| (route.path.clone(), names(route))).collect()
    };
    let one = |path: &str, channels: &[&str]| (path.to_owned(), channels.iter().map(|c| (*c).to_owned()).collect());
    let audit = one("route.audit", &["log"]);
    assert_eq!(taken("db", Severity::Critical), [audit.clone(), one("route[2].route[1]", &["pager"])]);
    assert_eq!(taken("web", Severity::Critical), [audit.clone(), one("route[2]", &["chat"])]);
    assert_eq!(taken("web", Severity::Info), [audit.clone(), one("route[3]", &[])], "nobody, as written");
    assert_eq!(taken("db", Severity::Warning), [audit], "and not by the policy, since a route matched");
    let nested = &plan.routes()[1].routes[0];
    let wait = Duration::from_secs(30);
    let by = vec![GroupBy::Site];
    assert_eq!(nested.grouping, Some(Grouping { by, wait, interval: Duration::from_secs(60) }), "inherited");
    assert_eq!((nested.repeat, nested.escalation.len()), (Some(Duration::from_secs(3600)), 1));
    let told = plan.explain_routes();
    assert_eq!(
        told,
        [
            "critical alerts of tier-1 services under policy default go to log (route.audit), and to pager \
             (route[2].route[1], grouped after 30s, then every 1m at most, again every 1h, to chat if nobody takes \
             it in 15m)",
            "critical alerts of web go to log (route.audit), and to chat (route[2], grouped after 30s, then every 1m \
             at most, again every 4h)",
        ]
    );
}

const ROUTES: &str = r#"
[[channel]]
id = "log"
kind = "log"
[[channel]]
id = "chat"
kind = "log"
[[channel]]
id = "pager"
kind = "log"
[[route]]
id = "audit"
channels = ["log"]
continue = true
[[route]]
severities = ["critical"]
channels = ["chat"]
group_by = ["site"]
group_interval = "1m"
repeat_interval = "4h"
[[route.route]]
services = ["db"]
channels = ["pager"]
repeat_interval = "1h"
[[route.route.escalation]]
after = "15m"
channels = ["chat"]
[[route]]
severities = ["info"]
channels = []
[[service]]
id = "db"
[[service.probe]]
tcp = "127.0.0.1:1"
[[service]]
id = "web"
[[service.probe]]
tcp = "127.0.0.1:2"
"#;
