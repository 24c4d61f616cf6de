//! An HTTP request → what is asked of the engine.

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use super::form;
use super::refusal::Refusal;
use super::users::{Limits, User, authenticated};

/// Parameters of the HTTP interface that are no settings and change nothing here.
const IGNORED: [&str; 10] = [
    "query_id",
    "user",
    "password",
    "quota_key",
    "wait_end_of_query",
    "buffer_size",
    "stacktrace",
    "session_timeout",
    "session_check",
    "close_session",
];

/// A request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    /// The statement in the address; empty when there is none.
    pub(super) query: String,
    pub(super) session: Session,
    pub(super) query_id: String,
    /// The boundary of a body that is a form.
    pub(super) form: Option<String>,
}

/// What a connection is told before the statement.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) database: String,
    /// Used where the statement has no FORMAT.
    pub(super) format: String,
    /// Settings and `param_…`, in the order given.
    settings: Vec<(String, String)>,
    pub(super) limits: Option<Limits>,
    /// GET only reads, whoever asks.
    get: bool,
}

impl Asked {
    /// Checks the user and everything else that can be known from the request's head.
    pub(super) fn new(parts: &Parts, users: &[User]) -> Result<Asked, Refusal> {
        let mut pairs = form::pairs(parts.uri.query().unwrap_or(""));
        let last = |name: &str| {
            pairs.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.clone())
        };
        let user = authenticated(users, &parts.headers, last)?;
        let header = |name: &str| text(&parts.headers, name);
        let mut asked = Asked {
            query: String::new(),
            session: Session {
                database: header("x-clickhouse-database").unwrap_or_default(),
                format: header("x-clickhouse-format").unwrap_or_else(|| "TabSeparated".into()),
                settings: Vec::new(),
                limits: user.limits,
                get: parts.method == Method::GET,
            },
            query_id: last("query_id").unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            form: header(CONTENT_TYPE.as_str())
                .and_then(|value| form::boundary(&value).map(str::to_owned)),
        };
        if header(CONTENT_ENCODING.as_str()).is_some_and(|value| value != "identity") {
            return Err(Refusal::unsupported(
                "Compressed bodies are not supported here: send it without Content-Encoding",
            ));
        }
        for (name, value) in pairs.drain(..) {
            asked.take(name, value)?;
        }
        Ok(asked)
    }

    /// Takes one parameter, of the address or of a form.
    pub(super) fn take(&mut self, name: String, value: String) -> Result<(), Refusal> {
        match name.as_str() {
            "query" => self.query = value,
            "database" => self.session.database = value,
            "default_format" => self.session.format = value,
            "compress" | "decompress" if value != "0" => {
                return Err(Refusal::unsupported(
                    "Compression is not supported here: use Compression::None, or leave out \
                     compress and decompress",
                ));
            }
            "client_protocol_version" if value != "0" => {
                return Err(Refusal::unsupported("Only client_protocol_version=0 is supported"));
            }
            "compress" | "decompress" | "client_protocol_version" => {}
            "session_id" => return Err(Refusal::unsupported("Sessions are not kept here")),
            "role" => return Err(Refusal::unsupported("There are no roles here")),
            name if IGNORED.contains(&name) => {}
            _ => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                if name.is_empty() || !name.bytes().all(plain) {
                    let what = format!("Unknown setting '{name}'");
                    return Err(Refusal::new(115, "UNKNOWN_SETTING", &what));
                }
                self.session.settings.push((name, value));
            }
        }
        Ok(())
    }

    /// Takes what a form holds.
    pub(super) fn take_form(&mut self, boundary: &str, body: &Bytes) -> Result<(), Refusal> {
        let fields = form::fields(body, boundary)
            .ok_or_else(|| Refusal::bad_arguments("The body is not the form it says it is"))?;
        fields.into_iter().try_for_each(|(name, value)| self.take(name, value))
    }
}

impl Session {
    /// Whether it can change data.
    pub(super) fn writes(&self) -> bool {
        self.limits.is_none() && !self.get
    }

    /// The statements that prepare a connection: database, settings, then limits and readonly,
    /// which win over the settings.
    pub(super) fn preparation(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if !self.database.is_empty() {
            statements.push(format!("USE {}", quoted(&self.database, '`')));
        }
        let mut settings: Vec<(&str, String)> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if let Some(limits) = self.limits {
            let bounds = [
                ("max_memory_usage", limits.max_memory_bytes),
                ("max_threads", limits.max_threads),
                ("max_execution_time", limits.max_execution_s),
            ];
            for (name, limit) in bounds {
                let asked = settings.iter().rev().find(|(found, _)| *found == name);
                let asked = asked.and_then(|(_, value)| value.parse::<u64>().ok());
                let within = asked.filter(|asked| (1..=limit).contains(asked)).unwrap_or(limit);
                settings.push((name, within.to_string()));
            }
        }
        if let Some(limits) = self.limits {
            settings.push(("os_threads_nice_value_query", limits.nice.to_string()));
            settings.push(("readonly", "1".to_owned()));
        } else if self.get && !settings.iter().any(|(name, _)| *name == "readonly") {
            settings.push(("readonly", "2".to_owned()));
        }
        if !settings.is_empty() {
            let mut text = String::from("SET ");
            for (index, (name, value)) in settings.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                text.push_str(&format!("{comma}{name} = {}", quoted(value, '\'')));
            }
            statements.push(text);
        }
        statements
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// SQL's spelling of a text between quotes of this kind.
fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn asked(uri: &str, limits: Option<Limits>) -> Result<Asked, Refusal> {
        let request = Request::post(uri).header("x-clickhouse-user", "u").body(()).unwrap();
        Asked::new(&request.into_parts().0, &[User::new("u", "", limits)])
    }

    #[test]
    fn settings_are_set_after_the_database() {
        let asked = asked("/?query=SELECT+1&database=a%60b&insert_deduplication_token=x'y\\z&query_id=q&async_insert=0", None).unwrap();
        assert_eq!(asked.query, "SELECT 1");
        assert_eq!(asked.query_id, "q");
        assert_eq!(
            asked.session.preparation(),
            ["USE `a\\`b`", "SET insert_deduplication_token = 'x\\'y\\\\z', async_insert = '0'"]
        );
    }

    #[test]
    fn limits_have_the_last_word() {
        let limits =
            Limits { max_memory_bytes: 100, max_threads: 1, max_execution_s: 30, nice: 19 };
        let uri = "/?max_memory_usage=1000&max_execution_time=5&readonly=0&max_threads=0";
        let set = &asked(uri, Some(limits)).unwrap().session.preparation()[0];
        let tail = "max_memory_usage = '100', max_threads = '1', max_execution_time = '5', \
                    os_threads_nice_value_query = '19', readonly = '1'";
        assert!(set.ends_with(tail), "{set}");
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (uri, code) in [
            ("/?compress=1", 1),
            ("/?decompress=1", 1),
            ("/?session_id=x", 1),
            ("/?role=x", 1),
            ("/?a%20b=1", 115),
        ] {
            assert_eq!(asked(uri, None).unwrap_err().code, code, "{uri}");
        }
        assert!(asked("/?compress=0&decompress=0&client_protocol_version=0", None).is_ok());
    }
}
