//! What a reservation costs as the number of SKUs grows: the stock processor's task on RocksDB, as it
//! runs in production, without Kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use events::{
    Codec, Merchant, Millis, OrderId, ReceiptId, Record, ReserveLine, ReserveLines, Sku,
    StockReceived, WarehouseCode, topics,
};
use machines::footer::Footer;
use machines::machine::Source;
use machines::table::{Backing, Write};
use machines::task::{Arrived, Start, Task, TaskId};
use machines::topology;
use runtime::store::{RocksStore, Stores};
use stream::{Meta, Store as _};

use crate::load::Random;

/// Reservations that are measured, and as many before them to warm up.
const RESERVATIONS: usize = 100_000;
/// Reservations in a transaction.
const BATCH: usize = 1_000;
/// Rows written at once while a store is filled.
const FILL: usize = 50_000;
const PARTITIONS: i32 = 1;

/// Microseconds of a reservation of one piece of a random SKU, with so many SKUs in the store: decoding,
/// deciding, encoding the answer, and applying the batch to RocksDB.
///
/// # Errors
/// When the store refuses.
pub fn cost_us(folder: &Path, skus: usize) -> Result<f64> {
    let store = Stores::new(folder).open(&format!("growth-{skus}"))?;
    let codec = Codec::without_registry();
    let mut bench = Bench { task: task(&store, &codec), store, codec, offset: 0 };
    bench.fill(skus)?;
    let mut random = Random::new(7);
    bench.reserve(skus, &mut random)?;
    let began = Instant::now();
    bench.reserve(skus, &mut random)?;
    Ok(began.elapsed().as_secs_f64() * 1e6 / RESERVATIONS as f64)
}

struct Bench {
    task: Task,
    store: RocksStore,
    codec: Codec,
    offset: i64,
}

fn task(store: &RocksStore, codec: &Codec) -> Task {
    let id = TaskId { processor: topology::STOCK, partition: 0 };
    let start = Start {
        term: 0,
        sequence: 0,
        positions: BTreeMap::new(),
        now: Millis(0),
        store_id: "growth".into(),
        owner: "growth".into(),
        repairs: vec![],
    };
    let backing: Rc<dyn Backing> = Rc::new(store.clone());
    Task::new(id, backing, codec.clone(), PARTITIONS, start)
}

fn merchant() -> Merchant {
    Merchant::parse("shop").expect("a legal code")
}

fn sku(n: u64) -> Sku {
    Sku::parse(&format!("SKU{n:09}")).expect("a legal code")
}

impl Bench {
    fn process(&mut self, key: &[u8], record: &Record) -> Result<()> {
        let value = self.codec.to_bytes(record);
        let source = Source {
            topic: topics::STOCK.name,
            partition: 0,
            offset: self.offset,
            appended_at: Millis(1_800_000_000_000 + self.offset),
        };
        self.offset += 1;
        let unknown = |id| anyhow::anyhow!("schema {id} is unknown");
        let record = Arrived { source, key: Some(key), value: Some(&value), headers: &Vec::new };
        self.task.process(record).map_err(unknown)
    }

    fn commit(&mut self) -> Result<Vec<Write>> {
        let transaction = self.task.seal(false);
        let meta = meta(&transaction.footer);
        self.store.apply(&transaction.writes, &transaction.fired, &meta)?;
        self.task.committed();
        Ok(transaction.writes)
    }

    /// A level for every SKU. The row of the first is written under every other's key: all are alike.
    fn fill(&mut self, skus: usize) -> Result<()> {
        let received = StockReceived {
            receipt_id: ReceiptId::derive(&merchant(), "growth"),
            merchant: merchant(),
            warehouse: WarehouseCode::MAIN,
            sku: sku(0),
            quantity: 1_000_000,
            fingerprint: None,
            reason: "".into(),
            requested_by: "".into(),
        };
        self.process(b"", &received.into())?;
        let key = |n: usize| format!("{}/{}/main", merchant(), sku(n as u64)).into_bytes();
        let writes = self.commit()?;
        let first = writes.iter().find(|write| write.key == key(0)).context("the first level")?;
        let footer = self.task.seal(false).footer;
        self.task.committed();
        for start in (1..skus).step_by(FILL) {
            let rows =
                (start..skus.min(start + FILL)).map(|n| Write { key: key(n), ..first.clone() });
            self.store.apply(&rows.collect::<Vec<_>>(), &[], &meta(&footer))?;
        }
        Ok(())
    }

    fn reserve(&mut self, skus: usize, random: &mut Random) -> Result<()> {
        for n in 0..RESERVATIONS {
            let command = ReserveLines {
                order_id: OrderId(uuid::Uuid::from_u64_pair(random.bits(), random.bits())),
                accepted_at: Millis(1_800_000_000_000),
                merchant: merchant(),
                attempt: 1,
                warehouses: vec![WarehouseCode::MAIN],
                lines: vec![ReserveLine {
                    line: 1,
                    sku: sku(random.bits() % skus as u64),
                    quantity: 1,
                }],
                customer_id: None,
            };
            let key = *command.order_id.as_bytes();
            self.process(&key, &command.into())?;
            if n % BATCH == BATCH - 1 {
                self.commit()?;
            }
        }
        Ok(())
    }
}

fn meta(footer: &Footer) -> Meta {
    Meta { position: 0, footer: footer.clone(), term: footer.term, restoring: false }
}
