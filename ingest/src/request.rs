//! What every handler asks of a request: its merchant, its idempotency key, its JSON body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use compact_str::CompactString;
use events::{Merchant, OrderId};
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use uuid::Uuid;
use warp::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use warp::http::{HeaderMap, Method};
use wire::keys::KeyHash;

use crate::config::Limits;
use crate::keys::KeyRing;
use crate::problem::{Code, Problem};

/// The header that names an order or a receipt.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY: usize = 255;
/// A refused body is read to its end within these bounds, so that its sender can read the refusal.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// A request whose body is still to be read.
pub(crate) struct Request<B> {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// What stands behind the path's question mark, as it was sent.
    pub(crate) query: String,
    body: Pin<Box<B>>,
}

impl<B> Request<B> {
    pub(crate) fn new(method: Method, headers: HeaderMap, query: String, body: B) -> Self {
        Self { method, headers, query, body: Box::pin(body) }
    }

    pub(crate) fn merchant(&self, keys: &KeyRing) -> Result<Arc<Merchant>, Problem> {
        keys.owner(self.api_key()?).ok_or_else(|| Problem::plain(Code::Unauthorized))
    }

    /// The API key that the request came with, whoever's it is.
    pub(crate) fn api_key(&self) -> Result<KeyHash, Problem> {
        let refused = || Problem::plain(Code::Unauthorized);
        let value = self.headers.get(AUTHORIZATION).ok_or_else(refused)?;
        let (scheme, token) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        Ok(KeyHash::of(token.trim()))
    }

    /// The merchant, and the id of the API key, which the history names.
    pub(crate) fn caller(&self, keys: &KeyRing) -> Result<(Arc<Merchant>, CompactString), Problem> {
        let merchant = self.merchant(keys)?;
        let value = self.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|text| text.split_once(' ')).map_or("", |(_, token)| token);
        Ok((merchant, wire::keys::id(token.trim()).into()))
    }

    pub(crate) fn idempotency_key(&self) -> Result<CompactString, Problem> {
        let mut values = self.headers.get_all(IDEMPOTENCY_KEY).iter();
        let value = values.next().ok_or_else(|| Problem::plain(Code::MissingIdempotencyKey))?;
        let invalid = || Problem::plain(Code::InvalidIdempotencyKey);
        if values.next().is_some() {
            return Err(invalid());
        }
        value.to_str().ok().and_then(parse_key).ok_or_else(invalid)
    }
}

/// The JSON of a body.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::InvalidJson, format!("not JSON: {error}")))
}

/// The order that a path names; what is no id is no order's.
pub(crate) fn order_id(text: &str) -> Result<OrderId, Problem> {
    Uuid::try_parse(text).map(OrderId).map_err(|_| Problem::plain(Code::OrderNotFound))
}

impl<B, D> Request<B>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    /// Reads the body within the limits' bytes and time, and parses it.
    pub(crate) async fn json(
        &mut self,
        limits: &Limits,
        budget: &BodyBudget,
    ) -> Result<Value, Problem> {
        parse(&self.bytes(limits, budget).await?)
    }

    /// Reads a JSON body as it was sent, within the limits' bytes and time. The budget holds its room while
    /// it is read.
    pub(crate) async fn bytes(
        &mut self,
        limits: &Limits,
        budget: &BodyBudget,
    ) -> Result<Bytes, Problem> {
        let limit = limits.body_bytes;
        if !speaks_json(&self.headers) {
            return Err(Problem::plain(Code::UnsupportedMediaType));
        }
        let too_large = || Problem::plain(Code::BodyTooLarge);
        let announced = self.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let announced: usize = announced.and_then(|text| text.parse().ok()).unwrap_or(0);
        if announced > limit {
            return Err(too_large());
        }
        let mut hold = budget.hold();
        let reading = read(self.body.as_mut(), limit, &mut hold);
        let body = tokio::time::timeout(limits.body_timeout(), reading).await;
        body.map_err(|_| Problem::plain(Code::RequestTimeout))?
    }

    /// Reads what is left of the body, for nothing.
    pub(crate) async fn discard(&mut self) {
        let read = async {
            let mut left = MAX_DISCARDED;
            while let Some(Ok(chunk)) = self.body.next().await {
                left = left.saturating_sub(chunk.remaining());
                if left == 0 {
                    return;
                }
            }
        };
        // Out of time, the connection is closed under its sender.
        let _ = tokio::time::timeout(DISCARD_WITHIN, read).await;
    }
}

async fn read<D: Buf>(
    mut body: Pin<&mut impl Stream<Item = Result<D, warp::Error>>>,
    limit: usize,
    hold: &mut Hold<'_>,
) -> Result<Bytes, Problem> {
    let mut whole: Vec<u8> = Vec::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk
            .map_err(|_| Problem::new(Code::InvalidJson, "the body ended before its length"))?;
        let length = chunk.remaining();
        if hold.bytes + length > limit {
            return Err(Problem::plain(Code::BodyTooLarge));
        }
        if !hold.grow(length) {
            return Err(Problem::plain(Code::TooBusy));
        }
        // A small body comes in one piece, which needs no copy.
        let chunk = chunk.copy_to_bytes(length);
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            None => whole.extend_from_slice(&chunk),
            Some(start) => {
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.into()))
}

fn speaks_json(headers: &HeaderMap) -> bool {
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    plain && kind.eq_ignore_ascii_case("application/json")
}

/// A key, bare or as an RFC 8941 string, as the same value: 1 to 255 visible ASCII characters.
fn parse_key(text: &str) -> Option<CompactString> {
    let text = text.trim();
    let key = if let Some(rest) = text.strip_prefix('"') {
        unquote(rest.strip_suffix('"')?)?
    } else {
        CompactString::from(text)
    };
    let legal = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    legal.then_some(key)
}

fn unquote(text: &str) -> Option<CompactString> {
    let mut key = CompactString::default();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => return None,
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => key.push(escaped),
                _ => return None,
            },
            other => key.push(other),
        }
    }
    Some(key)
}

/// How many bytes of bodies may be held at once, over all requests.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    most: usize,
    held: AtomicUsize,
}

impl BodyBudget {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    fn hold(&self) -> Hold<'_> {
        Hold { budget: self, bytes: 0 }
    }
}

/// One body's part of the budget, given back when dropped.
struct Hold<'a> {
    budget: &'a BodyBudget,
    bytes: usize,
}

impl Hold<'_> {
    fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.budget.most
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use futures::stream;

    fn request(headers: &[(&'static str, &str)], body: &'static [u8]) -> Request<impl Chunks> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let chunks: Vec<Result<Bytes, warp::Error>> =
            body.chunks(10).map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Request::new(Method::POST, map, String::new(), stream::iter(chunks))
    }

    trait Chunks: Stream<Item = Result<Bytes, warp::Error>> {}
    impl<T: Stream<Item = Result<Bytes, warp::Error>>> Chunks for T {}

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        let table = [
            ("8e03978e-40d5", Some("8e03978e-40d5")),
            ("\"8e03978e-40d5\"", Some("8e03978e-40d5")),
            (" \"k\" ", Some("k")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#"a"b\c"#, Some(r#"a"b\c"#)),
            ("", None),
            ("\"\"", None),
            ("\"", None),
            ("\"a", None),
            ("\"a\"b\"", None),
            (r#""a\b""#, None),
            (r#""a\"#, None),
            ("a b", None),
            ("\"a b\"", None),
            ("\"a\";v=1", None),
            ("é", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_key(text).as_deref(), expected, "{text}");
        }
        assert!(parse_key(&"k".repeat(255)).is_some());
        assert!(parse_key(&"k".repeat(256)).is_none());
    }

    #[test]
    fn a_missing_a_repeated_and_a_good_key_are_told_apart() {
        let code = |headers: &[_]| request(headers, b"").idempotency_key().map_err(|p| p.code);
        assert_eq!(code(&[]), Err(Code::MissingIdempotencyKey));
        let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
        assert_eq!(code(&twice), Err(Code::InvalidIdempotencyKey));
        assert_eq!(code(&[("idempotency-key", "\"a\"")]), Ok("a".into()));
    }

    fn limits(body_bytes: usize) -> Limits {
        Limits { body_bytes, ..Config::load(None).unwrap().limits }
    }

    #[test]
    fn a_body_is_read_within_its_limits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let json = [("content-type", "application/json; charset=utf-8")];
        let read = |headers: &[_], body, limit, budget: &BodyBudget| {
            let limits = limits(limit);
            let read = async { request(headers, body).json(&limits, budget).await };
            runtime.block_on(read).map_err(|p| p.code)
        };
        let budget = BodyBudget::new(100);
        let body = br#"{"a": [1, 2, 3], "b": null}"#;
        assert!(read(&json, body, 27, &budget).is_ok());
        assert_eq!(read(&json, body, 26, &budget), Err(Code::BodyTooLarge));
        assert_eq!(read(&json, &body[..9], 99, &budget), Err(Code::InvalidJson));
        assert_eq!(read(&json, b"", 99, &budget), Err(Code::InvalidJson));
        assert_eq!(read(&json, body, 99, &BodyBudget::new(20)), Err(Code::TooBusy));
        assert_eq!(read(&[], body, 99, &budget), Err(Code::UnsupportedMediaType));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(read(&form, body, 99, &budget), Err(Code::UnsupportedMediaType));
        let packed = [json[0], ("content-encoding", "gzip")];
        assert_eq!(read(&packed, body, 99, &budget), Err(Code::UnsupportedMediaType));
        let announced = [json[0], ("content-length", "1000")];
        assert_eq!(read(&announced, body, 99, &budget), Err(Code::BodyTooLarge));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0, "everything is given back");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        let start = futures::stream::iter([Ok::<_, warp::Error>(Bytes::from_static(b"{"))]);
        let endless = start.chain(futures::stream::pending());
        let mut request = Request::new(Method::POST, headers, String::new(), endless);
        let budget = BodyBudget::new(100);
        let limits = Limits { body_timeout_ms: 50, ..limits(99) };
        let refused = request.json(&limits, &budget).await.map_err(|p| p.code);
        assert_eq!(refused, Err(Code::RequestTimeout));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0, "it holds no room either");
    }
}
