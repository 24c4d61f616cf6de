//! The operator's port of a service: `/livez`, `/readyz`, `/metrics`. `/readyz?verbose` lists every
//! check; one that fails is always listed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use warp::Filter;
use warp::http::StatusCode;

use crate::telemetry::READY;

/// Named readiness checks; ready when every one is ok. Exported as [`READY`].
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// Readiness with these checks, all failing as "starting".
    pub fn starting(checks: &[&'static str]) -> Self {
        let readiness = Self::default();
        for check in checks {
            readiness.fail(check, "starting");
        }
        readiness
    }

    /// Marks a check as ok.
    pub fn ok(&self, check: &'static str) {
        self.set(check, Ok(()));
    }

    /// Marks a check as failing, with the reason.
    pub fn fail(&self, check: &'static str, reason: &str) {
        self.set(check, Err(reason.to_string()));
    }

    fn set(&self, check: &'static str, state: Result<(), String>) {
        READY.with_label_values(&[check]).set(state.is_ok().into());
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(check, state);
    }

    /// Whether all checks are ok, and one line for each.
    pub fn report(&self) -> (bool, String) {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ready = true;
        let mut text = String::new();
        for (check, state) in checks.iter() {
            match state {
                Ok(()) => text.push_str(&format!("[+]{check} ok\n")),
                Err(reason) => {
                    ready = false;
                    text.push_str(&format!("[-]{check} {reason}\n"));
                }
            }
        }
        (ready, text)
    }
}

/// The routes, to be served alone or beside a service's own.
pub fn routes(
    readiness: Readiness,
) -> impl Filter<Extract = (impl warp::Reply,), Error = warp::Rejection> + Clone {
    let live = warp::path!("livez").map(|| warp::reply::with_status("ok\n".into(), StatusCode::OK));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let ready = warp::path!("readyz").and(query).map(move |query: String| {
        let (ready, text) = readiness.report();
        let verbose = query.split('&').any(|part| part == "verbose");
        let (status, text) = match ready {
            true if verbose => (StatusCode::OK, text),
            true => (StatusCode::OK, "ok\n".into()),
            false => (StatusCode::SERVICE_UNAVAILABLE, text),
        };
        warp::reply::with_status(text, status)
    });
    let metrics = warp::path!("metrics").map(|| {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&prometheus::gather())
            .unwrap_or_else(|e| format!("# metrics cannot be encoded: {e}\n"));
        warp::reply::with_status(text, StatusCode::OK)
    });
    warp::get().and(live.or(ready).unify().or(metrics).unify())
}

/// Serves [`routes`] until the process ends.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(listen: SocketAddr, readiness: Readiness) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("operator port {listen} cannot be opened"))?;
    tokio::spawn(warp::serve(routes(readiness)).incoming(listener).run());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_is_short_unless_it_fails_or_is_asked_for_more() {
        let readiness = Readiness::starting(&["kafka", "tasks"]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(routes(readiness.clone())).incoming(listener).run());
        let get = async |path: &str| {
            let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        readiness.ok("tasks");
        let failing = (503, "[-]kafka starting\n[+]tasks ok\n".to_owned());
        assert_eq!(get("/readyz").await, failing);
        readiness.ok("kafka");
        assert_eq!(get("/readyz").await, (200, "ok\n".to_owned()));
        let listed = (200, "[+]kafka ok\n[+]tasks ok\n".to_owned());
        assert_eq!(get("/readyz?verbose").await, listed);
        assert_eq!(get("/readyz?a=b&verbose").await, listed);
        assert_eq!(get("/livez").await, (200, "ok\n".to_owned()));
    }
}
