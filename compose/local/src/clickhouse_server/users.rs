//! Who asks, and what they may do.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::refusal::Refusal;

/// What a query of a readonly user may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub max_memory_bytes: u64,
    /// Threads.
    pub max_threads: u64,
    /// Seconds.
    pub max_execution_s: u64,
    /// Nice value of its threads, 0 to 19: how far they give way to everybody else's. Takes
    /// CAP_SYS_NICE; without it the engine leaves them alone.
    pub nice: u8,
}

/// One user; with limits it can only read.
#[derive(Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    password: String,
    /// Set for a user that can only read.
    pub limits: Option<Limits>,
}

impl User {
    /// A user that reads and writes, or with limits only reads.
    pub fn new(name: &str, password: &str, limits: Option<Limits>) -> Self {
        User { name: name.to_owned(), password: password.to_owned(), limits }
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = &self.limits;
        f.debug_struct("User").field("name", &self.name).field("limits", limits).finish()
    }
}

/// The user that a request names, by `X-ClickHouse-User` and `-Key`, basic authentication, or
/// `user` and `password` in its address.
pub(super) fn authenticated<'a>(
    users: &'a [User],
    headers: &HeaderMap,
    parameter: impl Fn(&str) -> Option<String>,
) -> Result<&'a User, Refusal> {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (name, password) = if let Some(name) = header("x-clickhouse-user") {
        (name, header("x-clickhouse-key").unwrap_or_default())
    } else if let Some(value) = header(AUTHORIZATION.as_str()) {
        basic(&value).ok_or_else(|| Refusal::authentication(""))?
    } else {
        let name = parameter("user").unwrap_or_else(|| "default".to_owned());
        (name, parameter("password").unwrap_or_default())
    };
    users
        .iter()
        .find(|user| user.name == name && same(user.password.as_bytes(), password.as_bytes()))
        .ok_or_else(|| Refusal::authentication(&name))
}

/// Compares in a time that does not tell how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

fn basic(value: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    let encoded = value.strip_prefix("Basic ")?.trim();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(headers: &[(&'static str, &str)]) -> Result<String, Refusal> {
        let users = [User::new("tillroll", "p:w", None)];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        authenticated(&users, &map, |_| None).map(|user| user.name.clone())
    }

    #[test]
    fn headers_and_basic_authentication_are_accepted() {
        let key = ("x-clickhouse-key", "p:w");
        assert!(ask(&[("x-clickhouse-user", "tillroll"), key]).is_ok());
        assert!(ask(&[("authorization", "Basic dGlsbHJvbGw6cDp3")]).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(ask(&[]).is_err());
        assert!(ask(&[("x-clickhouse-user", "tillroll")]).is_err());
        assert!(ask(&[("x-clickhouse-user", "tillroll"), ("x-clickhouse-key", "p:")]).is_err());
        assert!(ask(&[("authorization", "Bearer x")]).is_err());
        assert!(ask(&[("authorization", "Basic !")]).is_err());
    }
}
