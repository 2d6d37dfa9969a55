//! A local object store that is durable: what it has acknowledged survives a power cut.
//!
//! `object_store`'s `LocalFileSystem` never syncs. [`DurableLocal`] writes to a staging file, syncs it, links or
//! renames it to its name, and syncs its directory (and the parents that it made) before it answers. Reads,
//! listings and deletions go to the inner store.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
};

const NAME: &str = "DurableLocal";

/// See the module.
#[derive(Debug, Clone)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    /// Directories whose sync failed after a file was put there: they are synced before anything else is
    /// acknowledged, so that no retry can mistake "already there" for "durable".
    unsynced: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl DurableLocal {
    /// The whole file system, as delta-rs's `file://` store.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()), unsynced: Arc::default() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> std::io::Result<T> + Send + 'static,
        path: PathBuf,
    ) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await?;
        done.map_err(|source| located(source, &path))
    }

    fn put_synced(&self, target: &FilePath, payload: &PutPayload, mode: &PutMode) -> std::io::Result<()> {
        self.sync_pending()?;
        let staging = staging_path(target);
        let result = self.stage(&staging, payload).and_then(|()| self.publish(&staging, target, mode));
        if result.is_err() {
            // Best effort: a left-over staging file is never listed, and vacuum removes it.
            let _ = std::fs::remove_file(&staging);
        }
        result
    }

    fn stage(&self, staging: &FilePath, payload: &PutPayload) -> std::io::Result<()> {
        let open = || OpenOptions::new().write(true).create_new(true).open(staging);
        let mut file = match open() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.make_parents(staging)?;
                open()?
            }
            other => other?,
        };
        payload.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()
    }

    fn publish(&self, staging: &FilePath, target: &FilePath, mode: &PutMode) -> std::io::Result<()> {
        match mode {
            PutMode::Create => {
                std::fs::hard_link(staging, target)?;
                let _ = std::fs::remove_file(staging);
            }
            PutMode::Overwrite | PutMode::Update(_) => std::fs::rename(staging, target)?,
        }
        self.sync_dir(parent(target))
    }

    /// Makes the missing parents of a file; each is synced into its own parent.
    fn make_parents(&self, file: &FilePath) -> std::io::Result<()> {
        let mut missing = Vec::new();
        let mut dir = parent(file);
        while !dir.exists() {
            missing.push(dir);
            dir = parent(dir);
        }
        for dir in missing.into_iter().rev() {
            match std::fs::create_dir(dir) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => self.sync_dir(parent(dir))?,
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &FilePath) -> std::io::Result<()> {
        File::open(dir).and_then(|d| d.sync_all()).inspect_err(|_| {
            self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        })
    }

    fn sync_pending(&self) -> std::io::Result<()> {
        let pending = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let results: Vec<_> = pending.iter().map(|dir| self.sync_dir(dir)).collect();
        results.into_iter().collect()
    }
}

impl Default for DurableLocal {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAME)
    }
}

fn parent(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(FilePath::new("/"))
}

/// A name beside the target that `LocalFileSystem` does not list (`#` and digits), unlike any other's.
fn staging_path(target: &FilePath) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = target.as_os_str().to_owned();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!("#{}{n:08}{:08}", std::process::id(), rand::random_range(0..100_000_000)));
    name.into()
}

/// Whether a file name is that of a staging file.
pub(crate) fn is_staging(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn located(source: std::io::Error, path: &FilePath) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        _ => Error::Generic { store: NAME, source: Box::new(Located { path, source }) },
    }
}

/// An I/O error with the file at which it occurred.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct Located {
    path: String,
    pub(crate) source: std::io::Error,
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return Err(Error::NotImplemented { operation: "conditional update".into(), implementer: NAME.into() });
        }
        let target = self.inner.path_to_filesystem(location)?;
        let path = target.clone();
        self.blocking(move |this| this.put_synced(&target, &payload, &opts.mode), path).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        let target = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { inner, target, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.inner.get_opts(from, GetOptions::default()).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, bytes.into(), mode.into()).await.map(|_| ())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let source = self.inner.path_to_filesystem(from)?;
        let target = self.inner.path_to_filesystem(to)?;
        let mode = match options.target_mode {
            RenameTargetMode::Overwrite => PutMode::Overwrite,
            RenameTargetMode::Create => PutMode::Create,
        };
        let path = source.clone();
        let rename = move |this: &Self| {
            this.sync_pending()?;
            this.make_parents(&target)?;
            this.publish(&source, &target, &mode)?;
            this.sync_dir(parent(&source))
        };
        self.blocking(rename, path).await
    }
}

/// A multipart upload that is synced when it is complete.
#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    target: PathBuf,
    store: DurableLocal,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        let target = self.target.clone();
        let sync = move |this: &DurableLocal| {
            File::open(&target)?.sync_all()?;
            // The upload may have made parents that only it knows of: sync the way up, which costs little.
            target.ancestors().skip(1).take(3).filter(|d| d.is_dir()).try_for_each(|dir| this.sync_dir(dir))
        };
        self.store.blocking(sync, self.target.clone()).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;

    use super::*;

    #[tokio::test]
    async fn puts_are_atomic_and_exclusive_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        let root = Path::from_absolute_path(dir.path()).unwrap();
        let at = |name: &str| Path::from(format!("{root}/a/b/{name}"));
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&at("0.json"), "first".into(), create()).await.unwrap();
        let again = store.put_opts(&at("0.json"), "second".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        store.put(&at("1"), "x".into()).await.unwrap();
        store.put(&at("1"), "y".into()).await.unwrap();
        store.rename(&at("1"), &at("c/2")).await.unwrap();
        let read = async |name: &str| store.get(&at(name)).await.unwrap().bytes().await.unwrap();
        assert_eq!((read("0.json").await.as_ref(), read("c/2").await.as_ref()), (&b"first"[..], &b"y"[..]));
        let mut files: Vec<_> = std::fs::read_dir(dir.path().join("a/b"))
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["0.json", "c"], "no staging file is left behind");
    }

    #[tokio::test]
    async fn a_failed_write_leaves_nothing_under_the_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "in the way").unwrap();
        let store = DurableLocal::new();
        let target = Path::from_absolute_path(dir.path()).unwrap().join("file").join("x");
        assert!(store.put(&target, "x".into()).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn staging_names_are_told_from_data() {
        assert!(is_staging("x.parquet#12"));
        assert!(!is_staging("x#y.parquet") && !is_staging("x#") && !is_staging("x"));
    }
}
