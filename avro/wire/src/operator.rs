//! The operator's port of a service: `/livez`, `/readyz` (with `?verbose`), `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use warp::Filter;
use warp::http::StatusCode;

/// Named readiness checks; ready when every one is ok.
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
    let ready = warp::path!("readyz").map(move || {
        let (ready, text) = readiness.report();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
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
