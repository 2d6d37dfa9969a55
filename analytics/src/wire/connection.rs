//! One client's conversation: a message after the other, until it leaves, breaks off, or the server stops.
//!
//! | while | the client hangs up | the server stops |
//! |---|---|---|
//! | nothing runs | it is over | the client is told so |
//! | a statement runs | the statement is stopped | it may end, for ten seconds; then the client is told so |
//!
//! A message has a largest size, and a beginning must come to its end in time, so that nobody can fill the memory or
//! take a place by doing nothing.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, ErrorHandler, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::PgWireError;
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::{SinkExt, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::codec::{Framed, FramedParts};
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, Prepared};
use super::login::Startup;
use super::run::{Cancels, Present};
use super::{GRACE, Server, fatal};

/// Largest message, in bytes. Statements are refused from 64 KiB on, with words; this is for what is beyond words.
const MAX_MESSAGE: usize = 16 << 20;

/// How long TLS and login may take.
const STARTUP: Duration = Duration::from_secs(30);

type Client = Framed<Bounded<MaybeTls>, PgWireMessageServerCodec<Prepared>>;

pub(super) async fn talk(
    socket: TcpStream,
    server: Arc<Server>,
    admitted: bool,
    stop: CancellationToken,
) -> io::Result<()> {
    // A client whose machine is gone is found out within two minutes.
    let alive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
    SockRef::from(&socket).set_tcp_keepalive(&alive.with_retries(6))?;
    let line = std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    let line = TcpStream::from_std(line)?;
    let deadline = Instant::now() + STARTUP;
    let negotiated = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        negotiated = tokio::time::timeout_at(deadline, negotiate_tls(socket, server.tls.clone())) => negotiated,
    };
    // Out of time, or TLS where there is none.
    let Ok(Some(socket)) = negotiated.map_or(Ok(None), |socket| socket.map(Some)).map(Option::flatten) else {
        return Ok(());
    };
    let mut client = bounded(socket);
    let present = Arc::new(Present::default());
    let startup = Arc::new(Startup::new(&server, present.clone(), admitted)?);
    let gate = Arc::new(Gate::new(server.world.clone(), present));
    let cancels = Arc::new(Cancels(server.connections.clone()));
    loop {
        client.get_mut().left = MAX_MESSAGE;
        let starting = matches!(
            client.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let message = tokio::select! {
            () = stop.cancelled() => return farewell(&mut client).await,
            () = tokio::time::sleep_until(deadline), if starting => return Ok(()),
            message = client.next() => message,
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Ok(message)) => message,
            Some(Err(_)) if client.get_ref().left == 0 => {
                let message = format!("a message has at most {MAX_MESSAGE} bytes");
                return process_error(&mut client, fatal("08P01", message), false).await;
            }
            Some(Err(error @ PgWireError::IoError(_))) => return Err(error.into()),
            Some(Err(error)) => return process_error(&mut client, error, false).await,
        };
        let extended = message.is_extended_query();
        let ended = {
            let work = process_message(
                message,
                &mut client,
                startup.clone(),
                gate.clone(),
                gate.clone(),
                Arc::new(NoopHandler),
                cancels.clone(),
            );
            tokio::select! {
                ended = work => Some(ended),
                // Whoever brings a cancel request may leave at once.
                () = hung_up(&line), if !starting => return Ok(()),
                () = overdue(&stop) => None,
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(mut error)) => {
                gate.on_error(&client, &mut error);
                let over = matches!(&error, PgWireError::IoError(_));
                process_error(&mut client, error, extended).await?;
                if over || starting {
                    return Ok(());
                }
            }
            None => return farewell(&mut client).await,
        }
    }
}

/// Tells that the server stops.
async fn farewell(client: &mut Client) -> io::Result<()> {
    let stops = fatal("57P01", "terminating connection: the server stops");
    let told = tokio::time::timeout(Duration::from_secs(1), process_error(client, stops, false)).await;
    let _ = client.close().await;
    told.unwrap_or(Ok(()))
}

/// Ends when the server has been stopping for as long as what runs may go on.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Ends when the other side has closed the connection, whatever it sent before.
async fn hung_up(line: &TcpStream) {
    while let Ok(ready) = line.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // It has sent something, which is read in its turn: wait for the next change.
        let _ = line.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// A stream that gives so many bytes and no more; the number is set anew for each message.
struct Bounded<T> {
    io: T,
    left: usize,
}

fn bounded(socket: Framed<MaybeTls, PgWireMessageServerCodec<Prepared>>) -> Client {
    let old = socket.into_parts();
    let mut parts = FramedParts::new(Bounded { io: old.io, left: MAX_MESSAGE }, old.codec);
    (parts.read_buf, parts.write_buf) = (old.read_buf, old.write_buf);
    Framed::from_parts(parts)
}

impl<T: AsyncRead + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("a message is too large")));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
