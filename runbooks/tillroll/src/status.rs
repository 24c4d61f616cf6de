//! `tillroll status`: one screen, worst first: what is broken, what lags, and what to type next.

mod finding;
mod metrics;
mod probe;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use events::Millis;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::connection::Connection;
use crate::dlq;
use crate::lag::{self, Groups};
use crate::log::Log;
use crate::report::query::Database;
use crate::{moment, output};
use finding::{Finding, Severity};
use probe::Probe;

/// Longest wait for Kafka, ClickHouse or the registry to say that they are there.
const ANSWERS: Duration = Duration::from_secs(5);

/// Flags of `tillroll status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll status
  tillroll status --processors http://p1:8082 --processors http://p2:8082 --sinks http://s1:8083
  tillroll status --json | jq '.findings[] | select(.severity != \"well\")'

Addresses are those of the operator ports. Without a flag they come from TILLROLL_INGEST_URLS,
TILLROLL_PROCESSORS_URLS and TILLROLL_SINKS_URLS, comma separated; PostgreSQL's from POSTGRES_URL.

Exit codes: 0 all is well, 1 degraded: something waits or is slower, 2 broken: see the first line")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    groups: Groups,
    #[command(flatten)]
    database: Database,
    /// An instance of ingest; may be repeated [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    ingest: Vec<String>,
    /// An instance of the processors; may be repeated [default: http://127.0.0.1:8082]
    #[arg(long, value_name = "URL")]
    processors: Vec<String>,
    /// An instance of the sinks; may be repeated [default: http://127.0.0.1:8083]
    #[arg(long, value_name = "URL")]
    sinks: Vec<String>,
    /// A reader this far behind is degraded, ten times as far it is broken
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    max_seconds: u64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When it is not said where Kafka is. Whatever does not answer is a finding.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let brokers = arguments.connection.brokers()?;
    let ingest = urls(&arguments.ingest, "TILLROLL_INGEST_URLS", 8080);
    let processors = urls(&arguments.processors, "TILLROLL_PROCESSORS_URLS", 8082);
    let sinks = urls(&arguments.sinks, "TILLROLL_SINKS_URLS", 8083);
    let (ingest, processors, sinks, log, stores) = tokio::join!(
        probe::probe(&ingest),
        probe::probe(&processors),
        probe::probe(&sinks),
        log(brokers, &arguments.groups, arguments.max_seconds),
        stores(&arguments.database, &arguments.connection),
    );
    let processors = processors?;
    let mut findings = log;
    findings.extend(stores);
    findings.extend(finding::service("ingest", &ingest?));
    findings.extend(finding::service("processors", &processors));
    findings.extend(finding::service("sinks", &sinks?));
    let texts: Vec<&str> = processors.iter().filter_map(|p: &Probe| p.metrics.as_deref()).collect();
    findings.extend(finding::metrics(&texts));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let worst = findings.first().map_or(Severity::Well, |finding| finding.severity);
    if arguments.json {
        let at = moment::text(moment::now());
        let document = serde_json::json!({ "at": at, "worst": worst, "findings": findings });
        output::data(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for line in finding::lines(&findings) {
            output::data(&line)?;
        }
    }
    Ok(ExitCode::from(match worst {
        Severity::Well => 0,
        Severity::Degraded => 1,
        Severity::Broken => 2,
    }))
}

fn urls(given: &[String], variable: &str, port: u16) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let set = std::env::var(variable).ok().filter(|value| !value.trim().is_empty());
    let set = set.unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
    set.split(',').map(|url| url.trim().to_owned()).collect()
}

/// Kafka, and what stands in it: lag and dead letters.
async fn log(brokers: String, groups: &Groups, most_seconds: u64) -> Vec<Finding> {
    let asked = brokers.clone();
    let there = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            wire::client::assigned_consumer(&asked, "tillroll").create()?;
        let metadata = consumer.fetch_metadata(None, ANSWERS)?;
        anyhow::Ok(metadata.brokers().len())
    });
    let there = flat(there.await);
    let brokers_there = match there {
        Ok(count) => format!("{count} brokers"),
        Err(_) => {
            let seen = format!("{brokers} does not answer");
            let next = "start the brokers, or give --brokers: ingest answers 503 until then";
            return vec![Finding::new(Severity::Broken, "kafka", seen, next)];
        }
    };
    let mut findings = vec![Finding::new(Severity::Well, "kafka", brokers_there, "")];
    let failed = |what: &str, error: &anyhow::Error| {
        let seen = format!("{what} cannot be told: {error:#}");
        Finding::new(Severity::Broken, "kafka", seen, "tillroll lag, tillroll dlq list")
    };
    let letters = tokio::task::spawn_blocking({
        let brokers = brokers.clone();
        move || waiting(&brokers)
    });
    let (lag, letters) = tokio::join!(lag::measured(brokers, groups), letters);
    match lag {
        Ok(lag) => findings.extend(finding::readers(&lag, most_seconds)),
        Err(error) => findings.push(failed("lag", &error)),
    }
    match flat(letters) {
        Ok(letters) => findings.extend(finding::letters(&letters, moment::now())),
        Err(error) => findings.push(failed("dead letters", &error)),
    }
    findings
}

/// Letters that wait, by topic.
fn waiting(brokers: &str) -> Result<BTreeMap<String, (u64, Millis)>> {
    let mut waiting: BTreeMap<String, (u64, Millis)> = BTreeMap::new();
    for (topic, at) in dlq::waiting(&Log::connect(brokers)?)? {
        let (count, newest) = waiting.entry(topic).or_insert((0, at));
        *count += 1;
        *newest = at.max(*newest);
    }
    Ok(waiting)
}

/// What orders can do without for a while.
async fn stores(database: &Database, connection: &Connection) -> Vec<Finding> {
    let clickhouse = tokio::time::timeout(ANSWERS, database.send(&[], "SELECT 1".to_owned()));
    let registry = async {
        let url = connection.registry()?.url;
        let http = reqwest::Client::builder().timeout(ANSWERS).build()?;
        let answer = http.get(format!("{url}/subjects")).send().await;
        answer.and_then(reqwest::Response::error_for_status).with_context(|| format!("{url} fails"))
    };
    let (clickhouse, registry) = tokio::join!(clickhouse, registry);
    let clickhouse = match clickhouse {
        Ok(answer) => answer.map(drop).map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer in {} s", ANSWERS.as_secs())),
    };
    let registry = registry.map(drop).map_err(|error| format!("{error:#}"));
    let judge = |about: &str, answer: Result<(), String>, next: &str| match answer {
        Ok(()) => Finding::new(Severity::Well, about, "answers".to_owned(), ""),
        Err(why) => Finding::new(Severity::Degraded, about, why, next),
    };
    vec![
        judge("clickhouse", clickhouse, "start it: reports stand still, orders go on"),
        judge("registry", registry, "start it: services go on, but none can start"),
    ]
}

fn flat<T>(joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.map_err(anyhow::Error::from).and_then(|inner| inner)
}
