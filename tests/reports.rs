//! Reports on the real stack: every figure against a computation of its own (`reports/check.py`, in
//! Python), on the real invoices and on made-up orders with every end there is; filled again from the
//! log; and the page with charts in a real browser.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local::clickhouse::{PASSWORD, READER, READER_PASSWORD, USER};
use local::{Service, Stack};
use tests::replay::{self, Orders};
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};
use tokio::process::Command;
use tokio::sync::Mutex;

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
/// How long nothing may move before the wait for the orders' end is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// One stack at a time: the machine is small.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// This package's folder: cargo runs tests there.
fn folder() -> Result<PathBuf> {
    Ok(std::path::absolute(".")?)
}

/// A program with what it needs to know of the stack in its environment.
async fn run(stack: &Stack, program: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(program)
        .args(arguments)
        .env("CLICKHOUSE_URL", stack.clickhouse_url())
        .envs([("CLICKHOUSE_USER", READER), ("CLICKHOUSE_PASSWORD", READER_PASSWORD)])
        .envs([("ADMIN_USER", USER), ("ADMIN_PASSWORD", PASSWORD)])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    output.await.with_context(|| format!("{} does not start", program.display()))
}

async fn checked(stack: &Stack, what: &str, orders: &Path) -> Result<()> {
    let script = folder()?.join("reports/check.py");
    let tillroll = local::services::binary("tillroll")?;
    let paths = [&script, orders, &tillroll].map(|path| path.to_str().expect("a plain path"));
    let arguments = [paths[0], what, "--orders", paths[1], "--tillroll", paths[2]];
    let output = run(stack, Path::new("python3"), &arguments).await?;
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "reports differ:\n{told}{errors}");
    ensure!(told.lines().filter(|line| line.starts_with("ok ")).count() >= 20, "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_invoices_are_reported_to_the_cent_and_again_after_a_backfill() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let file = folder()?.join("data/online-retail-2010-12.csv.gz");
    let orders = Orders { file: file.clone(), sample: None, paid: false };
    let survey = orders.survey()?;
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let stack = &system.stack;
    let shop = Shop::new(stack.ingest_urls(), &system.key)?;
    // Enough of everything but of what is never received, so that the file alone decides which
    // orders are served.
    let script = folder()?.join("reports/check.py");
    let arguments = [script.to_str().unwrap(), "never", "--orders", file.to_str().unwrap()];
    let never = run(stack, Path::new("python3"), &arguments).await?;
    let never = String::from_utf8(never.stdout)?;
    let never: BTreeSet<&str> = never.lines().collect();
    ensure!(never.len() > 20, "never received: {never:?}");
    let mut receipts = survey.pieces.clone();
    receipts.retain(|sku, _| !never.contains(sku.as_str()));
    replay::receive(&shop, &receipts).await?;
    let answers = tempfile::tempdir()?;
    let answers = answers.path().join("answers.jsonl");
    replay::send(&shop, &system.merchant, &orders, &answers, || {}).await?;
    let left = settle(&system, survey.orders, PATIENCE, |_| {}).await?;
    ensure!(left.is_none(), "nothing moves any more: {}", left.expect("there is"));
    checked(stack, "invoices", &file).await?;
    page(stack).await?;

    let sinks = stack.instances(Service::Sinks).pop().context("one was started")?;
    let backfill = ["reports", "backfill", "--user", USER, "--empty", "--brokers"];
    let brokers = stack.brokers();
    let backfill = [&backfill[..], &[brokers.as_str()]].concat();
    let tillroll = local::services::binary("tillroll")?;
    let refill = async || {
        let mut command = Command::new(&tillroll);
        command.args(&backfill).env("CLICKHOUSE_URL", stack.clickhouse_url());
        Ok::<_, anyhow::Error>(command.env("CLICKHOUSE_PASSWORD", PASSWORD).output().await?)
    };
    let refused = refill().await?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("stop the sink first"), "{told}");
    ensure!(sinks.stop().await?, "SIGTERM didn't end it");
    let done = refill().await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    sinks.restart().await?;
    let left = settle(&system, survey.orders, PATIENCE, |_| {}).await?;
    ensure!(left.is_none(), "not filled again: {}", left.expect("there is"));
    checked(stack, "invoices", &file).await?;
    system.stack.shutdown().await
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_orders_with_every_end_are_reported_as_they_were() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    // Its tables are what is needed of the stack; nothing is ordered.
    let system = System::start(Stack::builder(), INSTANCES).await?;
    checked(&system.stack, "generated", Path::new("none")).await?;
    system.stack.shutdown().await
}

/// Writes the page of all reports, opens it in Chromium without a network, and looks at it; the picture stays
/// in `target/reports.png`.
async fn page(stack: &Stack) -> Result<()> {
    let target = folder()?.with_file_name("target");
    std::fs::create_dir_all(&target)?;
    let file = target.join("reports.html");
    let tillroll = local::services::binary("tillroll")?;
    let arguments = ["report", "--all", "--html", file.to_str().expect("a plain path")];
    let output = run(stack, &tillroll, &arguments).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = target.join("reports.png");
    let profile = tempfile::tempdir()?;
    let flags = [
        "--headless".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--window-size=1280,9000".to_owned(),
        // Whatever it may ask for is not there.
        "--proxy-server=127.0.0.1:9".to_owned(),
        format!("--user-data-dir={}", profile.path().display()),
    ];
    let address = format!("file://{}", file.display());
    let look = async |mode: String| {
        let mut command = Command::new(chromium()?);
        command.args(&flags).arg(mode).arg(&address).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
        Ok::<_, anyhow::Error>(output.context("the browser hangs")??)
    };
    let dom = look("--dump-dom".to_owned()).await?;
    let dom = String::from_utf8_lossy(&dom.stdout);
    let drawn = dom.split("data-drawn=\"").nth(1).and_then(|rest| rest.split('"').next());
    let drawn: u32 = drawn.context("the page's script did not end")?.parse()?;
    ensure!(drawn >= 9 && dom.matches("<svg").count() >= 9, "{drawn} charts were drawn");
    ensure!(dom.contains("Revenue per hour") && dom.contains("What these figures mean"));
    look(format!("--screenshot={}", picture.display())).await?;
    let size = std::fs::metadata(&picture).context("no picture")?.len();
    ensure!(size > 100_000, "the picture is nearly empty: {size} bytes");
    Ok(())
}

fn chromium() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|n| folder.join(n))
        })
        .find(|path| path.is_file())
        .context("no browser: apt-get install chromium")
}
