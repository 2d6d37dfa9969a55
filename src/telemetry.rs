//! The program's own log, on standard error: lines for people, or JSON for machines.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// What the roles log: their own doings, and of the libraries below them only what is wrong.
pub(crate) const ROLES: &str = "warn,rebound=info,rebound_ingest=info,rebound_alerting=info,rebound_analytics=info,\
                                buoyant_kernel=off,buoyant_kernel_engine=off";
/// What the other commands log. The table format's kernel tells its errors twice, once to its caller: that is enough.
pub(crate) const COMMANDS: &str = "error,buoyant_kernel=off,buoyant_kernel_engine=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Starts logging. `REBOUND_LOG` (or `RUST_LOG`) filters, as in `info,rebound_ingest=debug`; `default` holds without.
pub(crate) fn start(format: LogFormat, default: &str) {
    let filter = ["REBOUND_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::try_new(filter.as_deref().unwrap_or(default)).unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
