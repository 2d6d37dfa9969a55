//! Where the log is, and how its table is opened there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use deltalake::logstore::{LogStoreRef, ObjectStoreRef};
use deltalake::{DeltaTable, DeltaTableBuilder};
use url::Url;

use super::error::LogError;
use super::repair;
use super::store::DurableLocal;

/// A local folder or an object store's prefix. Credentials come from the environment as delta-rs reads them
/// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`…) or from [`LogLocation::with_options`].
#[derive(Clone)]
pub struct LogLocation {
    url: Url,
    /// The store at the URL's root, where it is not the scheme's own.
    root: Option<ObjectStoreRef>,
    options: HashMap<String, String>,
}

impl fmt::Debug for LogLocation {
    /// Options may be secret: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.options.keys().collect();
        names.sort();
        f.debug_struct("LogLocation").field("url", &self.to_string()).field("options", &names).finish()
    }
}

impl fmt::Display for LogLocation {
    /// The path of a local log, the URL of another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_path() {
            Some(path) => write!(f, "{}", path.display()),
            None => f.write_str(self.url.as_str()),
        }
    }
}

impl LogLocation {
    /// A path (absolute, or relative to the working directory; made when the log is first written) or a URL
    /// (`file:///…`, `s3://bucket/prefix`, `s3a://…`).
    ///
    /// # Errors
    /// Neither of the two.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let wrong = |reason: &str| LogError::Location { text: text.to_owned(), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                let path = std::path::absolute(text).map_err(|e| wrong(&e.to_string()))?;
                Url::from_directory_path(path).map_err(|()| wrong("the path can't be written as a URL"))?
            }
            Err(e) => return Err(wrong(&e.to_string())),
        };
        match url.scheme() {
            "file" => {}
            "s3" | "s3a" if url.host_str().is_some_and(|bucket| !bucket.is_empty()) => {}
            "s3" | "s3a" => return Err(wrong("the bucket is missing")),
            other => return Err(wrong(&format!("the scheme {other:?} is not supported"))),
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let root = (url.scheme() == "file").then(|| Arc::new(DurableLocal::new()) as ObjectStoreRef);
        Ok(Self { url, root, options: HashMap::new() })
    }

    /// With options of the object store, as delta-rs names them; they come before the environment.
    #[must_use]
    pub fn with_options(mut self, options: HashMap<String, String>) -> Self {
        self.options = options;
        self
    }

    /// With another store at the URL's root: for tests that inject faults.
    #[cfg(test)]
    pub(crate) fn with_root(mut self, root: ObjectStoreRef) -> Self {
        self.root = Some(root);
        self
    }

    /// The URL of the table, with a slash at its end.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The folder of a local log.
    #[must_use]
    pub fn local_path(&self) -> Option<std::path::PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok())?
    }

    pub(super) fn builder(&self) -> Result<DeltaTableBuilder, LogError> {
        let builder = DeltaTableBuilder::from_url(self.url.clone())
            .map_err(|e| LogError::delta(format!("addressing the event log at {self}"), e))?
            .with_storage_options(self.options.clone());
        Ok(match &self.root {
            Some(root) => builder.with_storage_backend(root.clone(), self.url.clone()),
            None => builder,
        })
    }

    pub(super) fn log_store(&self) -> Result<LogStoreRef, LogError> {
        self.builder()?.build_storage().map_err(|e| LogError::delta(format!("opening the store at {self}"), e))
    }
}

/// Opens the log's table at its newest version, for readers. A torn checkpoint is set aside (into `_quarantine/`)
/// and the JSON commits are read instead; a torn newest commit is left to the writer.
///
/// # Errors
/// There is no table, it is not an event log, it is not append-only, or it can't be read.
pub async fn open_table(location: &LogLocation) -> Result<DeltaTable, LogError> {
    let log_store = location.log_store()?;
    let opening = || format!("opening the event log at {location}");
    let exists = log_store.is_delta_table_location().await.map_err(|e| LogError::delta(opening(), e))?;
    if !exists {
        return Err(LogError::Absent { location: location.to_string() });
    }
    let table = match location.builder()?.load().await {
        Ok(table) => table,
        Err(first) => {
            let store = log_store.object_store(None);
            if repair::quarantine_torn_checkpoints(&store).await?.is_empty() {
                let torn = repair::find_torn_commit(&store).await?;
                return Err(torn.unwrap_or_else(|| LogError::delta(opening(), first)));
            }
            location.builder()?.load().await.map_err(|e| LogError::delta(opening(), e))?
        }
    };
    super::table::guard(location, &table)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_paths_or_urls() {
        let show = |text: &str| LogLocation::parse(text).map(|l| l.to_string()).map_err(|e| e.to_string());
        assert_eq!(show("/var/lib/rebound/log").as_deref(), Ok("/var/lib/rebound/log/"));
        assert_eq!(show("s3://bucket/log").as_deref(), Ok("s3://bucket/log/"));
        assert!(show("some/where").unwrap().ends_with("/some/where/"));
        assert!(show("").unwrap_err().contains("it is empty"));
        assert!(show("https://example.org/x").unwrap_err().contains("\"https\" is not supported"));
        assert!(show("s3:///x").unwrap_err().contains("bucket is missing"));
    }

    #[test]
    fn options_are_not_shown() {
        let location = LogLocation::parse("s3://bucket/log")
            .unwrap()
            .with_options([("aws_secret_access_key".to_owned(), "hush".to_owned())].into());
        let shown = format!("{location:?}");
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hush"), "{shown}");
    }
}
