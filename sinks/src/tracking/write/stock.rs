//! Stock's tables: levels as they stand, and the history of what is on hand.

use events::{StockLevelChanged, StockMoved};
use tokio_postgres::{Error, Transaction};

use super::super::rows::{LevelColumns, MovementColumns};
use super::super::statements::Statements;

pub(super) async fn levels(
    transaction: &Transaction<'_>,
    statements: &Statements,
    changed: &[&StockLevelChanged],
) -> Result<u64, Error> {
    let rows = LevelColumns::of(changed.iter().copied());
    transaction
        .execute(
            &statements.levels,
            &[
                &rows.merchant,
                &rows.sku,
                &rows.warehouse,
                &rows.version,
                &rows.on_hand,
                &rows.reserved,
                &rows.allocated,
                &rows.changed_at,
                &rows.set_aside,
                &rows.missing,
            ],
        )
        .await
}

pub(super) async fn movements(
    transaction: &Transaction<'_>,
    statements: &Statements,
    moved: &[&StockMoved],
) -> Result<u64, Error> {
    let rows = MovementColumns::of(moved.iter().copied());
    transaction
        .execute(
            &statements.movements,
            &[
                &rows.movement_id,
                &rows.merchant,
                &rows.sku,
                &rows.warehouse,
                &rows.kind,
                &rows.quantity,
                &rows.on_hand,
                &rows.source_id,
                &rows.reason,
                &rows.requested_by,
                &rows.moved_at,
            ],
        )
        .await
}
