//! A service's operator port, asked.

use std::time::Duration;

use futures::future::join_all;

const ANSWERS: Duration = Duration::from_secs(3);

/// Whether a service says that it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It does.
    Ready,
    /// It does not: its checks that fail.
    NotReady(String),
    /// It says nothing: why.
    Silent(String),
}

/// An instance of a service.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    /// Base URL of its operator port.
    pub(super) url: String,
    pub(super) state: State,
    /// `/metrics`, if it answers.
    pub(super) metrics: Option<String>,
}

/// Asks every instance at once.
///
/// # Errors
/// When no HTTP client can be made.
pub(super) async fn probe(urls: &[String]) -> reqwest::Result<Vec<Probe>> {
    let http = reqwest::Client::builder().timeout(ANSWERS).build()?;
    Ok(join_all(urls.iter().map(|url| one(&http, url))).await)
}

async fn one(http: &reqwest::Client, url: &str) -> Probe {
    let url = url.trim_end_matches('/').to_owned();
    let state = match text(http, &format!("{url}/readyz?verbose")).await {
        Err(error) => State::Silent(error),
        Ok((true, _)) => State::Ready,
        Ok((false, checks)) => {
            let failing = checks.lines().filter(|line| line.starts_with("[-]"));
            let failing: Vec<&str> = failing.map(|line| &line[3..]).collect();
            State::NotReady(failing.join("; "))
        }
    };
    let metrics = text(http, &format!("{url}/metrics")).await;
    let metrics = metrics.ok().filter(|(well, _)| *well).map(|(_, text)| text);
    Probe { url, state, metrics }
}

/// Whether the answer is a good one, and the answer.
async fn text(http: &reqwest::Client, url: &str) -> Result<(bool, String), String> {
    let asked = async {
        let answer = http.get(url).send().await?;
        let well = answer.status().is_success();
        Ok::<_, reqwest::Error>((well, answer.text().await?))
    };
    asked.await.map_err(|error: reqwest::Error| {
        // The error's own text repeats the address.
        if error.is_timeout() {
            format!("nothing in {} s", ANSWERS.as_secs())
        } else if error.is_connect() {
            "no connection".to_owned()
        } else {
            error.without_url().to_string()
        }
    })
}
