//! `rebound check`: settings and plan, what is wrong with them, and what they mean in words.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rebound_alerting::channel::Channel;
use rebound_schemas::plan::{ChannelKind, Plan};

use crate::cli::Done;
use crate::config::{BusKind, Config};
use crate::roles::publish;

/// Reads and validates a plan; faults are listed one a line, each with file, line, key and remedy.
pub(crate) fn load_plan(path: &Path) -> Result<Plan> {
    let text = std::fs::read_to_string(path).with_context(|| format!("the plan {} can't be read", path.display()))?;
    let folder = path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
    Plan::parse_with(&text, &path.display().to_string(), &folder.display().to_string(), &template)
        .map_err(|errors| anyhow::anyhow!("the plan {} does not hold together:\n{errors}", path.display()))
}

/// Longest file of a message's template, in bytes; what is longer than a template may be has its own fault.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// A file that the plan names.
fn template(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TEMPLATE_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

pub(crate) fn check(config: &Config, file: Option<PathBuf>, print: bool) -> Result<Done> {
    if print {
        print!("{}", config.print()?);
    }
    let Some(path) = file.as_ref().or(config.plan.as_ref()) else {
        if !print {
            println!(
                "the settings are good; there is no plan to check: name one with --plan FILE or `plan` in the settings"
            );
        }
        return Ok(Done::Good);
    };
    if path.is_dir() {
        bail!("{} is a folder: name the plan.toml in it", path.display());
    }
    let plan = load_plan(path)?;
    for channel in plan.channels().values() {
        if let ChannelKind::Kafka { brokers: None, .. } = &channel.kind
            && config.bus.kind == BusKind::Embedded
        {
            bail!(
                "{}: channel.{}: it has no brokers of its own, and [bus] kind = \"embedded\" has none either: write \
                 brokers = \"host:9092\" in the channel, or [bus] kind = \"kafka\" in the settings",
                path.display(),
                channel.id
            );
        }
    }
    println!("{}", plan.explain());
    let mut warnings = plan.warnings();
    // Secrets and authorities are this machine's, which may not be the one that runs the plan: no fault of the plan.
    let unmade = plan
        .channels()
        .values()
        .filter_map(|channel| Channel::new(channel, &|target: &_| publish::connect(config, target)).err());
    warnings.extend(unmade.map(|error| format!("{error} (`rebound up` here would refuse to start)")));
    for warning in &warnings {
        println!("warning: {warning}");
    }
    println!(
        "{}: good. {} services, {} probes, {} procedures, {} warnings. Version {}.",
        path.display(),
        plan.services().len(),
        plan.probes().len(),
        plan.procedures().len(),
        warnings.len(),
        plan.version(),
    );
    Ok(Done::Good)
}
