//! What a request still sends when its answer is decided already: taken and thrown away, within bounds.
//!
//! Answers are given as soon as they are known: a token is missing, a body is too large, there is no such path. A client
//! that is still sending then would find its stream broken (HTTP/2) or its connection reset (HTTP/1.1), and often lose
//! the answer. So the rest is read in the background while the client sees the answer and stops.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};

/// What is taken of a rest at most: who goes on for longer does not read answers.
const MOST_BYTES: usize = 64 << 20;
/// How long it is taken at most: time for the answer to arrive, and for what is under way.
const MOST_TIME: Duration = Duration::from_secs(2);

/// Has the rest of each request's body taken, whoever refused it.
pub(super) async fn take_rest(request: Request, next: Next) -> Response {
    let watched = |body: Body| Body::from_stream(Watched { body: Some(body.into_data_stream()) });
    next.run(request.map(watched)).await
}

/// A body whose rest is taken when it is dropped before its end.
struct Watched {
    /// Gone at the end.
    body: Option<BodyDataStream>,
}

impl Stream for Watched {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the connection with it.
        if let (Some(mut body), Ok(runtime)) = (self.body.take(), tokio::runtime::Handle::try_current()) {
            let taking = async move {
                let mut taken = 0;
                while let Some(Ok(bytes)) = body.next().await {
                    taken += bytes.len();
                    if taken > MOST_BYTES {
                        return;
                    }
                }
            };
            runtime.spawn(tokio::time::timeout(MOST_TIME, taking));
        }
    }
}
