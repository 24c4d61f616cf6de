//! The port: accepts connections up to a bound, serves a filter on each, drains them at the end.
//!
//! warp's own server bounds neither connections nor the wait for a request's head, so a client that
//! opens connections and sends nothing would use up the process.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::{Filter, Reply};

/// How long a connection may stand idle, or take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that takes nothing of what it is sent is given up after this, milliseconds: its connection would be kept for
/// as long as its stream has something to tell.
const UNTAKEN_MS: u32 = 30_000;
/// Pause after a failed accept: the process is out of file descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `stopped`, then until every request that has begun is answered.
pub(crate) async fn run<F>(
    listener: TcpListener,
    api: F,
    connections: usize,
    stopped: impl Future<Output = ()>,
) where
    F: Filter<Error = Infallible> + Clone + Send + Sync + 'static,
    F::Extract: Reply,
{
    let room = Arc::new(Semaphore::new(connections));
    let open = GracefulShutdown::new();
    tokio::pin!(stopped);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = &mut stopped => break,
        };
        let service = TowerToHyperService::new(warp::service(api.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // Clients come and go: what they did to their connection is no fault of ours.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only costs latency if it fails.
                let _ = stream.set_nodelay(true);
                // Only costs memory if it fails.
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN_MS);
                return (stream, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection is not accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    async fn answered(stream: &mut TcpStream) -> bool {
        let mut byte = [0; 1];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte));
        matches!(read.await, Ok(Ok(1)))
    }

    #[tokio::test]
    async fn connections_are_bounded_and_drained() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let api = warp::any().map(|| "hello");
        let server = tokio::spawn(run(listener, api, 2, async {
            let _ = stopped.await;
        }));
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(GET).await.unwrap();
            open.push(stream);
        }
        assert!(answered(&mut open[0]).await && answered(&mut open[1]).await);
        assert!(!answered(&mut open[2]).await, "two are the bound");
        drop(open.remove(0));
        assert!(answered(&mut open[1]).await, "the third takes the first one's place");
        // Idle connections are closed, so the end does not wait for their clients.
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    }
}
