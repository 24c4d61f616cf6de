//! The ledger on real Kafka and PostgreSQL: written between kills, written again from the beginning, and never
//! changed otherwise.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use events::{
    Currency, Merchant, OrderPlaced, OrderStatus, PaymentFact, PaymentState, ProviderCode, Record,
};
use support::writer::{self, Writer};
use support::{Bench, until};
use tokio_postgres::Client;

const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: u32 = 6;
const ORDERS: u32 = 40;

/// How an order goes, as (status, its payment's state), from version 1; by its number.
fn way(n: u32) -> &'static [(OrderStatus, Option<PaymentState>)] {
    use OrderStatus::{Authorized, Cancelled, Paid, Received, Shipped, Undeliverable};
    use PaymentState as State;
    const PAID: [(OrderStatus, Option<State>); 3] =
        [(Received, None), (Authorized, Some(State::Authorized)), (Paid, Some(State::Captured))];
    match n % 4 {
        0 => &[PAID[0], PAID[1], PAID[2], (Shipped, None), (Shipped, None)],
        1 => &[PAID[0], PAID[1], PAID[2], (Cancelled, None), (Cancelled, Some(State::Refunded))],
        2 => &[
            PAID[0],
            PAID[1],
            PAID[2],
            (Shipped, None),
            (Undeliverable, None),
            (Undeliverable, Some(State::Refunded)),
        ],
        _ => &[(Received, None), (Shipped, None)],
    }
}

/// Two shops, two currencies.
fn order(n: u32) -> OrderPlaced {
    let mut body = writer::body("ledger", n);
    if n.is_multiple_of(3) {
        body.merchant = Merchant::parse("shop-2").expect("legal");
    }
    if n.is_multiple_of(5) {
        body.currency = Currency::parse("EUR").expect("legal");
    }
    body
}

fn histories(numbers: std::ops::Range<u32>) -> Vec<Record> {
    let at = writer::now();
    let each = numbers.flat_map(|n| {
        let body = order(n);
        way(n).iter().zip(1..).map(move |((status, payment), version)| {
            let mut change = writer::status(&body, at, version, true);
            change.status = *status;
            change.consignment = None;
            change.payments.extend(payment.map(|state| PaymentFact {
                method: 1,
                provider: ProviderCode::parse("stripe").expect("legal"),
                reference: format!("pi_{n}").into(),
                state,
                amount_minor: body.total_minor,
                currency: body.currency.clone(),
            }));
            change.into()
        })
    });
    each.collect()
}

/// Balances that are not 0, by merchant, account and currency.
type Balances = BTreeMap<(String, String, String), i64>;

/// Entries and balances as they are.
async fn books(bench: &Bench) -> Result<(i64, Balances)> {
    let client = bench.postgres().await?;
    let balances = "SELECT merchant, account, currency, sum(balance_minor)::bigint
        FROM ledger_balances GROUP BY 1, 2, 3 HAVING sum(balance_minor) <> 0";
    let rows = client.query(balances, &[]).await?;
    let balances = rows.iter().map(|r| ((r.get(0), r.get(1), r.get(2)), r.get(3))).collect();
    Ok((bench.number("SELECT count(*) FROM ledger_entries").await?, balances))
}

/// Entries and balances as they should be.
fn expected() -> (i64, Balances) {
    let (mut entries, mut balances) = (0, Balances::new());
    for n in 0..ROUNDS * ORDERS {
        let order = order(n);
        let (of_order, moved): (i64, &[(&str, i64)]) = match n % 4 {
            0 => (2, &[("clearing", 1), ("revenue", -1)]),
            1 => (2, &[]),
            2 => (4, &[("revenue", -1), ("returns", 1)]),
            _ => (1, &[("customers", 1), ("revenue", -1)]),
        };
        entries += of_order;
        for (account, sign) in moved {
            let [merchant, currency] = [order.merchant.as_str(), order.currency.as_str()];
            let account = [merchant, *account, currency].map(str::to_owned).into();
            *balances.entry(account).or_default() += sign * order.total_minor;
        }
    }
    (entries, balances)
}

/// Sums of debits and credits that differ: per entry, and per merchant and currency.
async fn unbalanced(bench: &Bench) -> Result<i64> {
    bench
        .number(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM ledger_postings
                    GROUP BY order_id, accepted_at, kind, turn, method, reference
                    HAVING sum(amount_minor) <> 0 OR count(*) <> 2) AS entries)
                + (SELECT count(*) FROM (SELECT 1 FROM ledger_balances
                    GROUP BY merchant, currency HAVING sum(balance_minor) <> 0) AS books)",
        )
        .await
}

/// How far billing has got, all partitions together.
async fn reached(bench: &Bench) -> Result<i64> {
    let sql =
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM sink_offsets WHERE sink = 'billing'";
    bench.number(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_the_same_however_often_it_is_written() -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    for round in 0..ROUNDS {
        let records = histories(round * ORDERS..(round + 1) * ORDERS);
        // An order's versions come in several batches.
        for part in records.chunks(37) {
            writer.commit(part)?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        sinks.kill().await?;
        sinks.relaunch().await?;
    }
    let should = expected();
    let complete = || async { Ok(books(&bench).await? == should) };
    until("the ledger holds everything", PATIENCE, complete)
        .await
        .with_context(|| format!("should be {should:?}"))?;
    ensure!(unbalanced(&bench).await? == 0, "an entry has two sides of one amount");

    let end = reached(&bench).await?;
    ensure!(sinks.stop().await?, "SIGTERM didn't end it");
    let client = bench.postgres().await?;
    let written = rows(&client).await?;
    client.execute("DELETE FROM sink_offsets WHERE sink = 'billing'", &[]).await?;
    sinks.restart().await?;
    let again = || async { Ok(reached(&bench).await? == end) };
    until("everything was read again", PATIENCE, again).await?;
    ensure!(rows(&client).await? == written, "an entry was changed or added");
    refusals(&client).await
}

/// The whole table, as text.
async fn rows(client: &Client) -> Result<Vec<String>> {
    let sql = "SELECT e::text FROM ledger_entries e ORDER BY 1";
    Ok(client.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// What PostgreSQL does not let anybody write.
async fn refusals(client: &Client) -> Result<()> {
    for change in [
        "UPDATE ledger_entries SET amount_minor = 1",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries",
    ] {
        let refused = client.execute(change, &[]).await.expect_err("the ledger is never changed");
        let message = refused.as_db_error().map(|e| e.message().to_owned());
        ensure!(message.is_some_and(|m| m.contains("never changed")), "{change}: {refused}");
    }
    let insert = "INSERT INTO ledger_entries (order_id, accepted_at, kind, turn, method, reference,
            version, merchant, debit, credit, amount_minor, currency, provider, occurred_at)
        VALUES (gen_random_uuid(), now(), ";
    let sound = "'sale', 0, 0, '', 1, 'shop', 'customers', 'revenue', 1, 'GBP', NULL, now())";
    client.execute(&format!("{insert}{sound}"), &[]).await?;
    for unsound in [
        // From an account to itself, the wrong way round, of nothing, of less than nothing.
        "'sale', 0, 0, '', 1, 'shop', 'revenue', 'revenue', 1, 'GBP', NULL, now())",
        "'sale', 0, 0, '', 1, 'shop', 'revenue', 'customers', 1, 'GBP', NULL, now())",
        "'sale', 0, 0, '', 1, 'shop', 'customers', 'revenue', 0, 'GBP', NULL, now())",
        "'sale', 0, 0, '', 1, 'shop', 'customers', 'revenue', -1, 'GBP', NULL, now())",
        // One-sided; a capture of no payment.
        "'sale', 0, 0, '', 1, 'shop', 'customers', NULL, 1, 'GBP', NULL, now())",
        "'capture', 0, 1, 'pi_1', 1, 'shop', 'clearing', 'customers', 1, 'GBP', NULL, now())",
    ] {
        let refused = client.execute(&format!("{insert}{unsound}"), &[]).await;
        let error = refused.err().with_context(|| format!("written: {unsound}"))?;
        let state = error.code().map_or("", |state| state.code());
        ensure!(state.starts_with("23"), "{unsound}: {error}");
    }
    Ok(())
}
