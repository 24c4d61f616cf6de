//! One block, one token, one INSERT.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;

use super::row::COLUMNS;
use crate::retry::Failure;

/// For the server to take a chunk of the data.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// For the server to store the block.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Inserts rows unless a block with this token was inserted before; returns once they are stored.
pub(super) async fn block(client: &Client, token: &str, rows: Bytes) -> Result<(), Failure> {
    let statement = format!("INSERT INTO order_events ({COLUMNS}) FORMAT RowBinary");
    let mut insert = client
        .insert_formatted_with(statement)
        // An asynchronous insert is acknowledged before, or without, deduplication.
        .with_setting("async_insert", "0")
        .with_setting("insert_deduplicate", "1")
        .with_setting("insert_deduplication_token", token)
        .with_timeouts(Some(SEND_TIMEOUT), Some(STORE_TIMEOUT));
    insert.send(rows).await?;
    insert.end().await?;
    Ok(())
}
