//! The commands that do one thing and end.

pub(crate) mod analyze;
pub(crate) mod bench;
pub(crate) mod bench_probes;
pub(crate) mod channels;
pub(crate) mod check;
pub(crate) mod door;
pub(crate) mod emit;
pub(crate) mod explain;
pub(crate) mod failover;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod project;
pub(crate) mod recovery;
pub(crate) mod serve;
pub(crate) mod sql;
pub(crate) mod stats;
pub(crate) mod window;

use comfy_table::{Table, presets};

/// Prints rows beneath a header, aligned and without lines.
pub(crate) fn print_table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    println!("{}", table.trim_fmt());
}
