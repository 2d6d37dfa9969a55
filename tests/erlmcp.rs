//! The continuity plan of `examples/erlmcp` by the real program: its stand-ins are set up, something is really
//! damaged, a probe sees it, and the plan's own procedure brings it back. One service a kind of recovery; the
//! procedures and what must hold afterwards are the example's, the probes look at what is damaged, and quickly.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::pipeline::sql;
use crate::support::{Running, alone, succeeds, wait_for};

/// What comes before the services: quick judgement instead of the example's.
const POLICY: &str = r#"
[[policy]]
id = "default"
failures = 2
recoveries = 2
backoff = "500ms"
intensity = 10
verify_within = "30s"
"#;

/// A copy of the example in a folder of its own, and Rebound over it. The stand-ins' processes end with the folder.
pub(crate) struct Example {
    folder: tempfile::TempDir,
}

impl Example {
    /// Sets the stand-ins up. Each service: its name (and what it needs, after a colon), its procedure, what its
    /// probe runs.
    pub(crate) fn new(services: &[(&str, &str, &str)]) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/erlmcp");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("bin")).expect("a folder");
        for entry in std::fs::read_dir(from.join("bin")).expect("the stand-ins") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, folder.path().join("bin").join(name)).expect("copied");
        }
        let text = std::fs::read_to_string(from.join("plan.toml")).expect("the plan");
        let between = |from: &str, to: &str| {
            let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("the plan has no {from}"));
            rest.split_once(to).unwrap_or_else(|| panic!("the plan has no {to}")).0.to_owned()
        };
        let allow = between("allow = [", "]");
        let mut plan = format!("name = \"erlmcp\"\nallow = [{allow}]\n#{}", between("# --- Sites", "# --- Policies"));
        plan += POLICY;
        for (service, procedure, probe) in services {
            let (service, needs) = service.split_once(':').unwrap_or((service, ""));
            let needs: Vec<String> = needs.split_whitespace().map(|need| format!("{need:?}")).collect();
            let needs = needs.join(", ");
            let argv: Vec<String> = probe.split(' ').map(|word| format!("{word:?}")).collect();
            let argv = argv.join(", ").replacen('"', "\"./bin/", 1);
            plan += &format!(
                "\n[[service]]\nid = \"{service}\"\ntier = \"tier-1\"\nsite = \"primary\"\nrto = \"5m\"\nrpo = \"1h\"\nprocedure = \"{procedure}\"\ndepends_on = [{needs}]\n\
                 [[service.probe]]\ncommand = [{argv}]\nevery = \"2s\"\ntimeout = \"2s\"\n"
            );
        }
        plan += &format!("#{}", between("# --- Procedures", "# --- Backups"));
        std::fs::write(folder.path().join("plan.toml"), plan).expect("written");
        let example = Self { folder };
        example.tool("setup.sh");
        example
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a stand-in, which must succeed.
    pub(crate) fn tool(&self, line: &str) -> String {
        let (program, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = Command::new(self.path().join("bin").join(program));
        let output = command.args(arguments.split_whitespace()).env_clear().output().expect("it runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn query(&self, sql: &str) -> String {
        let program = self.path().join("bin/data.sh");
        let output = Command::new(program).args(["query", sql]).env_clear().output().expect("it runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub(crate) fn up(&self) -> Running {
        let up = Running::start(self.path(), "a", &["up", "--plan", "plan.toml", "--data", "data"], &[]).ready();
        self.healthy(&up);
        up
    }

    fn healthy(&self, up: &Running) {
        wait_for("every service to be healthy", || {
            let (_, body) = up.get("/api/v1/services")?;
            let rows: Vec<Value> = serde_json::from_str(&body).ok()?;
            (!rows.is_empty() && rows.iter().all(|row| row["state"] == "healthy")).then_some(())
        });
    }

    /// Waits for the `n`-th recovery of a service to end, and that it succeeded: every step, then every check.
    fn recovered(&self, service: &str, procedure: &str, n: usize) {
        let query = format!(
            "SELECT r.recovery, r.procedure, r.outcome, i.mttr_seconds FROM recoveries r JOIN incidents i ON r.incident = i.incident WHERE r.service = '{service}' AND r.outcome IS NOT NULL AND i.mttr_seconds IS NOT NULL ORDER BY r.triggered_at"
        );
        let row = wait_for(&format!("the recovery of {service}"), || sql(self.path(), &query).get(n - 1).cloned());
        assert_eq!((&row["procedure"], &row["outcome"]), (&procedure.into(), &"succeeded".into()), "{service}: {row}");
        let recovery = row["recovery"].as_str().expect("an id");
        let steps = sql(
            self.path(),
            &format!(
                "SELECT step, outcome FROM recovery_steps WHERE recovery = '{recovery}' AND outcome <> 'succeeded'"
            ),
        );
        assert!(steps.is_empty(), "{service}: {steps:?}");
        let verified = sql(
            self.path(),
            &format!("SELECT data FROM events WHERE kind = 'recovery.verified' AND recovery = '{recovery}'"),
        );
        let data: Value = serde_json::from_str(verified[0]["data"].as_str().expect("a payload")).expect("JSON");
        assert_eq!(data["passed"], true, "{data}");
        assert!(data["checks"].to_string().contains("backups-encrypted"), "what the plan asks for was checked: {data}");
    }

    pub(crate) fn end(&self, up: Running) {
        assert_eq!(up.stop(), Some(0));
        succeeds(&["log", "verify", "--data", "data"], self.path());
    }
}

#[test]
fn certificate_configuration_synchronisation_service_and_database_are_really_restored() {
    let _alone = alone();
    let example = Example::new(&[
        ("database", "database-full-restore", "data.sh verify postgres"),
        ("resource-manager", "service-recovery", "component.sh check resource-manager"),
        ("api-gateway", "certificate-renewal", "certificate.sh verify"),
        ("monitoring", "configuration-restore", "data.sh verify configuration"),
        ("replica", "data-synchronisation", "data.sh same postgres secondary"),
        ("reporting", "service-recovery", "component.sh check reporting"),
    ]);
    let state = |path: &str| example.path().join("state").join(path);
    let read = |path: &str| std::fs::read(state(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    example.tool("data.sh identify configuration");
    example.tool("data.sh restore configuration");
    example.tool("data.sh transfer postgres secondary");
    let up = example.up();

    // A certificate that ends tomorrow is replaced by one that the authority stands behind.
    example.tool("certificate.sh expire");
    let expiring = read("certificates/live/certificate.pem");
    example.recovered("api-gateway", "certificate-renewal", 1);
    let renewed = state("certificates/live/certificate.pem");
    assert_ne!(std::fs::read(&renewed).expect("a certificate"), expiring);
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).arg(&renewed).output().expect("openssl");
    let authority = state("certificates/authority.pem");
    assert!(openssl(&["verify", "-CAfile", authority.to_str().expect("a path")]).status.success());
    assert!(openssl(&["x509", "-noout", "-checkend", "6912000", "-in"]).status.success(), "80 days and more");

    // Files are what they were, byte for byte.
    let sound = read("data/configuration/live/tables");
    example.tool("data.sh corrupt configuration");
    assert_ne!(read("data/configuration/live/tables"), sound);
    example.recovered("monitoring", "configuration-restore", 1);
    assert_eq!(read("data/configuration/live/tables"), sound);

    // A copy at another site that lost its data has it again.
    std::fs::write(state("data/postgres/sites/secondary/database"), "lost").expect("written");
    example.recovered("replica", "data-synchronisation", 1);
    assert_eq!(read("data/postgres/sites/secondary/database"), read("data/postgres/live/database"));

    // A process that was stopped is another one now.
    let stopped = read("component/reporting.pid");
    example.tool("component.sh stop reporting");
    example.recovered("reporting", "service-recovery", 1);
    assert_ne!(read("component/reporting.pid"), stopped);
    example.tool("component.sh check reporting");

    // Overwritten pages of a database: what the backup has is there again, what came later is gone, and the copy
    // follows.
    assert_eq!(example.query("SELECT name, balance FROM accounts"), "ann|125\nbob|50\ncem|75");
    example.tool("data.sh corrupt postgres");
    example.recovered("database", "database-full-restore", 1);
    assert_eq!(example.query("PRAGMA integrity_check"), "ok");
    assert_eq!(example.query("SELECT name, balance FROM accounts"), "ann|100\nbob|50");
    assert_eq!(example.query("SELECT count(*) FROM sessions"), "500");
    example.healthy(&up);
    assert_eq!(read("data/postgres/sites/secondary/database"), read("data/postgres/live/database"));
    example.end(up);
}

#[test]
fn the_database_is_restored_to_the_last_transaction() {
    let _alone = alone();
    let example = Example::new(&[
        ("database", "database-point-in-time", "data.sh verify postgres"),
        ("resource-manager", "service-recovery", "component.sh check resource-manager"),
        ("api-gateway", "certificate-renewal", "certificate.sh verify"),
    ]);
    let up = example.up();
    example.tool("data.sh corrupt postgres");
    example.recovered("database", "database-point-in-time", 1);
    assert_eq!(example.query("PRAGMA integrity_check"), "ok");
    assert_eq!(example.query("SELECT name, balance FROM accounts"), "ann|125\nbob|50\ncem|75");
    assert_eq!(example.query("SELECT count(*), max(number) FROM log"), "5|5");
    example.tool("component.sh check database");
    example.end(up);
}
