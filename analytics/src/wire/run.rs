//! One statement while it runs: on SQL's own threads, watched from the connection, and stopped when its time is over,
//! when its client cancels it, and when nobody waits for it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::common::ParamValues;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::error::PgWireError;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::World;
use super::{error, told};
use crate::session::SqlError;

/// Batches that wait for a slow client.
const WAITING: usize = 2;

/// What a connection runs at present: what began before a cancel request ends by it.
#[derive(Debug, Default)]
pub(super) struct Present(Mutex<CancellationToken>);

impl Present {
    fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cancel(&self) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }
}

/// What a cancel request names its connection by.
pub(super) type Key = (i32, Vec<u8>);

pub(super) fn key(pid: i32, secret: &SecretKey) -> Key {
    (pid, secret.to_bytes().to_vec())
}

/// The connections that can be told to cancel what they run.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<Key, Arc<Present>>>);

impl Connections {
    pub(super) fn add(&self, key: Key, present: Arc<Present>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, present);
    }

    pub(super) fn remove(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Answers cancel requests; one that knows no connection's secret is passed over, as the protocol asks.
#[derive(Debug)]
pub(super) struct Cancels(pub(super) Arc<Connections>);

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let connections = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = connections.get(&key(request.pid, &request.secret_key)) {
            present.cancel();
        }
    }
}

/// What is asked.
pub(super) struct Asked {
    pub(super) statement: Sql,
    pub(super) values: Option<ParamValues>,
    /// As known then, instead of now.
    pub(super) known_at: Option<DateTime<Utc>>,
    /// How long it may take.
    pub(super) timeout: Duration,
}

enum Piece {
    Columns(SchemaRef),
    Rows(RecordBatch),
    End,
}

/// A statement that runs; it is stopped by being dropped.
pub(super) struct Run {
    pieces: mpsc::Receiver<Result<Piece, SqlError>>,
    /// Aborts what it holds when dropped.
    _task: JoinSet<()>,
    cancelled: CancellationToken,
    timeout: Duration,
    /// What is left of the timeout. Only waiting for the query counts, not the time that the client takes to read.
    left: Duration,
}

impl Run {
    /// Plans it and begins to run it; answers its columns too.
    pub(super) async fn start(
        world: &Arc<World>,
        present: &Present,
        asked: Asked,
    ) -> Result<(Self, SchemaRef), PgWireError> {
        let (pieces, receiver) = mpsc::channel(WAITING);
        let Asked { statement, values, known_at, timeout } = asked;
        let (mut task, world) = (JoinSet::new(), world.clone());
        let threads = world.threads().clone();
        task.spawn_on(
            async move {
                let ran = async {
                    let (columns, mut rows) = Box::pin(world.run(statement, values, known_at)).await?;
                    // A receiver that is gone takes this task with it.
                    let _ = pieces.send(Ok(Piece::Columns(columns))).await;
                    while let Some(batch) = rows.next().await? {
                        let _ = pieces.send(Ok(Piece::Rows(batch))).await;
                    }
                    Ok(Piece::End)
                };
                let _ = pieces.send(ran.await).await;
            },
            &threads,
        );
        let cancelled = present.token();
        let mut run = Self { pieces: receiver, _task: task, cancelled, timeout, left: timeout };
        match run.piece().await? {
            Piece::Columns(columns) => Ok((run, columns)),
            Piece::Rows(_) | Piece::End => Err(error("XX000", "an answer without columns")),
        }
    }

    /// The next rows, `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, PgWireError> {
        match self.piece().await? {
            Piece::Rows(batch) => Ok(Some(batch)),
            Piece::Columns(_) | Piece::End => Ok(None),
        }
    }

    async fn piece(&mut self) -> Result<Piece, PgWireError> {
        let began = Instant::now();
        let piece = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => return Err(PgWireError::QueryCanceled),
            piece = tokio::time::timeout(self.left, self.pieces.recv()) => piece,
        };
        self.left = self.left.saturating_sub(began.elapsed());
        match piece {
            Err(_) => Err(told(&SqlError::Timeout(self.timeout))),
            Ok(None) => Err(error("XX000", "the query ended by a defect; the log of the server has more")),
            Ok(Some(piece)) => piece.map_err(|sql| told(&sql)),
        }
    }
}
