//! Problem details (RFC 9457): every refusal looks alike, and its `type` is a page served here.

use serde::Serialize;
use warp::http::StatusCode;
use warp::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use warp::reply::Response;

/// Media type of a refusal.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($name:ident $status:literal $code:literal $retryable:literal $title:literal $when:literal)+) => {
        /// Why a request is refused; stable names for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $when] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// Its HTTP status.
            pub fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$name => $status),+ };
                StatusCode::from_u16(status).expect("listed statuses are legal")
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable),+ }
            }

            /// One line for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// When it happens and what to do.
            pub fn when(self) -> &'static str {
                match self { $(Self::$name => $when),+ }
            }
        }
    };
}

codes! {
    InvalidJson 400 "invalid_json" false "The body is not JSON"
        "The body cannot be parsed as JSON (UTF-8); `detail` says where."
    MissingIdempotencyKey 400 "missing_idempotency_key" false "An Idempotency-Key is required"
        "POST needs the header `Idempotency-Key`: choose one per order or receipt, and repeat it on every retry."
    InvalidIdempotencyKey 400 "invalid_idempotency_key" false "The Idempotency-Key is malformed"
        "A key is 1 to 255 visible ASCII characters, bare or as a quoted string (RFC 8941), sent once."
    Unauthorized 401 "unauthorized" false "No valid API key"
        "The header `Authorization: Bearer tr_…` is missing, or its key is unknown or revoked."
    InvalidSignature 401 "invalid_signature" false "No valid signature"
        "A webhook's signature is missing, made with another secret or for another body, or its time is too far off (`webhooks.tolerance_s`)."
    NotFound 404 "not_found" false "No such path"
        "The API has no such path."
    OrderNotFound 404 "order_not_found" false "No such order"
        "The merchant has no order with this id; another merchant's order is answered alike."
    StockNotFound 404 "stock_not_found" false "No stock of this SKU"
        "The merchant has never received this SKU, or its first receipt is not processed yet."
    MethodNotAllowed 405 "method_not_allowed" false "The path has no such method"
        "The header `Allow` lists the path's methods."
    OrderEnded 409 "order_ended" false "It is too late for that"
        "The order has ended, or is on its way: it can be neither cancelled nor confirmed any more; or it is not ready to be dispatched."
    RequestTimeout 408 "request_timeout" true "The body took too long"
        "The body did not arrive within 10 s (`limits.body_timeout_ms`). Nothing was accepted; send it again with the same key."
    BodyTooLarge 413 "body_too_large" false "The body is too large"
        "A body may have 256 KiB (`limits.body_bytes`)."
    UnsupportedMediaType 415 "unsupported_media_type" false "The body must be application/json"
        "Send `Content-Type: application/json`, without a content coding."
    ValidationFailed 422 "validation_failed" false "The request is not valid"
        "Unknown or missing fields, wrong types, values out of range: `errors` lists every one with its JSON pointer."
    IdempotencyKeyConflict 422 "idempotency_key_conflict" false "The key stands for another request"
        "The same Idempotency-Key was used with another body, which counts; use a new key for a new order or receipt."
    TooManyStreams 429 "too_many_streams" true "Too many event streams at once"
        "The merchant has as many event streams open as one may have (`limits.merchant_watchers`): close some, and see `Retry-After`."
    Internal 500 "internal_error" true "Something is wrong on our side"
        "A fault of this service; retry with the same key."
    Starting 503 "starting" true "Not ready yet"
        "The service has not reached Kafka and the schema registry yet. This request was not recorded, an earlier one with the same key may be; see `Retry-After`."
    TooBusy 503 "too_busy" true "Too much at once"
        "Too many requests or unacknowledged records. This request was not recorded, an earlier one with the same key may be; see `Retry-After`."
    KafkaUnavailable 503 "kafka_unavailable" true "Orders cannot be recorded at the moment"
        "Kafka is down or stalls. This request was certainly not recorded; an earlier one with the same key that was answered 504, or not at all, may still be. See `Retry-After`."
    DatabaseUnavailable 503 "database_unavailable" true "The store cannot be read at the moment"
        "PostgreSQL is down or its tables are missing; only orders accepted in the last minutes can be answered."
    OutcomeUnknown 504 "outcome_unknown" true "It may or may not be recorded"
        "Kafka did not acknowledge in time, so the request may have been recorded, or be recorded within the next seconds. Retry with the same Idempotency-Key until a 202 or 422: it counts once."
}

impl Code {
    /// Seconds after which the same request is worth another try; `None` where it is not, or where nothing speaks
    /// against one at once.
    pub fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::Starting | Self::KafkaUnavailable | Self::DatabaseUnavailable => Some(2),
            Self::TooBusy | Self::OutcomeUnknown => Some(1),
            // Nothing changes until one of them is closed.
            Self::TooManyStreams => Some(10),
            _ => None,
        }
    }
}

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the value; empty is the whole body.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub code: Code,
    /// What happened this time, for people; no secrets.
    pub detail: String,
    /// With [`Code::ValidationFailed`]: every fault.
    pub errors: Vec<Fault>,
    /// With [`Code::MethodNotAllowed`]: the methods there are.
    pub allow: &'static str,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

impl Problem {
    /// A refusal with its detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), allow: "" }
    }

    /// A refusal whose detail is what its code says.
    pub fn plain(code: Code) -> Self {
        Self::new(code, code.when())
    }

    /// All faults of a body.
    pub fn faults(errors: Vec<Fault>) -> Self {
        let detail = match errors.len() {
            1 => format!("{}: {}", errors[0].pointer, errors[0].detail),
            n => format!("{n} faults, listed in errors"),
        };
        Self { code: Code::ValidationFailed, detail, errors, allow: "" }
    }

    /// The body of the answer to the request for this path: JSON on one line.
    pub fn body(&self, path: &str) -> String {
        let code = self.code;
        let body = Body {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            detail: &self.detail,
            instance: path,
            code: code.as_str(),
            retryable: code.retryable(),
            errors: &self.errors,
        };
        serde_json::to_string(&body).expect("a problem is made of strings and numbers")
    }

    /// The answer to the request for this path.
    pub fn response(&self, path: &str) -> Response {
        let code = self.code;
        let mut response = Response::new(self.body(path).into());
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        match code {
            Code::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::MethodNotAllowed => {
                headers.insert(ALLOW, HeaderValue::from_static(self.allow));
            }
            _ => {}
        }
        if let Some(seconds) = code.retry_after_s() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The page that a refusal's `type` points to, or the list of all for an empty name.
pub fn page(name: &str) -> Option<String> {
    let describe = |code: &Code| {
        let retry = if code.retryable() { "yes" } else { "no" };
        format!(
            "# {}\n\nCode `{}`, status {}, worth a retry: {retry}\n\n{}\n",
            code.title(),
            code.as_str(),
            code.status().as_u16(),
            code.when(),
        )
    };
    let wanted = |code: &&Code| name.is_empty() || code.as_str() == name;
    let pages: Vec<String> = Code::ALL.iter().filter(wanted).map(describe).collect();
    (!pages.is_empty()).then(|| pages.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_shape_of_rfc_9457() {
        let fault = Fault { pointer: "/lines/0/quantity".into(), detail: "must be 1".into() };
        let problem = Problem::faults(vec![fault]);
        let response = problem.response("/v1/orders");
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let body = Body {
            kind: "/problems/validation_failed".into(),
            title: problem.code.title(),
            status: 422,
            detail: "/lines/0/quantity: must be 1",
            instance: "/v1/orders",
            code: "validation_failed",
            retryable: false,
            errors: &problem.errors,
        };
        assert_eq!(problem.detail, body.detail);
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"type":"/problems/validation_failed","title":"The request is not valid","status":422,"detail":"/lines/0/quantity: must be 1","instance":"/v1/orders","code":"validation_failed","retryable":false,"errors":[{"pointer":"/lines/0/quantity","detail":"must be 1"}]}"#
        );
    }

    #[test]
    fn every_retryable_refusal_of_ours_says_when_to_retry() {
        for code in Code::ALL {
            let response = Problem::plain(*code).response("/");
            let told = response.headers().contains_key(RETRY_AFTER);
            let status = response.status().as_u16();
            assert_eq!(told, [429, 503, 504].contains(&status), "{}", code.as_str());
        }
    }

    #[test]
    fn every_type_has_a_page() {
        for code in Code::ALL {
            assert!(page(code.as_str()).unwrap().contains(code.when()));
        }
        assert!(page("nonsense").is_none());
        assert!(page("").unwrap().contains("outcome_unknown"));
    }
}
