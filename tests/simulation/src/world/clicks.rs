//! Clients and ingest: what was acknowledged must be in the log; what was not may be, and is tried
//! again under the same key.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use events::{Merchant, OrderId, ReceiptId, Record, Sku, WarehouseListed, topics};

use machines::planted;

use super::{Event, World};
use crate::chance::Chance;
use crate::kafka::log::{self, Header};
use crate::workload::{self, Click, Sent};

/// What clients were told.
#[derive(Debug, Default)]
pub struct Accepted {
    /// Orders that were acknowledged.
    pub orders: BTreeSet<OrderId>,
    /// Receipts that were acknowledged, with their pieces.
    pub receipts: BTreeMap<(ReceiptId, Merchant, Sku), i64>,
    /// Orders whose cancel was acknowledged.
    pub cancels: BTreeSet<OrderId>,
    /// Poison that was sent.
    pub poison: usize,
    /// Clicks not answered yet.
    pub waiting: usize,
}

impl World {
    pub(super) fn set_up_clicks(&mut self, chance: &mut Chance) {
        let clicks = workload::clicks(chance, &self.plan);
        self.accepted.waiting = clicks.len();
        for click in clicks {
            self.schedule(click.at, Event::Click(Rc::new(click)));
        }
    }

    pub(super) fn click(&mut self, click: Rc<Click>) {
        self.moved = self.now;
        if !self.online() {
            self.coverage.hit("client: refused, tries again");
            let after = self.chance.between(100_000, 1_000_000);
            return self.schedule(after, Event::Click(click));
        }
        // Killed before the record left, or before its acknowledgement was passed on.
        let draw = if self.faulty { self.chance.below(1_000) } else { 1_000 };
        if draw < self.plan.ingest_kills {
            self.coverage.hit("ingest killed before the write");
            if planted!(IngestAcknowledgesFirst) {
                return self.answered(&click);
            }
            return self.try_again(click);
        }
        self.write(&click.sent);
        if draw < 2 * self.plan.ingest_kills {
            self.coverage.hit("ingest killed before the answer");
            return self.try_again(click);
        }
        self.answered(&click);
    }

    fn answered(&mut self, click: &Click) {
        self.accepted.waiting -= 1;
        match &click.sent {
            Sent::Order(order) => {
                self.accepted.orders.insert(order.order_id);
            }
            Sent::Receipt(receipt) => {
                let key = (receipt.receipt_id, receipt.merchant.clone(), receipt.sku.clone());
                self.accepted.receipts.insert(key, i64::from(receipt.quantity));
            }
            Sent::Cancel(request) => {
                self.accepted.cancels.insert(request.order_id);
            }
            Sent::Confirm(_)
            | Sent::Dispatch(_)
            | Sent::Change(_)
            | Sent::Sale(_)
            | Sent::Warehouse(_)
            | Sent::Poison(_) => {}
        }
    }

    fn try_again(&mut self, click: Rc<Click>) {
        let after = self.chance.between(10_000, 2_000_000);
        self.schedule(after, Event::Click(click));
    }

    fn write(&mut self, sent: &Sent) {
        let (topic, key, value) = match sent {
            Sent::Order(order) => {
                let value = self.codec.to_bytes(&Record::from(order.clone()));
                (topics::ORDERS.name, order.order_id.as_bytes().to_vec(), value)
            }
            Sent::Receipt(receipt) => {
                let key = topics::stock_key(&receipt.merchant, &receipt.sku);
                let value = self.codec.to_bytes(&Record::from(receipt.clone()));
                (topics::STOCK.name, key.into_bytes(), value)
            }
            Sent::Cancel(request) => {
                let value = self.codec.to_bytes(&Record::from(request.clone()));
                (topics::ORDER_OUTCOMES.name, request.order_id.as_bytes().to_vec(), value)
            }
            Sent::Confirm(request) => {
                let value = self.codec.to_bytes(&Record::from(request.clone()));
                (topics::ORDER_OUTCOMES.name, request.order_id.as_bytes().to_vec(), value)
            }
            Sent::Dispatch(request) => {
                let value = self.codec.to_bytes(&Record::from(request.clone()));
                (topics::ORDER_OUTCOMES.name, request.order_id.as_bytes().to_vec(), value)
            }
            Sent::Change(change) => {
                let key = topics::stock_key(&change.merchant, &change.sku);
                let value = self.codec.to_bytes(&Record::from(change.clone()));
                (topics::STOCK.name, key.into_bytes(), value)
            }
            Sent::Sale(sale) => {
                let key = topics::stock_key(&sale.merchant, &sale.sku);
                let value = self.codec.to_bytes(&Record::from(sale.clone()));
                (topics::STOCK.name, key.into_bytes(), value)
            }
            Sent::Warehouse(listed) => return self.list_warehouse(listed),
            Sent::Poison(bytes) => {
                self.accepted.poison += 1;
                (topics::ORDERS.name, b"poison".to_vec(), bytes.clone())
            }
        };
        let record = log::Record { key: Some(key), value: Some(value), header: Header::None };
        let at = self.wall();
        self.kafka.append(topic, at, record);
    }

    /// To every partition that decides by it, and to readers of what is.
    fn list_warehouse(&mut self, listed: &WarehouseListed) {
        let at = self.wall();
        let key = format!("{}/{}", listed.merchant, listed.warehouse).into_bytes();
        let value = Some(self.codec.to_bytes(&Record::from(listed.clone())));
        let record = log::Record { key: Some(key), value, header: Header::None };
        for topic in [topics::STOCK.name, topics::ORDER_OUTCOMES.name] {
            for partition in 0..self.kafka.partitions {
                let tp = self.kafka.tp(topic, i32::from(partition));
                self.kafka.log_mut(tp).append(at, Rc::new(record.clone()), None);
            }
        }
        self.kafka.append(topics::REFERENCE.name, at, record);
    }
}
