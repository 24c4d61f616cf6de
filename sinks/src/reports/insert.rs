//! One block, one INSERT.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;

use super::rows::Table;
use crate::retry::Failure;

/// For the server to take a chunk of the data.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// For the server to store the block.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Inserts rows; returns once they are stored. After an error they may be stored or not.
pub(super) async fn rows(client: &Client, table: &Table, rows: Bytes) -> Result<(), Failure> {
    let Table { name, columns } = table;
    let statement = format!("INSERT INTO {name} ({columns}) FORMAT RowBinary");
    let mut insert = client
        .insert_formatted_with(statement)
        // Acknowledged when stored, here and in the tables folded from it.
        .with_setting("async_insert", "0")
        // A block that is inserted again has to reach every table: see the module `reports`.
        .with_setting("insert_deduplicate", "0")
        .with_timeouts(Some(SEND_TIMEOUT), Some(STORE_TIMEOUT));
    insert.send(rows).await?;
    insert.end().await?;
    Ok(())
}
