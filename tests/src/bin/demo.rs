//! `tillroll-demo`: starts everything, replays real invoices, reconciles file, Kafka, databases and payment providers.
//!
//! The table goes to stdout and to `target/demo.json`, everything else to stderr.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use local::Stack;
use serde_json::json;
use tests::couriers;
use tests::progress::{Progress, say};
use tests::reconcile::{self, Table};
use tests::replay::{self, Orders};
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  tillroll-demo                         replay December 2010 and reconcile
  ORDERS=2011.csv.gz tillroll-demo      another file with the same columns
  SAMPLE=300 ONCE=1 tillroll-demo       the first 300 invoices, then stop everything
  tillroll-demo --up                    start the same, empty, and stay

On a terminal it stays up after the table, unless ONCE=1.

Exit codes:
  0  every row of the table agrees
  1  a row differs, an order is at two couriers, or something did not start or settle; the logs are in target/demo-logs
  2  wrong usage";

/// How long nothing may move before the wait for the orders' end is given up.
const PATIENCE: Duration = Duration::from_secs(45);

const INSTANCES: Instances = Instances { ingest: 2, processors: 1, sinks: 1 };

/// Real orders from HTTP to both databases, reconciled.
#[derive(Parser)]
#[command(name = "tillroll-demo", version, after_help = EXAMPLES)]
struct Arguments {
    /// Start everything and stay, without orders
    #[arg(long)]
    up: bool,
    /// The invoices, .csv or .csv.gz [env: ORDERS]
    #[arg(long)]
    orders: Option<PathBuf>,
    /// Only the first invoices [env: SAMPLE]
    #[arg(long)]
    sample: Option<usize>,
    /// Stop everything at the end, also on a terminal [env: ONCE=1]
    #[arg(long)]
    once: bool,
}

impl Arguments {
    /// `make` hands over empty variables: they count as absent.
    fn with_environment(mut self) -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.orders = self.orders.or_else(|| set("ORDERS").map(PathBuf::from));
        if let (None, Some(text)) = (self.sample, set("SAMPLE")) {
            self.sample = Some(text.parse().context("SAMPLE must be a number of invoices")?);
        }
        self.once |= set("ONCE").is_some_and(|value| value != "0");
        Ok(self)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match interruptible().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&format!("tillroll-demo: {failure:#}"));
            ExitCode::FAILURE
        }
    }
}

/// An interrupt drops the stack, which ends every process of it.
async fn interruptible() -> Result<bool> {
    let arguments = Arguments::parse().with_environment()?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = run(&arguments) => done,
        _ = interrupted.recv() => bail!("interrupted; everything was stopped"),
        _ = terminated.recv() => bail!("terminated; everything was stopped"),
    }
}

async fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.up {
        let system = start().await?;
        say(&hints(&system));
        stay().await?;
        system.stack.shutdown().await?;
        return Ok(true);
    }
    let shipped = || PathBuf::from("tests/data/online-retail-2010-12.csv.gz");
    let file = arguments.orders.clone().unwrap_or_else(shipped);
    let orders = Orders { file, sample: arguments.sample, paid: true };
    let output = output_folder()?;
    let started = Instant::now();
    let demo = Demo::start(orders, &output).await?;
    let agrees = demo.reconciled(started).await;
    if !matches!(agrees, Ok(true)) {
        let logs = output.join("demo-logs");
        demo.system.save_logs(&logs)?;
        say(&format!("logs: {}", logs.display()));
    }
    if agrees.is_ok() && std::io::stdout().is_terminal() && !arguments.once {
        say(&hints(&demo.system));
        stay().await?;
    }
    demo.system.stack.shutdown().await?;
    agrees
}

async fn start() -> Result<System> {
    let started = Instant::now();
    say(
        "starting Kafka, schema registry, PostgreSQL, ClickHouse, couriers, payment providers and our services",
    );
    let system = System::start(Stack::builder(), INSTANCES).await?;
    say(&format!("started in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(system)
}

/// `target` of the repository, in whose folder `make` runs this.
fn output_folder() -> Result<PathBuf> {
    let folder = PathBuf::from("target");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

struct Demo {
    orders: Orders,
    survey: replay::Survey,
    answers: PathBuf,
    json: PathBuf,
    shop: Shop,
    system: System,
}

impl Demo {
    async fn start(orders: Orders, output: &Path) -> Result<Self> {
        let reading = orders.clone();
        let survey = tokio::task::spawn_blocking(move || reading.survey()).await??;
        say(&format!(
            "{}: {} invoices, of which {} are orders of {} lines",
            orders.file.display(),
            survey.invoices,
            survey.orders,
            survey.lines
        ));
        let system = start().await?;
        let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
        let answers = output.join("demo-refused.jsonl");
        Ok(Self { orders, survey, answers, json: output.join("demo.json"), shop, system })
    }

    async fn reconciled(&self, started: Instant) -> Result<bool> {
        let receipts = self.survey.receipts();
        let never = receipts.values().filter(|pieces| **pieces == 0).count();
        say(&format!("receiving stock of {} SKUs, none of {never} more", receipts.len() - never));
        replay::receive(&self.shop, &receipts).await?;
        let sending = Instant::now();
        let progress = Progress::new("invoices sent", self.survey.invoices);
        let (shop, merchant) = (&self.shop, &self.system.merchant);
        replay::send(shop, merchant, &self.orders, &self.answers, || progress.step()).await?;
        progress.finish();
        let sent = sending.elapsed();
        let mut left = self.settled().await?;
        if left.is_none() {
            let cancelled = replay::cancel(shop, merchant, &self.orders).await?;
            say(&format!("{cancelled} paid orders cancelled: their money goes back"));
            left = self.settled().await?;
        }
        let settled = sending.elapsed();
        let table = self.table().await?;
        let booked_twice = couriers::booked_twice(&self.system.stack, PATIENCE).await?;
        self.publish(
            &table,
            booked_twice,
            &[("sending", sent), ("settled", settled), ("all", started.elapsed())],
        )?;
        if let Some(left) = &left {
            say(&format!("FAILED: nothing moved for {PATIENCE:?}: {left}"));
        }
        if booked_twice > 0 {
            say(&format!("FAILED: {booked_twice} orders have two live consignments at couriers"));
        }
        Ok(left.is_none() && table.agrees() && booked_twice == 0)
    }

    async fn settled(&self) -> Result<Option<tests::settle::Left>> {
        let progress = Progress::new("orders settled", self.survey.orders);
        let left = settle(&self.system, self.survey.orders, PATIENCE, |left| {
            let both = left.final_in_postgres.min(left.final_in_clickhouse);
            progress.set(u64::try_from(both).unwrap_or_default());
        })
        .await?;
        progress.finish();
        Ok(left)
    }

    async fn table(&self) -> Result<Table> {
        let receipts = self.survey.receipts();
        reconcile::everything(&self.system, &self.shop, &self.orders, receipts, &self.answers).await
    }

    fn publish(&self, table: &Table, booked_twice: u64, times: &[(&str, Duration)]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", table.text())?;
        let mut document = table.json();
        let seconds: serde_json::Map<String, serde_json::Value> = times
            .iter()
            .map(|(name, time)| ((*name).to_owned(), json!(time.as_secs_f64())))
            .collect();
        document["seconds"] = json!(seconds);
        document["orders_at_two_couriers"] = json!(booked_twice);
        document["invoices"] = json!(self.survey.invoices);
        std::fs::write(&self.json, serde_json::to_vec_pretty(&document)?)
            .with_context(|| format!("cannot write {}", self.json.display()))?;
        let verdict = if table.agrees() { "every row agrees" } else { "ROWS DIFFER" };
        let [sent, settled, all] = [0, 1, 2].map(|n| times[n].1.as_secs_f64());
        say(&format!(
            "{verdict}; sent in {sent:.1} s, settled after {settled:.1} s, {all:.1} s in all; {}",
            self.json.display()
        ));
        Ok(())
    }
}

/// Until an interrupt ends us.
async fn stay() -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    say("stopping");
    Ok(())
}

/// Where everything is, and what to try.
fn hints(system: &System) -> String {
    let stack = &system.stack;
    let mut text = String::from("\n");
    for component in stack.components() {
        text += &format!("{:<18} {}\n", component.name(), component.url());
    }
    let (ingest, clickhouse) = (&stack.ingest_urls()[0], stack.clickhouse_url());
    let (key, postgres) = (&system.key, stack.postgres_url());
    let payments = stack.payment_simulator_url();
    let (reader, password) = (local::clickhouse::READER, local::clickhouse::READER_PASSWORD);
    text += &format!(
        r#"
Try, in another shell:

  # ten pieces arrive
  curl -i {ingest}/v1/stock/receipts -H 'Authorization: Bearer {key}' -H 'Idempotency-Key: mine-0' \
    -H 'Content-Type: application/json' -d '{{"lines": [{{"sku": "85123A", "quantity": 10}}]}}'

  # an order of your own; the same key again is the same order
  curl -i {ingest}/v1/orders -H 'Authorization: Bearer {key}' -H 'Idempotency-Key: mine-1' \
    -H 'Content-Type: application/json' -d '{{"customer_id": null, "currency": "GBP",
    "destination": {{"name": "Ada", "street": "Main St 1", "city": "York", "postcode": "", "country": "GB"}},
    "lines": [{{"sku": "85123A", "quantity": 1, "unit_price_minor": 255}}], "ordered_at": "2010-12-24T12:00:00Z"}}'

  # the same, paid by gift card and card; pm_card_chargeDeclined and gift_empty are refused
  curl -i {ingest}/v1/orders -H 'Authorization: Bearer {key}' -H 'Idempotency-Key: mine-2' \
    -H 'Content-Type: application/json' -d '{{"customer_id": null, "currency": "GBP",
    "destination": {{"name": "Ada", "street": "Main St 1", "city": "York", "postcode": "", "country": "GB"}},
    "lines": [{{"sku": "85123A", "quantity": 1, "unit_price_minor": 255}}], "ordered_at": "2010-12-24T12:00:00Z",
    "payment_methods": [{{"provider": "gift", "token": "gift_1", "amount_minor": 100}},
                        {{"provider": "stripe", "token": "pm_card_visa", "amount_minor": 155}}]}}'

  # what became of it (the order's id is in the answer above), and the providers' own record
  curl -s {ingest}/v1/orders/<order_id> -H 'Authorization: Bearer {key}'
  curl -s {payments}/ledger/payments

  # stock of a SKU
  curl -s {ingest}/v1/stock/85123A -H 'Authorization: Bearer {key}'

  # the analysts' view: orders and money by status
  curl -s '{clickhouse}/?database=tillroll&user={reader}&password={password}' --data-binary \
    'SELECT status, currency, count() AS orders, sum(total) AS money FROM v_orders GROUP BY status, currency FORMAT PrettyCompact'

  # the tracking tables (psql is in Debian's postgresql-client)
  psql '{postgres}' -c 'SELECT status, reason, count(*) FROM orders GROUP BY 1, 2 ORDER BY 3 DESC'

Ctrl-C stops everything."#
    );
    text
}
