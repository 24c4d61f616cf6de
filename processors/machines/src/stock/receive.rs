//! Pieces that no order moves: receipts, and the stock API's changes. Each counts once per request, SKU
//! and warehouse, and the first body under a request's id counts.

use events::{
    ChangeStock, Fingerprint, MovementKind, ReceiptId, RefusalReason, RequestId, Sku,
    StockChangeKind, StockMoved, StockReceived, WarehouseCode, movements, topics,
};

use super::Stock;
use super::rows::{Level, RECEIPT_KEPT_MS, Receipt, ReceivedLine};
use crate::machine::{Context, Effects};
use crate::table::LevelKey;

/// Far more pieces than one change can be of, and than a level can have: with fewer no sum overflows.
const MOST_PIECES: u64 = 1_000_000_000_000;
const MOST_ON_HAND: u64 = 1_000_000 * MOST_PIECES;

/// Who and why, as the history tells it.
pub(super) struct Cause<'a> {
    pub(super) source_id: uuid::Uuid,
    pub(super) reason: &'a str,
    pub(super) requested_by: &'a str,
}

impl Stock {
    pub(super) fn receive(
        &mut self,
        received: StockReceived,
        context: &Context,
        effects: &mut Effects,
    ) {
        if received.quantity <= 0 {
            effects.reject("a receipt needs a positive quantity");
            return;
        }
        let key = (received.receipt_id, received.sku.clone(), received.warehouse.clone());
        let (print, quantity) = (received.fingerprint, received.quantity);
        if !self.counts(key, print, quantity, context, effects) {
            return;
        }
        let cause = Cause {
            source_id: received.receipt_id.0,
            reason: &received.reason,
            requested_by: &received.requested_by,
        };
        let key = (received.merchant, received.sku, received.warehouse);
        self.move_pieces(key, MovementKind::Receipt, i64::from(quantity), &cause, context, effects);
    }

    /// Whether this line of a request is its first; another body under the same id is rejected.
    pub(super) fn counts(
        &mut self,
        key: (ReceiptId, Sku, WarehouseCode),
        fingerprint: Option<Fingerprint>,
        quantity: i32,
        context: &Context,
        effects: &mut Effects,
    ) -> bool {
        let id = key.0;
        let first = self.receipts.get(&id).map(|receipt| receipt.fingerprint);
        let line = self.received.get(&key);
        let other_body = first.is_some_and(|f| fingerprint.is_some_and(|now| now != f));
        if other_body || line.is_some_and(|line| line.quantity != quantity) {
            effects.reject(other(id));
            return false;
        }
        if line.is_some() {
            return false;
        }
        let forget_at = context.now.plus(RECEIPT_KEPT_MS);
        if let (None, Some(fingerprint)) = (first, fingerprint) {
            self.receipts.put(id, Receipt { fingerprint, forget_at });
        }
        self.received.put(key, ReceivedLine { quantity, forget_at });
        true
    }

    /// Whether a request of one record per partition has counted here; another body under its id is
    /// rejected.
    pub(super) fn counted(
        &mut self,
        id: RequestId,
        fingerprint: Fingerprint,
        effects: &mut Effects,
    ) -> bool {
        let first = self.receipts.get(&ReceiptId(id.0));
        if first.is_some_and(|first| first.fingerprint != fingerprint) {
            effects.reject(other(ReceiptId(id.0)));
        }
        first.is_some()
    }

    /// The request counts; see [`Self::counted`].
    pub(super) fn remember(&mut self, id: RequestId, fingerprint: Fingerprint, context: &Context) {
        let forget_at = context.now.plus(RECEIPT_KEPT_MS);
        self.receipts.put(ReceiptId(id.0), Receipt { fingerprint, forget_at });
    }

    pub(super) fn change_stock(
        &mut self,
        change: ChangeStock,
        context: &Context,
        effects: &mut Effects,
    ) {
        let key = (change.merchant.clone(), change.sku.clone(), change.warehouse.clone());
        let known = self.levels.get(&key);
        let level = known.unwrap_or_default();
        if change.kind == StockChangeKind::Unknown {
            effects.reject("an unknown kind of change: update the processors and redrive it");
            return;
        }
        // What was refused is remembered as well: a repeat is the same request, whatever has become
        // possible meanwhile.
        let id = (ReceiptId(change.change_id.0), change.sku.clone(), change.warehouse.clone());
        if !self.counts(id, Some(change.fingerprint), 0, context, effects) {
            return;
        }
        let cause = Cause {
            source_id: change.change_id.0,
            reason: &change.reason,
            requested_by: &change.requested_by,
        };
        if let Some(fault) = fault(&change, known.as_ref()) {
            let cause = Cause { reason: &fault, ..cause };
            refuse(key.clone(), level.on_hand, &cause, context, effects);
            if change.kind == StockChangeKind::Count {
                self.ask_for_room(&key, change.quantity, context, effects);
            }
            return;
        }
        let pieces = change.quantity;
        match (change.kind, change.to_warehouse) {
            (StockChangeKind::Opening, _) => {
                self.move_pieces(key, MovementKind::Opening, pieces, &cause, context, effects);
            }
            (StockChangeKind::Adjustment, _) => {
                self.move_pieces(key, MovementKind::Adjustment, pieces, &cause, context, effects);
            }
            (StockChangeKind::Count, _) => {
                // A flash sale's pieces are the first to be missing.
                let promised = level.reserved + level.allocated;
                let set_aside = level.set_aside.min(pieces - promised);
                self.levels.put(key.clone(), Level { set_aside, missing: 0, ..level });
                let difference = pieces - level.on_hand;
                self.move_pieces(key, MovementKind::Count, difference, &cause, context, effects);
            }
            (StockChangeKind::Transfer, Some(to)) => {
                let there = (key.0.clone(), key.1.clone(), to);
                let (out, arrived) = (MovementKind::TransferOut, MovementKind::TransferIn);
                self.move_pieces(key, out, -pieces, &cause, context, effects);
                self.move_pieces(there, arrived, pieces, &cause, context, effects);
            }
            (StockChangeKind::Reconciliation, _) => {
                // Nothing moves: the history gets what it lacks, and the level is told anew.
                self.levels.put(key.clone(), level);
                let kind = MovementKind::Reconciliation;
                tell(key, kind, pieces, level.on_hand, &cause, context, effects);
            }
            (StockChangeKind::LowAt, _) => {
                self.levels.put(key, Level { low_at: pieces, ..level });
            }
            (StockChangeKind::Transfer | StockChangeKind::Unknown, _) => {}
        }
    }

    /// A count found fewer pieces than are promised: what is not there is not sold any more, and
    /// reservations go elsewhere, or their sagas are told, the newest first. It can be counted again
    /// when they have gone.
    fn ask_for_room(&mut self, key: &LevelKey, counted: i64, context: &Context, fx: &mut Effects) {
        let level = self.levels.get(key).unwrap_or_default();
        if counted < 0 {
            return;
        }
        let too_many = level.reserved + level.allocated - counted;
        if too_many > 0 {
            let missing = level.on_hand - counted;
            self.levels.put(key.clone(), Level { missing, ..level });
            let (merchant, sku, warehouse) = key;
            let place = (merchant, warehouse, Some(sku));
            self.evict(place, too_many, RefusalReason::SoldOut, context, fx);
        }
    }

    /// Changes what is on hand and tells the history.
    pub(super) fn move_pieces(
        &mut self,
        key: LevelKey,
        kind: MovementKind,
        quantity: i64,
        cause: &Cause<'_>,
        context: &Context,
        effects: &mut Effects,
    ) {
        let mut level = self.levels.get(&key).unwrap_or_default();
        level.on_hand += quantity;
        level.missing = level.missing.min(level.on_hand);
        let on_hand = level.on_hand;
        self.levels.put(key.clone(), level);
        tell(key, kind, quantity, on_hand, cause, context, effects);
    }
}

fn other(id: ReceiptId) -> String {
    format!("request {} was posted before with another body, which counts: use a new key", id.0)
}

/// Tells the history that a request was refused, with the reason.
pub(super) fn refuse(
    key: LevelKey,
    on_hand: i64,
    cause: &Cause<'_>,
    context: &Context,
    effects: &mut Effects,
) {
    tell(key, MovementKind::Refused, 0, on_hand, cause, context, effects);
}

fn tell(
    (merchant, sku, warehouse): LevelKey,
    kind: MovementKind,
    quantity: i64,
    on_hand: i64,
    cause: &Cause<'_>,
    context: &Context,
    effects: &mut Effects,
) {
    let topic_key = topics::stock_key(&merchant, &sku);
    let moved = StockMoved {
        movement_id: movements::movement_id(cause.source_id, kind, &sku, &warehouse, context.now),
        merchant,
        sku,
        warehouse,
        kind,
        quantity,
        on_hand,
        source_id: cause.source_id,
        reason: cause.reason.into(),
        requested_by: cause.requested_by.into(),
        moved_at: context.now,
    };
    let topic = topics::STOCK_MOVEMENTS.name;
    effects.emit_to(topic, context.partition, topic_key.as_bytes(), moved);
}

/// Why a change cannot be made.
fn fault(change: &ChangeStock, known: Option<&Level>) -> Option<String> {
    let level = known.copied().unwrap_or_default();
    let (free, pieces) = (level.available().max(0), change.quantity);
    let too_many = || format!("only {free} pieces are free: count them, or cancel orders first");
    if pieces.unsigned_abs() > MOST_PIECES || level.on_hand.unsigned_abs() > MOST_ON_HAND {
        return Some("more pieces than anybody has".into());
    }
    match change.kind {
        StockChangeKind::Opening if pieces <= 0 => Some("an opening needs pieces".into()),
        StockChangeKind::Opening if level.on_hand > 0 => {
            Some("the SKU has stock there already: adjust or count it".into())
        }
        StockChangeKind::Adjustment if pieces == 0 => Some("an adjustment of nothing".into()),
        StockChangeKind::Adjustment if pieces < 0 && free < -pieces => Some(too_many()),
        StockChangeKind::Count if pieces < 0 => Some("a count of fewer than no pieces".into()),
        StockChangeKind::Count if pieces < level.reserved + level.allocated => Some(format!(
            "{} pieces are reserved and {} allocated: the newest reservations are given up, dispatch or \
             cancel what is allocated, then post the count again under a new key",
            level.reserved, level.allocated
        )),
        StockChangeKind::Transfer if pieces <= 0 => Some("a transfer needs pieces".into()),
        StockChangeKind::Transfer if change.to_warehouse.is_none() => {
            Some("a transfer needs a warehouse to go to".into())
        }
        StockChangeKind::Transfer if change.to_warehouse.as_ref() == Some(&change.warehouse) => {
            Some("a transfer needs two warehouses".into())
        }
        StockChangeKind::Transfer if free < pieces => Some(too_many()),
        StockChangeKind::Reconciliation if known.is_none() => {
            Some("there has never been stock of this SKU there".into())
        }
        StockChangeKind::LowAt if pieces < 0 => Some("a mark below zero".into()),
        _ => None,
    }
}
