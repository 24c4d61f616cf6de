//! HTTP: connections, bodies, and answers with their errors.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::config::Config;
use super::job::{Data, InsertJob, QueryJob};
use super::refusal::Refusal;
use super::request::Asked;
use super::statement::{self, Statement};
use super::users::User;
use crate::chdb::Engine;
use crate::serve::serve;

/// Greatest body that holds a statement (an INSERT's data after a statement in the address is
/// streamed and has no limit), bytes.
const STATEMENT_LIMIT: usize = 256 * 1024 * 1024;
/// How long a request waits for others to leave the engine.
const QUEUE_TIME: Duration = Duration::from_secs(10);
/// Bytes of a body read and dropped after an error, so that the client gets to read the answer.
const DRAINED: usize = 64 * 1024 * 1024;

/// Between an exception in the middle of an answer and the end of its connection.
const FLUSH_TIME: Duration = Duration::from_millis(50);

/// Cuts an answer off after its exception was sent.
#[derive(Debug, thiserror::Error)]
#[error("the query failed after its answer had begun")]
struct CutOff;

type Body = BoxBody<Bytes, CutOff>;

/// A bound server; it answers once [`Server::run`] is polled.
pub struct Server {
    listener: TcpListener,
    front: Arc<Front>,
    max_queries: usize,
}

struct Front {
    engine: Engine,
    users: Vec<User>,
    running: Arc<Semaphore>,
}

impl Server {
    /// Opens the engine on the data folder and binds the address. Call it once per process.
    pub async fn bind(config: Config) -> anyhow::Result<Server> {
        let data = &config.data;
        std::fs::create_dir_all(data)
            .with_context(|| format!("making the data folder {}", data.display()))?;
        let data = data.canonicalize()?;
        let library = config.library.clone();
        let arguments = vec![format!("--max_server_memory_usage={}", config.max_memory_bytes)];
        let opened =
            tokio::task::spawn_blocking(move || Engine::open(&library, &data, &arguments)).await?;
        let engine = opened.with_context(|| {
            format!("library {}, data {}", config.library.display(), config.data.display())
        })?;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("listening on {}: is it in use? try --listen", config.listen)
        })?;
        let running = Arc::new(Semaphore::new(config.max_queries));
        let front = Arc::new(Front { engine, users: config.users, running });
        Ok(Server { listener, front, max_queries: config.max_queries })
    }

    /// The address it listens on, with the port the system chose.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The engine's version.
    pub fn version(&self) -> String {
        self.front.engine.version()
    }

    /// Serves until `stop` is ready, then lets running statements end, for ten seconds at most.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let front = self.front.clone();
        tokio::select! {
            () = stop => {}
            () = serve(&self.listener, move |request| answer(front.clone(), request)) => {}
        }
        drop(self.listener);
        let all = u32::try_from(self.max_queries).unwrap_or(u32::MAX);
        let idle = self.front.running.acquire_many(all);
        let _ = tokio::time::timeout(Duration::from_secs(10), idle).await;
    }
}

async fn answer(
    front: Arc<Front>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let has_query = request.uri().query().is_some_and(|query| !query.is_empty());
    let answer = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/ping" | "/replicas_status") => Ok(full("Ok.\n")),
        (&Method::GET | &Method::HEAD, "/") if !has_query => Ok(full("Ok.\n")),
        (&Method::GET | &Method::POST, "/") => front.statement(request).await,
        (_, "/") => Err(Refusal::unsupported("Only GET and POST are understood")),
        _ => {
            let mut response = full("There is no such path: statements go to /\n");
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    };
    Ok(answer.unwrap_or_else(|refusal| refused(&refusal)))
}

impl Front {
    async fn statement(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (parts, mut body) = request.into_parts();
        let asked = Asked::new(&parts, &self.users);
        let outcome = match asked {
            Ok(asked) => self.run(asked, &mut body).await,
            Err(refusal) => Err(refusal),
        };
        if outcome.is_err() {
            drain(&mut body).await;
        }
        outcome
    }

    async fn run(&self, mut asked: Asked, body: &mut Incoming) -> Result<Response<Body>, Refusal> {
        let mut rest = Bytes::new();
        if let Some(boundary) = asked.form.take() {
            let form = whole(body).await?;
            asked.take_form(&boundary, &form)?;
        } else if asked.query.is_empty() {
            rest = whole(body).await?;
        }
        let mut sql = Bytes::from(std::mem::take(&mut asked.query));
        if sql.is_empty() {
            sql = std::mem::take(&mut rest);
        }
        let (mut statement, mut marks) = statement::read(&sql);
        if let Statement::Insert { head, format, data } = statement {
            if marks.files {
                return Err(Refusal::unsupported("FROM INFILE is not for servers"));
            }
            let inline = Some(sql.slice(data..)).filter(|data| !only_end(data));
            let job = InsertJob { head: sql.slice(..head), format, session: asked.session };
            return self.insert(job, inline, body, &asked.query_id).await;
        }
        let tail = whole(body).await?;
        if !tail.is_empty() {
            // As ClickHouse does: the body goes on where the address ended.
            sql = [sql.as_ref(), b"\n", tail.as_ref()].concat().into();
            (statement, marks) = statement::read(&sql);
        }
        if sql.trim_ascii().is_empty() {
            return Err(Refusal::new(62, "SYNTAX_ERROR", "Empty query"));
        }
        let job = QueryJob { sql, statement, marks, session: asked.session };
        self.query(job, &asked.query_id).await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = tokio::time::timeout(QUEUE_TIME, self.running.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(Refusal::busy)
    }

    async fn insert(
        &self,
        job: InsertJob,
        inline: Option<Bytes>,
        body: &mut Incoming,
        query_id: &str,
    ) -> Result<Response<Body>, Refusal> {
        if !job.session.writes() {
            return Err(Refusal::readonly("Cannot execute query in readonly mode"));
        }
        let permit = self.permit().await?;
        let (sender, receiver) = mpsc::channel(8);
        let engine = self.engine.clone();
        let format = job.session.format.clone();
        let running = tokio::task::spawn_blocking(move || {
            let outcome = job.run(&engine, receiver);
            drop(permit);
            outcome
        });
        let fed = feed(&sender, inline, body).await;
        // Without its end the insert is cancelled.
        drop(sender);
        let outcome = running.await.unwrap_or_else(|_| Err(Refusal::bad_arguments("crashed")));
        fed?;
        outcome?;
        Ok(headed(full(""), query_id, &format))
    }

    async fn query(&self, job: QueryJob, query_id: &str) -> Result<Response<Body>, Refusal> {
        let permit = self.permit().await?;
        let (sender, mut receiver) = mpsc::channel(4);
        let engine = self.engine.clone();
        let format = job.format().to_owned();
        tokio::task::spawn_blocking(move || {
            job.run(&engine, &sender);
            drop(permit);
        });
        let Some(first) = receiver.recv().await else {
            return Ok(headed(full(""), query_id, &format));
        };
        let first = first?;
        let tag = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let tag_header = HeaderValue::from_str(&tag).expect("hexadecimal digits");
        let chunks = stream::unfold(Sending::First(first, receiver, tag), next_frame);
        let mut response = Response::new(StreamBody::new(chunks).boxed());
        response.headers_mut().insert("x-clickhouse-exception-tag", tag_header);
        Ok(headed(response, query_id, &format))
    }
}

/// Sends an INSERT's data to its job. Stops without error when the job has ended: its outcome says
/// why.
async fn feed(
    sender: &mpsc::Sender<Data>,
    inline: Option<Bytes>,
    body: &mut Incoming,
) -> Result<(), Refusal> {
    if let Some(inline) = inline
        && sender.send(Data::Part(inline)).await.is_err()
    {
        return Ok(());
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::broken_body(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if sender.send(Data::Part(data)).await.is_err() {
            return Ok(());
        }
    }
    let _ = sender.send(Data::End).await;
    Ok(())
}

type Chunks = mpsc::Receiver<Result<Bytes, Refusal>>;

/// How far a streamed answer is.
enum Sending {
    First(Bytes, Chunks, String),
    Next(Chunks, String),
    CutOff,
    Done,
}

async fn next_frame(state: Sending) -> Option<(Result<Frame<Bytes>, CutOff>, Sending)> {
    let (mut chunks, tag) = match state {
        Sending::First(first, chunks, tag) => {
            return Some((Ok(Frame::data(first)), Sending::Next(chunks, tag)));
        }
        Sending::Next(chunks, tag) => (chunks, tag),
        Sending::CutOff => {
            // An error takes unsent bytes with it: let the exception out first.
            tokio::time::sleep(FLUSH_TIME).await;
            return Some((Err(CutOff), Sending::Done));
        }
        Sending::Done => return None,
    };
    match chunks.recv().await? {
        Ok(chunk) => Some((Ok(Frame::data(chunk)), Sending::Next(chunks, tag))),
        Err(refusal) => {
            let message = format!("{}\n", refusal.message);
            let mark = "\r\n__exception__\r\n";
            let text = format!("{mark}{tag}\r\n{message}{} {tag}{mark}", message.len());
            Some((Ok(Frame::data(text.into())), Sending::CutOff))
        }
    }
}

async fn whole(body: &mut Incoming) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, STATEMENT_LIMIT).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| Refusal::broken_body(&error))
}

/// Reads what is left of a body: a client that is still sending would not read its answer.
async fn drain(body: &mut Incoming) {
    let mut left = DRAINED;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// Whether a statement has nothing after its head but its end.
fn only_end(data: &[u8]) -> bool {
    data.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';')
}

fn full(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}

fn headed(mut response: Response<Body>, query_id: &str, format: &str) -> Response<Body> {
    let headers = response.headers_mut();
    let content_type = match format.to_ascii_lowercase().as_str() {
        "json" | "jsoncompact" | "jsonstrings" => "application/json; charset=UTF-8",
        "jsoneachrow" | "ndjson" | "jsonlines" => "application/x-ndjson; charset=UTF-8",
        name if name.starts_with("csv") => "text/csv; charset=UTF-8",
        name if name.starts_with("tabseparated") || name.starts_with("tsv") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        name if name.starts_with("pretty") => "text/plain; charset=UTF-8",
        _ => "application/octet-stream",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in [("x-clickhouse-query-id", query_id), ("x-clickhouse-format", format)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = full(format!("{}\n", refusal.message));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert("x-clickhouse-exception-code", HeaderValue::from(refusal.code));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ClickHouse\""));
    }
    response
}
