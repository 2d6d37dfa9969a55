//! Settings: `rebound.toml`, then the environment, then the command line; the last one that speaks wins.
//!
//! Every default is written once, here, and shown by `rebound check --print`. An environment variable names its
//! setting by section and key: `REBOUND_BUS__KIND=kafka` is `kind` in `[bus]`, `REBOUND_DATA` is `data` at the top.

mod check;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rebound_ingest::bus::kafka::is_secret;
use rebound_ingest::log::COMMIT_BYTES;
use rebound_schemas::plan::nearest;
use serde::{Deserialize, Serialize};

use crate::http::guard::Role as TokenRole;

/// All settings of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Folder of the bus, the event log and derived state.
    pub(crate) data: PathBuf,
    /// The plan; without one nothing is probed and nothing is decided.
    pub(crate) plan: Option<PathBuf>,
    /// This process's name in events and transactions; must differ between processes on one Kafka.
    pub(crate) instance: String,
    pub(crate) bus: Bus,
    pub(crate) kafka: Kafka,
    pub(crate) log: Log,
    pub(crate) probe: Probe,
    pub(crate) recover: Recover,
    pub(crate) http: Http,
    pub(crate) sql: Sql,
}

/// Which bus carries the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BusKind {
    /// A folder on this machine, one process.
    Embedded,
    /// A Kafka cluster.
    Kafka,
}

/// `[bus]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Bus {
    pub(crate) kind: BusKind,
    /// Partitions of every topic, fixed when the bus is created.
    pub(crate) partitions: i32,
    /// Observations older than this are dropped from the embedded bus once every role has read them.
    #[serde(with = "humantime_serde")]
    pub(crate) retention: Duration,
}

/// `[kafka]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kafka {
    /// `host:port`, separated by commas.
    pub(crate) brokers: String,
    /// What topic and group names begin with.
    pub(crate) prefix: String,
    /// Copies of each partition in topics that Rebound creates.
    pub(crate) replication: i32,
    /// An instance that says nothing for this long is taken for dead, and its partitions go to others.
    #[serde(with = "humantime_serde")]
    pub(crate) session_timeout: Duration,
    /// Settings passed to librdkafka as they are.
    pub(crate) properties: BTreeMap<String, String>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// Folder or `s3://` address of the event log; `<data>/log` by default.
    pub(crate) location: Option<String>,
    /// A commit waits at most this long for more events.
    #[serde(with = "humantime_serde")]
    pub(crate) commit_age: Duration,
    /// A commit takes at most this many bytes of events.
    pub(crate) commit_bytes: usize,
}

/// `[probe]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Probe {
    /// Run only the probes of this site; all without it.
    pub(crate) site: Option<String>,
    /// Probes in flight at most.
    pub(crate) concurrency: usize,
}

/// `[recover]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recover {
    /// Recoveries at the same time at most.
    pub(crate) concurrency: usize,
    /// Recoveries of services of one site at the same time at most.
    pub(crate) site_concurrency: usize,
    /// What runs may go on for this long when its partition is to go to another instance. When the process stops, a
    /// running step may.
    #[serde(with = "humantime_serde")]
    pub(crate) drain_within: Duration,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// Where metrics, health, state and intake are served.
    pub(crate) listen: SocketAddr,
    /// PEM certificate chain; with `tls_key`, the listener speaks TLS only.
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM private key.
    pub(crate) tls_key: Option<PathBuf>,
    /// File that holds the one bearer token, which may do everything; for several with roles there is `token`.
    pub(crate) token_file: Option<PathBuf>,
    /// The Alertmanager label that names the service.
    pub(crate) alertmanager_label: String,
    /// Bearer tokens, each with the name that stands in events and a role. Every request but the health checks must
    /// show one, if there are any.
    pub(crate) token: Vec<TokenSetting>,
}

/// `[[http.token]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSetting {
    /// Who shows it, as events say it.
    pub(crate) name: String,
    /// What it may be used for.
    pub(crate) role: TokenRole,
    /// File that holds it.
    pub(crate) file: Option<PathBuf>,
    /// Environment variable that holds it.
    pub(crate) env: Option<String>,
}

/// `[sql]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sql {
    /// A statement runs at most this long.
    #[serde(with = "humantime_serde")]
    pub(crate) timeout: Duration,
    /// A statement uses at most this much memory, in bytes.
    pub(crate) memory: usize,
    /// A statement answers at most this many rows.
    pub(crate) max_rows: usize,
    /// Where the PostgreSQL protocol is spoken; absent: nowhere (but by `rebound serve`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// Who may connect there.
    pub(crate) user: String,
    /// File that holds the password; absent: everybody on this machine may. TLS is that of `[http]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    /// Connections at a time.
    pub(crate) max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "rebound-data".into(),
            plan: None,
            instance: "rebound".into(),
            bus: Bus::default(),
            kafka: Kafka::default(),
            log: Log::default(),
            probe: Probe::default(),
            recover: Recover::default(),
            http: Http::default(),
            sql: Sql::default(),
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self { kind: BusKind::Embedded, partitions: 4, retention: Duration::from_secs(7 * 24 * 3600) }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            prefix: "rebound".into(),
            replication: 1,
            session_timeout: Duration::from_secs(10),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { location: None, commit_age: Duration::from_secs(1), commit_bytes: COMMIT_BYTES }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self { site: None, concurrency: 1024 }
    }
}

impl Default for Recover {
    fn default() -> Self {
        Self { concurrency: 16, site_concurrency: 4, drain_within: Duration::from_secs(10) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090 + 374)),
            tls_cert: None,
            tls_key: None,
            token_file: None,
            alertmanager_label: "service".into(),
            token: Vec::new(),
        }
    }
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            memory: 1 << 30,
            max_rows: 1_000_000,
            listen: None,
            user: "rebound".into(),
            password_file: None,
            max_connections: 32,
        }
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { brokers, prefix, replication, session_timeout, properties } = self.redacted();
        f.debug_struct("Kafka")
            .field("brokers", &brokers)
            .field("prefix", &prefix)
            .field("replication", &replication)
            .field("session_timeout", &session_timeout)
            .field("properties", &properties)
            .finish()
    }
}

impl Kafka {
    /// A copy fit for printing: values of keys that sound secret are replaced.
    fn redacted(&self) -> Self {
        let hide =
            |(key, value): (&String, &String)| (key.clone(), if is_secret(key) { "***".into() } else { value.clone() });
        Self { properties: self.properties.iter().map(hide).collect(), ..self.clone() }
    }
}

impl Config {
    /// Reads `file` (or nothing), lays `environment` over it, and checks the relations between sections.
    pub(crate) fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("the configuration {} can't be read", path.display()))?,
        };
        let name = file.map_or_else(|| "(defaults)".into(), |path| path.display().to_string());
        // Read once for faults that have a line, and once more with the environment laid over.
        toml::from_str::<Self>(&text).map_err(|e| located(&name, &text, &e))?;
        let mut table: toml::Table = toml::from_str(&text).map_err(|e| located(&name, &text, &e))?;
        let mut overlaid = Vec::new();
        for (key, value) in environment {
            if let Some(path) = key.strip_prefix("REBOUND_").filter(|rest| is_setting(rest)) {
                if path == "HTTP__TOKEN" {
                    bail!("the environment variable {key}: {NO_TOKEN_HERE}");
                }
                overlay(&mut table, &path.to_lowercase(), &value)
                    .with_context(|| format!("the environment variable {key}"))?;
                overlaid.push(key);
            }
        }
        let mut config: Self = toml::Value::Table(table).try_into().map_err(|e: toml::de::Error| {
            anyhow!(
                "the environment sets what the configuration doesn't take ({}): {}",
                overlaid.join(", "),
                in_words(e.message(), None)
            )
        })?;
        // Paths in a file are meant from where the file is.
        if let Some(folder) = file.and_then(Path::parent) {
            let http = &mut config.http;
            let tokens = http.token.iter_mut().map(|token| &mut token.file);
            let files = [
                &mut config.plan,
                &mut http.tls_cert,
                &mut http.tls_key,
                &mut http.token_file,
                &mut config.sql.password_file,
            ];
            for path in files.into_iter().chain(tokens) {
                if let Some(path) = path.as_mut().filter(|path| path.is_relative()) {
                    *path = folder.join(&path);
                }
            }
        }
        config.check().with_context(|| format!("the configuration {name}"))?;
        Ok(config)
    }

    /// Where the event log is.
    pub(crate) fn log_location(&self) -> String {
        self.log.location.clone().unwrap_or_else(|| self.data.join("log").display().to_string())
    }

    /// Where projections of the event log are kept: a folder for each log.
    pub(crate) fn projections(&self) -> PathBuf {
        match &self.log.location {
            None => self.data.join("projections"),
            Some(location) => {
                let name: String = location.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
                self.data.join(format!("projections{}", if name.starts_with('-') { name } else { format!("-{name}") }))
            }
        }
    }

    /// All settings in force as TOML, secrets replaced.
    pub(crate) fn print(&self) -> Result<String> {
        let config = Self { kafka: self.kafka.redacted(), ..self.clone() };
        toml::to_string_pretty(&config).context("the configuration can't be printed")
    }
}

/// Whether an environment variable behind `REBOUND_` is a setting, and not one of the program's other variables.
fn is_setting(rest: &str) -> bool {
    rest.contains("__") || matches!(rest, "DATA" | "PLAN" | "INSTANCE")
}

/// Sets `path` (`section__key`, deeper levels likewise) in `table`. A value that reads as TOML is taken as that,
/// any other as text.
fn overlay(table: &mut toml::Table, path: &str, value: &str) -> Result<()> {
    let (section, rest) = match path.split_once("__") {
        None => {
            table.insert(path.into(), toml::Value::String(value.into()));
            return Ok(());
        }
        Some(parts) => parts,
    };
    let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
    let Some(entry) = entry.as_table_mut() else { bail!("{section:?} is not a section") };
    // librdkafka's keys have dots where an environment variable can't: REBOUND_KAFKA__PROPERTIES__SASL_USERNAME.
    if let Some(key) = rest.strip_prefix("properties__").filter(|_| section == "kafka") {
        let properties = entry.entry("properties").or_insert_with(|| toml::Table::new().into());
        let Some(properties) = properties.as_table_mut() else { bail!("\"kafka.properties\" is not a section") };
        properties.insert(key.replace('_', "."), toml::Value::String(value.into()));
        return Ok(());
    }
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
    let number_or_bool = parsed.filter(|value| value.is_integer() || value.is_bool());
    entry.insert(rest.into(), number_or_bool.unwrap_or_else(|| toml::Value::String(value.into())));
    Ok(())
}

/// A fault in the text, with file and line.
fn located(name: &str, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
    let line = before.matches('\n').count() + 1;
    let is_header = |line: &&str| line.starts_with('[') && line.ends_with(']');
    let section = before.lines().rev().map(str::trim).find(is_header);
    // A wrong value does not say whose it is.
    let key = before.rsplit('\n').next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    if let (Some("[http]"), Some("token")) = (section, key) {
        return anyhow!("{name}:{line}: [http] token: {NO_TOKEN_HERE}");
    }
    let words = in_words(error.message(), section);
    let whose = match (key, section) {
        (Some(key), Some(section)) => format!("{section} {key}: "),
        (Some(key), None) => format!("{key}: "),
        (None, _) => String::new(),
    };
    anyhow!("{name}:{line}: {whose}{words}")
}

/// Told to whoever writes a token where it can be read, without repeating it.
const NO_TOKEN_HERE: &str = "a token itself stands in no settings: write token_file = \"FILE\", or a [[http.token]] with \
                             name, role, and where it is: file = \"FILE\" or env = \"VARIABLE\"";

/// What serde says, in words for whoever wrote the settings.
fn in_words(message: &str, section: Option<&str>) -> String {
    let message = message.trim().replace('\n', "; ");
    // The names stand between backticks: the unknown one, then those that are known.
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), names.as_slice()) {
        let of = section.unwrap_or("that section");
        // A section's header is found before its name: then the name is no key of the one above.
        let of = if known.contains(&"bus") { "the settings" } else { of };
        // What stands in a list of its own is at home there.
        let home = home_of(unknown).filter(|_| !of.starts_with("[["));
        let remedy = match (nearest(unknown, known.iter().copied()), home) {
            (_, Some(home)) => format!("it belongs to [{home}]"),
            (Some(near), None) => format!("did you mean {near:?}?"),
            (None, None) => format!("write one of {}", known.join(", ")),
        };
        return format!("{unknown:?} is not a key of {of}: {remedy}");
    }
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown variant"), names.as_slice()) {
        let remedy = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {}", known.join(", ")),
        };
        return format!("{unknown:?} is none that there is: {remedy}");
    }
    let numbers = ["usize", "i32", "u64"].map(|number| format!("expected {number}"));
    let message = numbers.iter().fold(message, |text, number| text.replace(number, "expected a whole number"));
    let message = message.replace("expected a duration", "expected a duration, as in \"30s\" or \"1h 30m\"");
    message.replace("invalid socket address syntax", "expected an address with its port, as in \"127.0.0.1:9464\"")
}

/// The section that has such a key, if one does.
fn home_of(key: &str) -> Option<&'static str> {
    const SECTIONS: [&str; 7] = ["bus", "kafka", "log", "probe", "recover", "http", "sql"];
    SECTIONS.into_iter().find(|section| {
        let read = toml::from_str::<Config>(&format!("[{section}]\n{key:?} = 0\n"));
        read.err().is_none_or(|error| !error.message().starts_with("unknown field"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rebound.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let config = load(
            "instance = \"a\"\n[bus]\npartitions = 2\n",
            &[
                ("REBOUND_BUS__PARTITIONS", "8"),
                ("REBOUND_LOG__COMMIT_AGE", "250ms"),
                ("REBOUND_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
                ("REBOUND_TEST_KAFKA", "not a setting"),
            ],
        )
        .unwrap();
        assert_eq!((config.instance.as_str(), config.bus.partitions), ("a", 8));
        assert_eq!(config.log.commit_age, Duration::from_millis(250));
        assert_eq!(config.kafka.properties["sasl.password"], "hunter2");
        assert!(!format!("{config:?}").contains("hunter2") && !config.print().unwrap().contains("hunter2"));
    }

    #[test]
    fn a_token_in_the_settings_is_not_repeated_to_whoever_reads_the_message() {
        for (text, environment) in
            [("[http]\ntoken = \"hunter2-hunter2\"\n", None), ("", Some(("REBOUND_HTTP__TOKEN", "hunter2-hunter2")))]
        {
            let said = format!("{:#}", load(text, environment.as_slice()).unwrap_err());
            assert!(said.contains("a token itself stands in no settings") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_is_printed_loads_to_the_same() {
        let printed = Config::default().print().unwrap();
        assert_eq!(load(&printed, &[]).unwrap(), Config::default());
    }
}
