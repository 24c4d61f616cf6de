//! One block, one token, one INSERT.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;

use super::rows::Table;
use crate::retry::Failure;

/// For the server to take a chunk of the data.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// For the server to store the block.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Inserts rows unless a block with this token was inserted before; returns once they are stored.
pub(super) async fn block(
    client: &Client,
    table: &Table,
    token: &str,
    rows: Bytes,
) -> Result<(), Failure> {
    let Table { name, columns } = table;
    let statement = format!("INSERT INTO {name} ({columns}) FORMAT RowBinary");
    let mut insert = client
        .insert_formatted_with(statement)
        // An asynchronous insert is acknowledged before, or without, deduplication.
        .with_setting("async_insert", "0")
        .with_setting("insert_deduplicate", "1")
        // What a table ignores is still offered to the views behind it: they may have missed it.
        .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
        .with_setting("insert_deduplication_token", token)
        .with_timeouts(Some(SEND_TIMEOUT), Some(STORE_TIMEOUT));
    insert.send(rows).await?;
    insert.end().await?;
    Ok(())
}
