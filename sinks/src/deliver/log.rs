//! Questions to Kafka that block, asked from asynchronous code.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Place;
use super::member::GroupConsumer;
use crate::retry::Failure;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The log, seen by a member of the sink's group.
#[derive(Clone)]
pub(crate) struct Log {
    consumer: Arc<GroupConsumer>,
}

impl Log {
    pub(crate) fn new(consumer: Arc<GroupConsumer>) -> Self {
        Self { consumer }
    }

    /// First offset and end of the partition, as a reader of committed records sees them.
    pub(crate) async fn bounds(&self, place: Place) -> Result<(i64, i64), Failure> {
        self.ask(move |consumer| {
            consumer.fetch_watermarks(place.topic.name, place.partition, TIMEOUT)
        })
        .await
        .map_err(|e| Failure::retry(format!("kafka: bounds of {place}: {e}")))
    }

    /// The offset that the group has committed.
    pub(crate) async fn committed(&self, place: Place) -> Result<Option<i64>, Failure> {
        let answer = self.ask(move |consumer| {
            let mut list = TopicPartitionList::new();
            list.add_partition(place.topic.name, place.partition);
            let list = consumer.committed_offsets(list, TIMEOUT)?;
            let element = list.find_partition(place.topic.name, place.partition);
            let element = element.expect("the answer is about what was asked");
            element.error()?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
        });
        answer.await.map_err(|e| Failure::retry(format!("kafka: offset of {place}: {e}")))
    }

    /// Commits an offset for the group; refused if this process is no living member of it.
    pub(crate) async fn commit(&self, place: Place, offset: i64) -> Result<(), Failure> {
        let answer = self.ask(move |consumer| {
            let mut list = TopicPartitionList::new();
            let offset = Offset::Offset(offset);
            list.add_partition_offset(place.topic.name, place.partition, offset)?;
            consumer.commit(&list, CommitMode::Sync)
        });
        answer.await.map_err(|e| {
            let reason = format!("kafka: commit of {place}: {e}");
            match e.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::FencedInstanceId
                    | RDKafkaErrorCode::AssignmentLost,
                ) => Failure::reopen(reason),
                _ => Failure::retry(reason),
            }
        })
    }

    /// Moves the fetching of an assigned partition.
    pub(crate) async fn seek(&self, place: Place, offset: i64) -> Result<(), Failure> {
        self.ask(move |consumer| {
            let offset = Offset::Offset(offset);
            consumer.seek(place.topic.name, place.partition, offset, TIMEOUT)
        })
        .await
        .map_err(|e| Failure::retry(format!("kafka: seek in {place}: {e}")))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&GroupConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let consumer = self.consumer.clone();
        tokio::task::spawn_blocking(move || question(&consumer))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

/// Where a partition starts: at `known`, or at the log's first record when nothing is known.
///
/// # Errors
/// When records between were removed before they were read, or the log is shorter than what was
/// read of it: nobody but a person can say what then is right.
pub(crate) fn start(place: Place, known: Option<i64>, bounds: (i64, i64)) -> Result<i64, Failure> {
    let (first, end) = bounds;
    match known {
        None => Ok(first),
        Some(known) if known < first => Err(Failure::stop(format!(
            "records lost: {place} begins at {first}, written up to {known}"
        ))),
        Some(known) if known > end => Err(Failure::stop(format!(
            "{place} ends at {end}, but is written up to {known}: was the topic made anew?"
        ))),
        Some(known) => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Verdict;
    use events::topics::ORDER_STATUS;

    #[test]
    fn a_partition_starts_where_it_was_left_or_stops() {
        let place = Place { topic: &ORDER_STATUS, partition: 0 };
        assert_eq!(start(place, None, (7, 9)).unwrap(), 7);
        assert_eq!(start(place, Some(9), (7, 9)).unwrap(), 9);
        assert_eq!(start(place, Some(6), (7, 9)).unwrap_err().verdict, Verdict::Stop);
        assert_eq!(start(place, Some(10), (7, 9)).unwrap_err().verdict, Verdict::Stop);
    }
}
