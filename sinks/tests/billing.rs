//! The ledger on real Kafka and PostgreSQL: written between kills, written again from the beginning, and never
//! changed otherwise.

mod support;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use events::{OrderStatus, PaymentFact, PaymentState, ProviderCode, Record};
use support::writer::{self, Writer};
use support::{Bench, until};

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

fn histories(numbers: std::ops::Range<u32>) -> Vec<Record> {
    let at = writer::now();
    let each = numbers.flat_map(|n| {
        let body = writer::body("ledger", n);
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

/// Entries, and balances of clearing, customers, revenue and returns.
async fn books(bench: &Bench) -> Result<[i64; 5]> {
    let of = async |account: &str| {
        let sql =
            "SELECT coalesce(sum(balance_minor), 0)::bigint FROM ledger_balances WHERE account =";
        bench.number(&format!("{sql} '{account}'")).await
    };
    Ok([
        bench.number("SELECT count(*) FROM ledger_entries").await?,
        of("clearing").await?,
        of("customers").await?,
        of("revenue").await?,
        of("returns").await?,
    ])
}

fn expected() -> [i64; 5] {
    let mut books = [0; 5];
    for n in 0..ROUNDS * ORDERS {
        let total = writer::body("ledger", n).total_minor;
        let (entries, [clearing, customers, revenue, returns]) = match n % 4 {
            0 => (2, [1, 0, -1, 0]),
            1 => (2, [0, 0, 0, 0]),
            2 => (4, [0, 0, -1, 1]),
            _ => (1, [0, 1, -1, 0]),
        };
        let of_order =
            [entries, clearing * total, customers * total, revenue * total, returns * total];
        books.iter_mut().zip(of_order).for_each(|(sum, part)| *sum += part);
    }
    books
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
    let complete = || async { Ok(books(&bench).await? == expected()) };
    until("the ledger holds everything", PATIENCE, complete)
        .await
        .with_context(|| format!("should be {:?}", expected()))?;

    let reached = "SELECT sum(next_offset)::bigint FROM sink_offsets WHERE sink = 'billing'";
    let end = bench.number(reached).await?;
    ensure!(sinks.stop().await?, "SIGTERM didn't end it");
    let client = bench.postgres().await?;
    client.execute("DELETE FROM sink_offsets WHERE sink = 'billing'", &[]).await?;
    sinks.restart().await?;
    let again = || async {
        let reached =
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM sink_offsets WHERE sink = 'billing'";
        Ok(bench.number(reached).await? == end)
    };
    until("everything was read again", PATIENCE, again).await?;
    ensure!(books(&bench).await? == expected(), "{:?}", books(&bench).await?);

    for change in ["UPDATE ledger_entries SET amount_minor = 1", "DELETE FROM ledger_entries"] {
        let refused = client.execute(change, &[]).await.expect_err("the ledger is never changed");
        ensure!(refused.as_db_error().is_some_and(|e| e.message().contains("never changed")));
    }
    let lopsided =
        "INSERT INTO ledger_entries SELECT gen_random_uuid(), now(), 1, 1, 'shop', 'sale',
        'revenue', 'revenue', 1, 'GBP', NULL, NULL, NULL, now()";
    ensure!(client.execute(lopsided, &[]).await.is_err(), "from an account to itself");
    Ok(())
}
