//! Commands to every partition of `couriers`: each task has its place for them in its own log.

use anyhow::Result;
use events::topics::COURIERS;
use events::{Codec, Record};

use crate::append;

/// Appends every record, in order, to every partition; how many partitions there are.
///
/// # Errors
/// When Kafka doesn't acknowledge; the command can be repeated.
pub(super) async fn append(
    brokers: &str,
    codec: &Codec,
    records: &[(String, Record)],
) -> Result<i32> {
    let partitions = append::partitions(brokers).await?;
    let mut everywhere = Vec::new();
    for (key, record) in records {
        let value = codec.to_bytes(record);
        let copies =
            (0..partitions).map(|partition| (partition, key.clone().into(), value.clone()));
        everywhere.extend(copies);
    }
    append::append(brokers, COURIERS.name, &everywhere).await?;
    Ok(partitions)
}
