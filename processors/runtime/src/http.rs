//! HTTP requests to companies: one pool of kept-alive connections, HTTP/1.1, TLS for `https` with
//! Mozilla's root certificates, no redirects.
//!
//! A caller must know whether a request can have arrived, so failures say that and nothing else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// Idle connections are closed after that; servers close theirs after a minute or so.
const IDLE: Duration = Duration::from_secs(30);

/// Sends requests; cheap to clone.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body; `None` if it was longer than allowed or broke off.
    pub body: Option<Bytes>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection was made: the request certainly did not arrive.
    NotConnected,
    /// Too late: it may have arrived.
    TimedOut,
    /// The connection broke: it may have arrived.
    Broken,
}

impl Http {
    /// A client with an empty pool.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client }
    }

    /// Sends a request and reads the answer, connecting included, `within` this time; a body longer
    /// than `most` bytes is not read to its end. Repeats nothing that may have arrived.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
        most: usize,
    ) -> Result<Answer, NoAnswer> {
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| {
                if error.is_connect() { NoAnswer::NotConnected } else { NoAnswer::Broken }
            })?;
            let (head, mut body) = answer.into_parts();
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let data = frame.ok().map(|frame| frame.into_data().unwrap_or_default());
                match data {
                    Some(data) if bytes.len() + data.len() <= most => {
                        bytes.extend_from_slice(&data)
                    }
                    _ => return Ok(Answer { status: head.status, body: None }),
                }
            }
            Ok(Answer { status: head.status, body: Some(bytes.freeze()) })
        };
        tokio::time::timeout(within, exchange).await.unwrap_or(Err(NoAnswer::TimedOut))
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_millis(300);

    /// A server that reads a request, answers these bytes and closes.
    async fn server(answer: Option<&'static [u8]>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/x", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                match answer {
                    Some(bytes) => {
                        let _ = stream.write_all(bytes).await;
                    }
                    None => std::future::pending().await,
                }
            }
        });
        url
    }

    async fn get(url: &str) -> Result<Answer, NoAnswer> {
        let request = Request::get(url).body(Full::default()).expect("a request");
        Http::new().send(request, WITHIN, 5).await
    }

    #[tokio::test]
    async fn an_answer_is_read_whole() {
        let url = server(Some(b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello")).await;
        let answer = get(&url).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.body.as_deref(), Some(&b"hello"[..]));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_or_breaks_off_is_none() {
        let long = server(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!")).await;
        assert_eq!(get(&long).await.expect("an answer").body, None);
        let broken = server(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")).await;
        assert_eq!(get(&broken).await.expect("an answer").body, None);
    }

    #[tokio::test]
    async fn failures_say_whether_the_request_can_have_arrived() {
        let silent = server(None).await;
        assert_eq!(get(&silent).await.expect_err("silence"), NoAnswer::TimedOut);
        let closing = server(Some(b"")).await;
        assert_eq!(get(&closing).await.expect_err("closed"), NoAnswer::Broken);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let nobody = format!("http://{}/x", listener.local_addr().expect("bound"));
        drop(listener);
        assert_eq!(get(&nobody).await.expect_err("refused"), NoAnswer::NotConnected);
    }
}
