//! The erlmcp example's programs, really run: every probe and every procedure's steps, with a cleared environment
//! as the runner gives it, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;

/// A copy of the example that is removed afterwards.
struct Example {
    folder: PathBuf,
    plan: Plan,
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Example {
    /// A healthy copy; `name` tells the tests' copies apart.
    fn new(name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/erlmcp");
        let folder = std::env::temp_dir().join(format!("rebound-erlmcp-{}-{name}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        for entry in std::fs::read_dir(from.join("bin")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.join("bin").join(path.file_name().unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(from.join("plan.toml")).unwrap();
        let plan = Plan::parse_in(&text, "plan.toml", folder.to_str().unwrap()).unwrap();
        let example = Self { folder, plan };
        let program = example.folder.join("bin/setup.sh").to_str().unwrap().to_owned();
        example.must(&[program]);
        example
    }

    fn run(&self, argv: &[String]) -> Output {
        Command::new(&argv[0]).args(&argv[1..]).env_clear().current_dir("/").output().unwrap()
    }

    fn must(&self, argv: &[String]) {
        let output = self.run(argv);
        assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn tool(&self, line: &str) -> Vec<String> {
        let mut words = line.split(' ').map(str::to_owned);
        let program = self.folder.join("bin").join(words.next().unwrap());
        std::iter::once(program.to_str().unwrap().to_owned()).chain(words).collect()
    }

    fn fails(&self, line: &str, because: &str) {
        let output = self.run(&self.tool(line));
        assert_eq!(output.status.code(), Some(2), "{line}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(because), "{line}: {error}");
    }

    fn procedure(&self, id: &str, service: &str) {
        let procedure = &self.plan.procedures()[id];
        // What nobody hands over is as the procedure says.
        let handed = |text: String| {
            procedure.inputs.iter().fold(text, |text, (name, value)| text.replace(&format!("{{input.{name}}}"), value))
        };
        for step in &procedure.steps {
            if let Action::Command { argv, .. } = &step.action {
                let argv: Vec<String> = argv
                    .iter()
                    .map(|text| text.replace("{service}", service).replace("{each}", service))
                    .map(handed)
                    .map(|text| if text.starts_with("{steps.") { "000001".to_owned() } else { text })
                    .collect();
                self.must(&argv);
            }
        }
    }

    fn healthy(&self, service: &str) -> bool {
        let probes = self.plan.probes_of(&self.plan.services()[service].id);
        let mut commands = probes.filter_map(|probe| match &probe.check {
            Check::Command(command) => Some(&command.argv),
            _ => None,
        });
        commands.all(|argv| self.run(argv).status.success())
    }
}

#[test]
fn every_procedure_of_the_example_runs_to_its_end() {
    let example = Example::new("procedures");
    for id in example.plan.procedures().keys() {
        example.procedure(id.as_str(), "analytics");
    }
    assert!(example.plan.services().keys().all(|service| example.healthy(service.as_str())));
}

#[test]
fn a_stopped_service_is_seen_and_its_own_procedure_brings_it_back() {
    let example = Example::new("services");
    for service in example.plan.services().values() {
        let id = service.id.as_str();
        example.must(&example.tool(&format!("component.sh stop {id}")));
        assert!(!example.healthy(id), "{id} still looks healthy");
        match &service.procedure {
            Some(procedure) => example.procedure(procedure.as_str(), id),
            None => example.must(&example.tool(&format!("component.sh start {id}"))),
        }
        assert!(example.healthy(id), "{id} did not come back");
    }
}

#[test]
fn the_stand_ins_need_what_the_plan_says() {
    let example = Example::new("needs");
    for service in example.plan.services().values() {
        let needs = std::fs::read_to_string(example.folder.join("state/needs").join(service.id.as_str())).unwrap();
        let expected: Vec<_> = service.depends_on.iter().map(ServiceId::as_str).collect();
        assert_eq!(needs.split_whitespace().collect::<Vec<_>>(), expected, "{}", service.id);
    }
}

#[test]
fn steps_fail_when_what_they_need_does_not_hold() {
    let example = Example::new("failures");
    example.must(&example.tool("component.sh stop core"));
    example.fails("component.sh start authentication", "authentication needs core, which is stopped");
    example.fails("component.sh start ../node", "is not a name");
    example.fails("fact.sh set site.servers=up site.environment=stable", "site.environment is unknown");
    example.fails("data.sh restore ets", "identify one first");
    example.fails("data.sh same postgres secondary", "is not the live one");

    let data = example.folder.join("state/data/postgres");
    example.must(&example.tool("data.sh corrupt postgres"));
    example.fails("data.sh verify postgres tables", "tables of postgres");
    example.procedure("database-full-restore", "database");
    example.must(&example.tool("data.sh verify postgres"));
    example.must(&example.tool("certificate.sh expire"));
    example.fails("certificate.sh verify", "it ends within a week");
    example.must(&example.tool("zone.sh corrupt"));
    example.fails("zone.sh is api 127.0.0.1", "the zone is not whole");
    std::fs::write(data.join("backups/000001/database"), "rotten").unwrap();
    example.fails("data.sh identify postgres", "no sound backup");
}
