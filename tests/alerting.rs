//! Real Prometheus and Alertmanager with the repository's rules and routing on the real stack: the processors are
//! killed, their alert arrives at a webhook, alone, and is resolved after they were started again. And what
//! Alertmanager mutes, and does not.
//!
//! Scrapes, evaluations and Alertmanager's waits are shortened; the rules are as they are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use local::process::{Process, Spec};
use local::serve::serve;
use local::{Service, Stack};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::alerts::{repository, say, tool};
use tests::stack::{Instances, System};
use tokio::net::TcpListener;

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
/// The rule's minute, and sixty seconds to notice and tell.
const TOLD_WITHIN: Duration = Duration::from_secs(120);
const RESOLVED_WITHIN: Duration = Duration::from_secs(60);
/// How long nothing may be told of a system that is well: longer than most rules wait.
const QUIET: Duration = Duration::from_secs(75);

/// Where Debian's Alertmanager looks for them, wherever it is itself.
const TEMPLATES: &str = "/usr/share/prometheus/alertmanager/email.tmpl";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_is_told_alone_and_resolved() -> Result<()> {
    let (Some(prometheus), Some(alertmanager)) = (tool("prometheus"), alertmanager()) else {
        return Ok(());
    };
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::listen().await?;
    let alerting = Alerting::start(folder.path(), &system, &receiver, prometheus, alertmanager)?;

    tokio::time::sleep(QUIET).await;
    receiver.wait(Duration::from_secs(30), "/watchdog", "Watchdog", "firing").await?;
    let told = receiver.told(&["/pages", "/tickets"]);
    ensure!(told.is_empty(), "nothing is wrong, and told is {told:?}");
    // What waits for its time counts, too.
    let alerts = alerting.alerts().await?;
    ensure!(alerts == ["Watchdog"], "nothing is wrong, and Prometheus has {alerts:?}");

    system.stack.kill("processors-1").await?;
    receiver.wait(TOLD_WITHIN, "/pages", "ServiceDown", "firing").await?;
    system.stack.restart("processors-1").await?;
    receiver.wait(RESOLVED_WITHIN, "/pages", "ServiceDown", "resolved").await?;
    let told = receiver.told(&["/pages", "/tickets"]);
    let others = told.iter().find(|alert| {
        alert.labels["alertname"] != "ServiceDown" || alert.labels["job"] != "processors"
    });
    ensure!(others.is_none(), "told as well: {others:?}");
    let runbook = &told.first().context("it was told")?.annotations["runbook_url"];
    ensure!(repository().join(runbook).is_file(), "no runbook {runbook}");
    drop(alerting);
    system.stack.shutdown().await
}

/// One process that does not reach Kafka mutes nothing; when none does, it is told once.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_from_kafka_is_muted_only_when_nobody_reaches_it() -> Result<()> {
    let Some(alertmanager) = alertmanager() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::listen().await?;
    let port = local::ports::reserve()?;
    let address = format!("127.0.0.1:{}", port.number());
    let _process = manager(folder.path(), alertmanager, &address, &receiver)?;
    let url = format!("http://{address}/api/v2/alerts");

    let one = json!({ "alertname": "IngestNotReady", "job": "ingest", "instance": "i1:8080", "check": "kafka" });
    let behind = json!({ "alertname": "ProcessorsBehind", "job": "processors" });
    // Mutes the other one: once it does, all of them were looked at.
    let stale = json!({ "alertname": "StatusStale", "job": "sinks" });
    let held_up = json!({ "alertname": "SinkNotReady", "job": "sinks", "sink": "tracking" });
    tell(&url, &[one, behind, stale, held_up]).await?;
    until_muted(&url, &["StatusStale"]).await?;

    let all =
        json!({ "alertname": "IngestNotReady", "job": "ingest", "check": "kafka", "scope": "all" });
    tell(&url, &[all]).await?;
    until_muted(&url, &["IngestNotReady", "ProcessorsBehind", "SinkNotReady", "StatusStale"]).await
}

/// Alertmanager, if it is there and can start.
fn alertmanager() -> Option<PathBuf> {
    let Some(program) = tool("prometheus-alertmanager") else {
        say("Alertmanager is not there, alerting was not tried: run .ci/prometheus");
        return None;
    };
    if program.ends_with("prometheus-alertmanager") && !Path::new(TEMPLATES).is_file() {
        say("Alertmanager does not start without its templates: run .ci/prometheus as root");
        return None;
    }
    Some(program)
}

/// Alertmanager with the repository's routing, on this address.
fn manager(folder: &Path, program: PathBuf, address: &str, receiver: &Receiver) -> Result<Process> {
    let routing = Files::routing(receiver)?.write(folder)?;
    let arguments = [
        format!("--config.file={}", routing.display()),
        format!("--storage.path={}", folder.join("alertmanager").display()),
        format!("--web.listen-address={address}"),
        "--cluster.listen-address=".to_owned(),
    ];
    start("alertmanager", program, folder, &arguments)
}

fn start(name: &str, program: PathBuf, folder: &Path, arguments: &[String]) -> Result<Process> {
    let mut spec = Spec::new(name, program, folder, folder.join(format!("{name}.log")));
    spec.args = arguments.iter().map(Into::into).collect();
    Process::start(spec)
}

/// Tells Alertmanager of alerts with these labels, as soon as it answers.
async fn tell(url: &str, labels: &[Value]) -> Result<()> {
    let alerts: Vec<Value> = labels.iter().map(|labels| json!({ "labels": labels })).collect();
    let body = serde_json::to_vec(&alerts)?;
    let began = Instant::now();
    loop {
        let request = reqwest::Client::new().post(url).header("content-type", "application/json");
        match request.body(body.clone()).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            other => ensure!(began.elapsed() < Duration::from_secs(30), "not taken: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the alerts of these names are muted, and no others.
async fn until_muted(url: &str, expected: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer = reqwest::get(url).await?.bytes().await?;
        let known: Vec<Known> = serde_json::from_slice(&answer)?;
        let muted = known.into_iter().filter(|alert| !alert.status.muted_by.is_empty());
        let mut muted: Vec<String> = muted.map(|alert| alert.labels["alertname"].clone()).collect();
        muted.sort();
        if muted == expected {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "muted are {muted:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An alert as Alertmanager lists it.
#[derive(Deserialize)]
struct Known {
    labels: BTreeMap<String, String>,
    status: Muting,
}

#[derive(Deserialize)]
struct Muting {
    #[serde(rename = "inhibitedBy")]
    muted_by: Vec<String>,
}

/// The two processes; dropping them ends them.
struct Alerting {
    url: String,
    _prometheus: Process,
    _alertmanager: Process,
}

impl Alerting {
    fn start(
        folder: &Path,
        system: &System,
        receiver: &Receiver,
        prometheus: PathBuf,
        alertmanager: PathBuf,
    ) -> Result<Self> {
        let (web, alerts) = (local::ports::reserve()?, local::ports::reserve()?);
        let alerts = format!("127.0.0.1:{}", alerts.number());
        let scraping = Files::scraping(system, &alerts)?.write(folder)?;
        let server = [
            format!("--config.file={}", scraping.display()),
            format!("--storage.tsdb.path={}", folder.join("prometheus").display()),
            format!("--web.listen-address=127.0.0.1:{}", web.number()),
        ];
        Ok(Self {
            url: format!("http://127.0.0.1:{}", web.number()),
            _alertmanager: manager(folder, alertmanager, &alerts, receiver)?,
            _prometheus: start("prometheus", prometheus, folder, &server)?,
        })
    }

    /// The names of the alerts that fire or wait to.
    async fn alerts(&self) -> Result<Vec<String>> {
        let answer = reqwest::get(format!("{}/api/v1/alerts", self.url)).await?.bytes().await?;
        let known: Alerts = serde_json::from_slice(&answer)?;
        let names = known.data.alerts.into_iter().map(|alert| alert.labels["alertname"].clone());
        Ok(names.collect())
    }
}

#[derive(Deserialize)]
struct Alerts {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    alerts: Vec<Pending>,
}

#[derive(Deserialize)]
struct Pending {
    labels: BTreeMap<String, String>,
}

/// A configuration of the repository, changed for this run.
struct Files {
    name: &'static str,
    text: String,
}

impl Files {
    fn read(name: &'static str, changes: &[(&str, String)]) -> Result<Self> {
        let mut text = fs::read_to_string(repository().join("compose/prometheus").join(name))?;
        for (from, to) in changes {
            ensure!(text.contains(from), "{name} has no {from:?} to change");
            text = text.replace(from, to);
        }
        Ok(Self { name, text })
    }

    fn scraping(system: &System, alertmanager: &str) -> Result<Self> {
        let target = |service: Service| -> Result<String> {
            let instances = system.stack.instances(service);
            let url = instances.first().context("an instance")?.url();
            Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
        };
        let rules = repository().join("compose/prometheus/rules/*.yml").display().to_string();
        Self::read(
            "prometheus.yml",
            &[
                ("15s", "1s".to_owned()),
                ("rules/*.yml", rules),
                ("alertmanager:9093", alertmanager.to_owned()),
                ("ingest:8080", target(Service::Ingest)?),
                ("processors:8082", target(Service::Processors)?),
                ("sinks:8083", target(Service::Sinks)?),
            ],
        )
    }

    fn routing(receiver: &Receiver) -> Result<Self> {
        let to = |path: &str| format!("http://127.0.0.1:{}/{path}", receiver.port);
        Self::read(
            "alertmanager.yml",
            &[
                ("http://pages.invalid/", to("pages")),
                ("http://tickets.invalid/", to("tickets")),
                ("http://watchdog.invalid/", to("watchdog")),
                ("group_wait: 30s", "group_wait: 1s".to_owned()),
                ("group_wait: 10s", "group_wait: 1s".to_owned()),
                ("group_interval: 5m", "group_interval: 1s".to_owned()),
                ("group_interval: 1m", "group_interval: 1s".to_owned()),
            ],
        )
    }

    fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(self.name);
        fs::write(&path, &self.text)?;
        Ok(path)
    }
}

/// An alert as Alertmanager tells of it.
#[derive(Debug, Clone, Deserialize)]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Notification {
    alerts: Vec<Alert>,
}

/// A webhook that keeps what it is told, by path.
struct Receiver {
    port: u16,
    told: Arc<Mutex<Vec<(String, Alert)>>>,
}

impl Receiver {
    async fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let told = Arc::<Mutex<Vec<_>>>::default();
        let keep = told.clone();
        tokio::spawn(async move {
            serve(&listener, move |request| take(request, keep.clone())).await;
        });
        Ok(Self { port, told })
    }

    /// What these paths were told.
    fn told(&self, paths: &[&str]) -> Vec<Alert> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let there = told.iter().filter(|(path, _)| paths.contains(&path.as_str()));
        there.map(|(_, alert)| alert.clone()).collect()
    }

    /// Waits until a path was told of an alert in this state.
    async fn wait(&self, within: Duration, path: &str, name: &str, status: &str) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < within {
            let told = self.told(&[path]);
            if told.iter().any(|a| a.labels["alertname"] == name && a.status == status) {
                let took_s = began.elapsed().as_secs_f64();
                say(&format!("{name} {status} after {took_s:.1} s"));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        bail!("{name} was not told as {status} within {within:?}; told were {told:#?}")
    }
}

async fn take(
    request: Request<Incoming>,
    keep: Arc<Mutex<Vec<(String, Alert)>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut answer = Response::new(Empty::new());
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let told = body.ok().and_then(|b| serde_json::from_slice::<Notification>(&b).ok());
    match told {
        Some(told) => {
            let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
            keep.extend(told.alerts.into_iter().map(|alert| (path.clone(), alert)));
        }
        None => *answer.status_mut() = hyper::StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}
