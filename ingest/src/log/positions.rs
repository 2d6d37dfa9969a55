//! Every partition's position from the table's log: the newest checkpoint's transactions, then those of the
//! commits after it. delta-rs answers for one application id at a time; the log wants all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use deltalake::kernel::Action;
use deltalake::logstore::get_actions;
use futures::TryStreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::error::LogError;
use super::table::{commit_file, read_file};
use crate::bus::Offset;

/// Positions as of a version.
pub(super) async fn read(store: &Arc<dyn ObjectStore>, version: u64) -> Result<BTreeMap<String, Offset>, LogError> {
    let log = list_log(store).await?;
    let checkpoint = log.iter().filter_map(|file| file.checkpoint).filter(|v| *v <= version).max();
    let mut positions = BTreeMap::new();
    for file in log.iter().filter(|file| file.checkpoint.is_some() && file.checkpoint == checkpoint) {
        let bytes = read_file(store, file.path.as_ref()).await?;
        from_checkpoint(file.path.as_ref(), bytes, &mut positions)?;
    }
    for version in checkpoint.map_or(0, |v| v + 1)..=version {
        let file = commit_file(version);
        let bytes = read_file(store, file.as_ref()).await?;
        let actions = get_actions(version, &bytes)
            .map_err(|e| LogError::Corrupt { file: file.to_string(), reason: e.to_string() })?;
        for action in actions {
            if let Action::Txn(txn) = action {
                positions.insert(txn.app_id, txn.version);
            }
        }
    }
    Ok(positions)
}

/// A file of `_delta_log/`.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    pub(super) path: Path,
    /// The version of a JSON commit.
    pub(super) commit: Option<u64>,
    /// The version of a checkpoint or a part of one.
    pub(super) checkpoint: Option<u64>,
    pub(super) modified: chrono::DateTime<chrono::Utc>,
}

/// The commits and checkpoints of the table's log, in name order.
pub(super) async fn list_log(store: &Arc<dyn ObjectStore>) -> Result<Vec<LogFile>, LogError> {
    let listing = |e| LogError::store("listing _delta_log", e);
    let metas: Vec<_> = match store.list(Some(&Path::from("_delta_log"))).try_collect().await {
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        other => other.map_err(listing)?,
    };
    let mut files: Vec<_> = metas
        .into_iter()
        .filter_map(|meta| {
            let (commit, checkpoint) = versions(meta.location.filename()?);
            (commit.or(checkpoint).is_some()).then_some(LogFile {
                path: meta.location,
                commit,
                checkpoint,
                modified: meta.last_modified,
            })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Which commit or checkpoint a file name is: `<20 digits>.json`, `<20 digits>.checkpoint[…].parquet`.
fn versions(name: &str) -> (Option<u64>, Option<u64>) {
    let Some((number, kind)) = name.split_once('.') else { return (None, None) };
    let Some(version) = (number.len() == 20).then(|| number.parse().ok()).flatten() else { return (None, None) };
    match kind {
        "json" => (Some(version), None),
        kind if kind.starts_with("checkpoint") && kind.ends_with(".parquet") => (None, Some(version)),
        _ => (None, None),
    }
}

fn from_checkpoint(file: &str, bytes: Bytes, positions: &mut BTreeMap<String, Offset>) -> Result<(), LogError> {
    let broken = |source| LogError::Parquet { file: file.to_owned(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(broken)?;
    let txn = builder.parquet_schema().root_schema().get_fields().iter().position(|f| f.name() == "txn");
    let Some(txn) = txn else { return Ok(()) };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [txn]);
    let reader = builder.with_projection(mask).build().map_err(broken)?;
    for batch in reader {
        let batch = batch.map_err(|e| broken(e.into()))?;
        let malformed = || LogError::Corrupt { file: file.to_owned(), reason: "its column txn is malformed".into() };
        let txn = batch.column(0).as_struct_opt().ok_or_else(malformed)?;
        let app = txn.column_by_name("appId").and_then(|c| c.as_string_opt::<i32>()).ok_or_else(malformed)?;
        let version =
            txn.column_by_name("version").and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(malformed)?;
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && app.is_valid(*row)) {
            positions.insert(app.value(row).to_owned(), version.value(row));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_files_are_told_apart_by_name() {
        assert_eq!(versions("00000000000000000012.json"), (Some(12), None));
        assert_eq!(versions("00000000000000000100.checkpoint.parquet"), (None, Some(100)));
        assert_eq!(versions("00000000000000000100.checkpoint.0000000001.0000000002.parquet"), (None, Some(100)));
        for other in ["_last_checkpoint", "12.json", "00000000000000000012.crc", "0000000000000000001x.json"] {
            assert_eq!(versions(other), (None, None), "{other}");
        }
    }
}
