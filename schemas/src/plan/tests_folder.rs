//! Plans in files: the examples hold together, and each bad plan gives exactly the message beside it.
//! `REBOUND_BLESS=1` writes the messages anew; they are then to be read by eye.

use std::path::{Path, PathBuf};

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_bad_plan_gives_its_message() {
    let folder = repository().join("tests/data/plan/bad");
    let bless = std::env::var_os("REBOUND_BLESS").is_some();
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() >= 25, "only {} bad plans in {}", names.len(), folder.display());
    let mut wrong = Vec::new();
    for path in names {
        let files = |name: &str| {
            let beside = folder.join(name.strip_prefix("/srv/plan/").unwrap_or(name));
            std::fs::read_to_string(beside).map_err(|_| "there is no such file".to_owned())
        };
        let found = match Plan::parse_with(&read(&path), "plan.toml", "/srv/plan", &files) {
            Ok(_) => "no fault\n".to_owned(),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = path.with_extension("txt");
        if bless {
            std::fs::write(&expected, found).unwrap();
        } else if read(&expected) != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "other messages than expected (REBOUND_BLESS=1 accepts them):\n{}", wrong.join("\n"));
}

fn example(name: &str) -> Plan {
    let folder = repository().join("examples").join(name).canonicalize().unwrap();
    let files = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string());
    Plan::parse_with(&read(&folder.join("plan.toml")), "plan.toml", folder.to_str().unwrap(), &files)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_minimal_example_is_as_small_as_it_says() {
    let plan = example("minimal");
    assert_eq!((plan.services().len(), plan.probes().len(), plan.warnings()), (1, 1, vec![]));
    assert_eq!(plan.services()["web"].procedure.as_ref().unwrap().as_str(), "restart-web");
    let steps = &plan.procedures()["restart-web"].steps;
    assert_eq!(steps[1].needs, [steps[0].id.clone()]);
}

#[test]
fn the_notification_example_has_templates_of_its_own() {
    let plan = example("notification");
    let [chat, mail] = ["chat", "mail"].map(|id| &plan.channels()[id].templates);
    assert!(chat.body.as_ref().unwrap().as_str().starts_with("{% for change in changes %}"));
    assert!(mail.html.is_some() && plan.route("route.critical").unwrap().templates.title.is_some());
    let one = &Variables::samples()[0];
    let told = chat.body.as_ref().unwrap().render(Escape::Slack, &one.values()).unwrap();
    let expected = "*Database cluster* at primary: connection refused\nsince 2026-02-25 06:13:20 UTC (30s). Rebound runs \
                    restore (rec-1, attempt 1). Nothing yet.";
    assert_eq!(told, expected);
    let warnings = plan.warnings();
    assert!(warnings.iter().all(|warning| warning.ends_with("people bring it back")), "{warnings:?}");
}

#[test]
fn the_policies_example_explains_each_condition() {
    let plan = example("policies");
    let explained: Vec<String> = plan.policies()["default"].conditions.iter().map(Condition::explain).collect();
    let expected = [
        "an error rate above 5 %, 3 times in a row: fails the service",
        "a response time above 250ms, 3 times among the last 5, for 5m: told as warning, until it has been over for 10m",
        "the newest good backup being older than the service's RPO: told as critical",
        "a certificate that expires within 14d: told as warning",
        "no observation at all: told as warning",
        "the error budget of 99.9 % burning 14.4 times too fast over 1h and 5m, or 6 times over 6h and 30m, by 30 \
         observations or more: told as critical",
        "a degraded probe, 3 times in a row: told as warning",
    ];
    assert_eq!(explained, expected);
    assert_eq!(plan.services()["shop"].depends_on_groups, ["caches"]);
    // Who needs a group starts after all of its members.
    assert_eq!(plan.start_order().last().unwrap().as_str(), "shop");
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

#[test]
fn the_erlmcp_plan_has_the_objectives_of_the_continuity_plan() {
    use crate::event::RecoveryMethod::{self, *};
    let plan = example("erlmcp");
    // Tier, service, RTO and RPO in minutes, method.
    let table: [(u8, &str, u64, u64, RecoveryMethod); 12] = [
        (1, "authentication", 15, 15, ActivePassive),
        (1, "database", 30, 30, SynchronousReplication),
        (1, "api-gateway", 30, 30, LoadBalancerFailover),
        (1, "session-manager", 60, 60, DatabaseRestore),
        (2, "tool-orchestration", 120, 2 * 60, WarmStandby),
        (2, "resource-manager", 120, 2 * 60, DatabaseRestore),
        (2, "monitoring", 180, 15, PreConfigured),
        (3, "dashboard", 240, 4 * 60, ColdStandby),
        (3, "developer-tools", 240, 4 * 60, ColdStandby),
        (3, "analytics", 360, 24 * 60, ColdStandby),
        (4, "reporting", 480, 48 * 60, ColdStandby),
        (4, "archives", 720, 7 * 24 * 60, ManualRestore),
    ];
    for (tier, id, rto, rpo, method) in table {
        let service = &plan.services()[id];
        let found = (service.tier.as_str(), service.rto, service.rpo, service.method);
        assert_eq!(found, (format!("tier-{tier}").as_str(), minutes(rto), minutes(rpo), method), "{id}");
    }
    for id in ["node", "core", "registry"] {
        assert_eq!(plan.services()[id].tier.as_str(), "tier-1", "{id}");
    }
    assert_eq!(plan.services().len(), table.len() + 3);
    assert!(plan.services().keys().all(|id| plan.probes_of(id).count() > 0));
    let kinds: std::collections::BTreeSet<_> = plan.probes().values().map(|probe| probe.check.kind()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["command", "dns", "grpc", "http", "tcp", "tls"]);
}

#[test]
fn the_erlmcp_plan_has_the_sites_and_the_start_order() {
    let plan = example("erlmcp");
    let sites: Vec<_> =
        plan.sites().values().map(|site| (site.id.as_str(), site.recovery_time, site.capacity)).collect();
    let expected = [
        ("cloud-standby", minutes(15), 5.0),
        ("primary", minutes(0), 1.0),
        ("quaternary", minutes(8 * 60), 0.25),
        ("secondary", minutes(60), 1.0),
        ("tertiary", minutes(4 * 60), 0.5),
    ];
    assert_eq!(sites, expected);
    let order = [
        "node",
        "core",
        "authentication",
        "registry",
        "session-manager",
        "api-gateway",
        "tool-orchestration",
        "resource-manager",
        "monitoring",
        "dashboard",
    ];
    let found: Vec<_> = plan.start_order().iter().map(ServiceId::as_str).filter(|id| order.contains(id)).collect();
    assert_eq!(found, order);
    assert_eq!(plan.start_order().len(), plan.services().len());
    for (n, id) in plan.start_order().iter().enumerate() {
        let before = &plan.start_order()[..n];
        assert!(plan.services()[id].depends_on.iter().all(|need| before.contains(need)), "{id} starts too early");
    }
}

#[test]
fn the_erlmcp_plan_has_the_backups_service_levels_and_drills() {
    use crate::event::BackupKind::{Full, Incremental, Snapshot};
    let plan = example("erlmcp");
    let backups: Vec<_> =
        plan.backups().values().map(|backup| (backup.id.as_str(), backup.kind, backup.every)).collect();
    let day = 24 * 60;
    let expected = [
        ("ets-snapshot", Snapshot, minutes(day)),
        ("postgres-full", Full, minutes(7 * day)),
        ("postgres-incremental", Incremental, minutes(2 * 60)),
        ("redis-snapshot", Snapshot, minutes(day)),
    ];
    assert_eq!(backups, expected);
    assert!(plan.backups().values().all(|backup| backup.retention > backup.every && backup.restore.is_some()));

    let level = &plan.service_levels()["erlmcp"];
    assert_eq!(level.response_time, Some(Duration::from_millis(100)));
    assert_eq!((level.throughput_per_second, level.error_rate), (Some(1000.0), Some(0.01)));
    assert_eq!((level.availability, level.services.len()), (Some(0.999), 0));

    let drills: Vec<_> = plan
        .drills()
        .values()
        .map(|drill| {
            let allowed = (drill.data_loss_allowed, drill.impact_on_others_allowed);
            (drill.id.as_str(), drill.detect_within, drill.recover_within, drill.integrity, allowed)
        })
        .collect();
    let expected = [
        ("complete-failure", minutes(15), minutes(120), Some(1.0), (false, true)),
        ("data-corruption", minutes(30), minutes(240), Some(1.0), (false, false)),
        ("partial-failure", minutes(5), minutes(60), None, (false, false)),
    ];
    assert_eq!(drills, expected);
}

#[test]
fn the_erlmcp_plan_has_every_procedure_with_its_steps_in_order() {
    let plan = example("erlmcp");
    let expected: [(&str, &str); 16] = [
        ("primary-site", "power environment network servers storage security"),
        (
            "network",
            "backup-equipment interfaces routing firewall load-balancers test-internet test-internal test-services \
             test-backup",
        ),
        (
            "cloud-failover",
            "readiness pre-checks prepare-target stop-primary start-target services networking dns traffic post-verification \
             verify-data",
        ),
        (
            "cloud-failback",
            "readiness pre-checks prepare-primary stop-cloud start-primary networking dns traffic post-verification \
             verify-data",
        ),
        (
            "core-system",
            "emergency-stop resources node database core authentication registry session-manager api-gateway \
             tool-orchestration resource-manager monitoring dashboard health",
        ),
        (
            "database-full-restore",
            "identify-backup stop restore start verify-tables verify-indexes verify-references verify-logs",
        ),
        (
            "database-point-in-time",
            "identify-backup stop restore apply-transactions start verify-tables verify-indexes verify-references \
             verify-logs service",
        ),
        (
            "data-synchronisation",
            "connectivity differences transfer verify-lag verify-missing verify-checksums conflicts",
        ),
        ("dns-and-load-balancer", "drain dns load-balancer start verify"),
        ("virtual-ip-failover", "timers release claim start verify"),
        ("security", "isolate root-cause remediate policies reconnect verify"),
        ("certificate-renewal", "request install reload verify"),
        ("service-recovery", "dependencies stop start health"),
        ("configuration-restore", "verify-backup restore apply validate"),
        ("promote-replica", "replica fence promote start verify"),
        ("session-restore", "identify-backup stop restore start verify"),
    ];
    let expected: BTreeMap<&str, &str> = expected.into_iter().collect();
    let found: BTreeMap<&str, String> = plan
        .procedures()
        .values()
        .map(|procedure| {
            let steps: Vec<_> = procedure.steps.iter().map(|step| step.id.as_str()).collect();
            (procedure.id.as_str(), steps.join(" "))
        })
        .collect();
    assert_eq!(found, expected.into_iter().map(|(id, steps)| (id, steps.to_owned())).collect());
}

#[test]
fn the_erlmcp_plan_has_one_warning_that_its_objectives_deserve() {
    // A daily snapshot can't give an RPO of an hour: the continuity plan says both.
    let expected = "service.session-manager.rpo: 1h needs more than backups: the newest of them may be 1d old";
    assert_eq!(example("erlmcp").warnings(), [expected]);
}

#[test]
fn a_share_of_the_load_is_told_as_it_was_written() {
    for (capacity, told) in [("0.07", "7"), ("0.29", "29"), ("0.125", "12.5"), ("5", "500")] {
        let text = format!("[[site]]\nid = \"a\"\ncapacity = {capacity}\n[[service]]\nid = \"web\"\nsite = \"a\"\n");
        let explained = Plan::parse(&text, "plan.toml").unwrap_or_else(|faults| panic!("{faults}")).explain();
        assert!(explained.contains(&format!(" with {told} % of the load")), "{explained}");
    }
}
