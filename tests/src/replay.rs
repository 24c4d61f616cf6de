//! Sends a file's invoices to ingest: every tenth order clicked five times at once, over all processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use events::{Merchant, OrderId};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::invoices::{Invoice, Invoices};
use crate::payments;
use crate::shop::{Answer, Shop};

/// Requests that are under way at once, extra clicks aside.
const CLIENTS: usize = 32;
/// Every tenth order …
const CLICKED_OFTEN: u64 = 10;
/// … is clicked five times.
const CLICKS: usize = 5;
/// Of what a SKU's orders ask for, this many percent arrive, rounded up …
const RECEIVED_PERCENT: i64 = 90;
/// … and nothing of every hundredth SKU.
const NEVER_RECEIVED: usize = 100;
/// Lines that a receipt may have.
const RECEIPT_LINES: usize = 1000;

/// A file of invoices, or the start of one.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The `.csv` or `.csv.gz` file.
    pub file: PathBuf,
    /// Only this many invoices, good and bad.
    pub sample: Option<usize>,
    /// Whether some of them are paid through Tillroll, as [`payments`] says.
    pub paid: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Invoices, good and bad.
    pub invoices: u64,
    /// Those that are orders.
    pub orders: u64,
    /// Lines of these.
    pub lines: u64,
    /// Pieces of these, by SKU.
    pub pieces: BTreeMap<String, i64>,
}

impl Orders {
    /// The invoices, one by one.
    ///
    /// # Errors
    /// When the file cannot be opened or lacks a column.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<Invoice>> + Send + use<>> {
        Ok(Invoices::open(&self.file)?.take(self.sample.unwrap_or(usize::MAX)))
    }

    /// Reads the file through.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for invoice in self.read()? {
            let invoice = invoice?;
            survey.invoices += 1;
            if !invoice.faults().is_empty() {
                continue;
            }
            survey.orders += 1;
            survey.lines += invoice.lines.len() as u64;
            for line in &invoice.lines {
                *survey.pieces.entry(line.sku.clone()).or_default() += line.pieces();
            }
        }
        Ok(survey)
    }

    /// What the `n`th order (from 0) of the file, this invoice, is paid with; `None`: not through Tillroll.
    pub fn payment_methods(&self, n: u64, invoice: &Invoice) -> Option<Value> {
        if self.paid { payments::methods(n, invoice.total_minor()) } else { None }
    }
}

impl Survey {
    /// What is received of each SKU, so that some orders cannot be served; 0 is never received.
    pub fn receipts(&self) -> BTreeMap<String, i64> {
        let received = |(index, (sku, pieces)): (usize, (&String, &i64))| {
            let never = index % NEVER_RECEIVED == NEVER_RECEIVED / 2;
            let part = (pieces * RECEIVED_PERCENT + 99) / 100;
            (sku.clone(), if never { 0 } else { part })
        };
        self.pieces.iter().enumerate().map(received).collect()
    }
}

/// How often the `n`th order (from 0) of a file is clicked.
pub fn clicks(n: u64) -> usize {
    if n.is_multiple_of(CLICKED_OFTEN) { CLICKS } else { 1 }
}

/// Posts the receipts.
///
/// # Errors
/// When one is refused.
pub async fn receive(shop: &Shop, receipts: &BTreeMap<String, i64>) -> Result<()> {
    let lines: Vec<Value> = receipts
        .iter()
        .filter(|(_, pieces)| **pieces > 0)
        .map(|(sku, pieces)| json!({ "sku": sku, "quantity": pieces }))
        .collect();
    for (index, lines) in lines.chunks(RECEIPT_LINES).enumerate() {
        let key = format!("receipt-{}", index + 1);
        let body = json!({ "lines": lines });
        let answer = shop.post(index, "/v1/stock/receipts", &key, &body).await?;
        ensure!(answer.status == 202, "receipt {key} got {}: {}", answer.status, answer.body);
    }
    Ok(())
}

/// Posts every invoice, good and bad. `done` is called after each; answers other than 202, and any
/// answer to a bad invoice, are written to `answers`, a line of JSON each.
///
/// # Errors
/// When ingest gives no final answer, or two answers to one order differ.
pub async fn send(
    shop: &Shop,
    merchant: &Merchant,
    orders: &Orders,
    answers: &Path,
    done: impl Fn(),
) -> Result<()> {
    let file = File::create(answers);
    let file = file.with_context(|| format!("cannot write {}", answers.display()))?;
    let answers = Mutex::new(BufWriter::new(file));
    let sender = Sender { shop, merchant, orders, answers };
    let (queue, received) = mpsc::channel(2 * CLIENTS);
    let reading = tokio::task::spawn_blocking({
        let orders = orders.clone();
        move || read(&orders, &queue)
    });
    let next = async |mut received: mpsc::Receiver<Job>| {
        Ok(received.recv().await.map(|job| (job, received)))
    };
    stream::try_unfold(received, next)
        .try_for_each_concurrent(CLIENTS, |job| {
            let (sender, done) = (&sender, &done);
            async move {
                sender.send(&job).await?;
                done();
                Ok::<_, anyhow::Error>(())
            }
        })
        .await?;
    reading.await??;
    sender.answers.into_inner().expect("no panic while locked").flush()?;
    Ok(())
}

/// Cancels the paid orders that [`payments::is_cancelled`] names; returns how many were not over by then.
///
/// # Errors
/// When ingest gives no final answer.
pub async fn cancel(shop: &Shop, merchant: &Merchant, orders: &Orders) -> Result<usize> {
    let mut good = 0_u64..;
    let mut ids = Vec::new();
    for invoice in orders.read()? {
        let invoice = invoice?;
        if !invoice.faults().is_empty() || !good.next().is_some_and(payments::is_cancelled) {
            continue;
        }
        ids.push(OrderId::derive(merchant, &invoice.key));
    }
    let cancelled = stream::iter(ids.iter().enumerate())
        .map(async |(n, id)| {
            let (path, key) = (format!("/v1/orders/{id}/cancel"), format!("cancel-{id}"));
            let answer = shop.post(n, &path, &key, &json!({ "reason": "changed_mind" })).await?;
            match answer.status.as_u16() {
                202 => Ok::<usize, anyhow::Error>(1),
                // Rejected before: there was nothing left of some SKU.
                409 => Ok(0),
                status => anyhow::bail!("{path} got {status}: {}", answer.body),
            }
        })
        .buffer_unordered(CLIENTS);
    cancelled.try_fold(0, async |sum, one| Ok(sum + one)).await
}

struct Job {
    invoice: Invoice,
    /// Which of all invoices.
    n: usize,
    /// Which of the good ones; none of the bad ones has a number.
    order: Option<u64>,
}

fn read(orders: &Orders, queue: &mpsc::Sender<Job>) -> Result<()> {
    let mut good = 0..;
    for (n, invoice) in orders.read()?.enumerate() {
        let invoice = invoice?;
        let order = if invoice.faults().is_empty() { good.next() } else { None };
        if queue.blocking_send(Job { invoice, n, order }).is_err() {
            // Whoever sends has failed, and says so.
            break;
        }
    }
    Ok(())
}

struct Sender<'a> {
    shop: &'a Shop,
    merchant: &'a Merchant,
    orders: &'a Orders,
    answers: Mutex<BufWriter<File>>,
}

impl Sender<'_> {
    async fn send(&self, job: &Job) -> Result<()> {
        let Invoice { key, .. } = &job.invoice;
        let mut body = job.invoice.request();
        let methods = job.order.and_then(|n| self.orders.payment_methods(n, &job.invoice));
        if let Some(methods) = methods {
            body["payment_methods"] = methods;
        }
        let times = job.order.map_or(1, clicks);
        // Neighbouring clicks go to different processes.
        let clicks = (0..times).map(|c| self.shop.post(job.n + c, "/v1/orders", key, &body));
        let expected = OrderId::derive(self.merchant, key).to_string();
        for answer in try_join_all(clicks).await? {
            if answer.status != 202 || job.order.is_none() {
                self.record(key, &answer)?;
                continue;
            }
            let id = &answer.body["order_id"];
            ensure!(*id == expected, "order {key} should be {expected}, but ingest says {id}");
        }
        Ok(())
    }

    fn record(&self, key: &str, answer: &Answer) -> Result<()> {
        let line = json!({ "key": key, "status": answer.status.as_u16(), "answer": answer.body });
        let mut file = self.answers.lock().expect("no panic while locked");
        writeln!(file, "{line}").context("cannot record an answer")
    }
}
