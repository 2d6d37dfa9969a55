//! Torn files, after a power cut on a store that is not durable: found, set aside, told of.
//!
//! | what is torn | done |
//! |---|---|
//! | the newest commit (empty, cut, or with fewer lines than it says) | moved to `_quarantine/`; its events are read from the bus again, since positions and data are in one commit |
//! | a checkpoint | moved to `_quarantine/` with `_last_checkpoint`; the JSON commits hold the same |
//! | an older commit | left alone: [`LogError::Corrupt`] when it is read |

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::file::metadata::ParquetMetaDataReader;

use super::error::LogError;
use super::positions::{LogFile, list_log};
use super::table::{COMMIT_LINES, read_file};

/// Where torn files go, relative to the table.
const QUARANTINE: &str = "_quarantine";

/// A file that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Where it was.
    pub file: String,
    /// Where it is.
    pub moved_to: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sets torn checkpoints and a torn newest commit aside. Only for the one who is about to write.
pub(super) async fn quarantine(store: &Arc<dyn ObjectStore>) -> Result<Vec<Quarantined>, LogError> {
    let mut moved = quarantine_torn_checkpoints(store).await?;
    let log = list_log(store).await?;
    let newest = log.iter().filter(|file| file.commit.is_some()).max_by_key(|file| file.commit);
    if let Some(newest) = newest {
        let bytes = read_file(store, newest.path.as_ref()).await?;
        if let Some(reason) = torn_commit(&bytes) {
            moved.push(set_aside(store, newest, reason).await?);
        }
    }
    Ok(moved)
}

/// Which commit can't be read, for readers, who set none aside: the reason why a table can't be opened.
pub(super) async fn find_torn_commit(store: &Arc<dyn ObjectStore>) -> Result<Option<LogError>, LogError> {
    let log = list_log(store).await?;
    let newest = log.iter().filter_map(|file| file.commit).max();
    for file in log.iter().filter(|file| file.commit.is_some()) {
        if let Some(reason) = torn_commit(&read_file(store, file.path.as_ref()).await?) {
            let path = file.path.to_string();
            return Ok(Some(match file.commit == newest {
                true => LogError::Torn { file: path, reason },
                false => LogError::Corrupt { file: path, reason },
            }));
        }
    }
    Ok(None)
}

/// Sets torn checkpoints aside. Safe at any time: stores show a checkpoint only when it is complete.
pub(super) async fn quarantine_torn_checkpoints(store: &Arc<dyn ObjectStore>) -> Result<Vec<Quarantined>, LogError> {
    let mut moved = Vec::new();
    let log = list_log(store).await?;
    for file in log.iter().filter(|file| file.checkpoint.is_some()) {
        let bytes = read_file(store, file.path.as_ref()).await?;
        if let Err(e) = ParquetMetaDataReader::new().parse_and_finish(&bytes) {
            moved.push(set_aside(store, file, e.to_string()).await?);
        }
    }
    if !moved.is_empty() {
        // It points at what is no longer there; readers list the folder without it.
        match store.delete(&Path::from("_delta_log/_last_checkpoint")).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(LogError::store("removing _last_checkpoint", e)),
        }
    }
    Ok(moved)
}

async fn set_aside(store: &Arc<dyn ObjectStore>, file: &LogFile, reason: String) -> Result<Quarantined, LogError> {
    let name = file.path.filename().unwrap_or("file");
    let stamp = file.modified.timestamp_micros();
    let target = Path::from(format!("{QUARANTINE}/{name}.{stamp}"));
    store.rename(&file.path, &target).await.map_err(|e| LogError::store(format!("moving {} aside", file.path), e))?;
    Ok(Quarantined { file: file.path.to_string(), moved_to: target.to_string(), reason })
}

/// What is wrong with a commit, if it is torn.
fn torn_commit(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|b| b.is_ascii_whitespace() || *b == 0) {
        return Some("it is empty".into());
    }
    let mut lines = 0;
    let mut wanted = None;
    for line in serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>() {
        match line {
            Err(e) => return Some(format!("it is cut after {lines} actions: {e}")),
            Ok(action) => {
                lines += 1;
                wanted = wanted.or_else(|| action.get("commitInfo")?.get(COMMIT_LINES)?.as_u64());
            }
        }
    }
    wanted.filter(|wanted| *wanted != lines).map(|wanted| format!("it has {lines} of {wanted} actions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_commits_are_known() {
        let whole = "{\"commitInfo\":{\"rebound.lines\":2}}\n{\"txn\":{\"appId\":\"a\",\"version\":1}}\n";
        let check = |bytes: &[u8], says: Option<&str>| {
            let found = torn_commit(bytes);
            assert_eq!(found.is_some(), says.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(says.unwrap_or_default()));
        };
        check(whole.as_bytes(), None);
        check(b"{\"commitInfo\":{}}\n{\"add\":{}}", None);
        check(b"", Some("empty"));
        check(&[0; 512], Some("empty"));
        check(&whole.as_bytes()[..whole.len() - 5], Some("cut after 1"));
        check(whole.lines().next().unwrap().as_bytes(), Some("1 of 2"));
    }
}
