//! How far the tracking store has got in `order-status`: asked for everybody at once, four times a second, and only while
//! somebody needs to know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::database::Database;

const EVERY: Duration = Duration::from_millis(250);
/// After the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Stored {
    /// Next offset by partition.
    next: Arc<watch::Sender<Vec<i64>>>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Stored {
    /// Starts the one who asks.
    pub(crate) fn start(database: Database) -> Self {
        let next = Arc::new(watch::Sender::new(Vec::new()));
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(ask(database, Arc::clone(&next), Arc::clone(&wanted)));
        Self { next, wanted, task }
    }

    /// Waits until the store holds everything before this offset. Cancel-safe.
    pub(super) async fn reached(&self, partition: i32, offset: i64) {
        let mut next = self.next.subscribe();
        self.wanted.notify_one();
        let partition = usize::try_from(partition).unwrap_or_default();
        // The sender lives as long as this does.
        let _ = next.wait_for(|next| next.get(partition).is_some_and(|next| *next >= offset)).await;
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(database: Database, next: Arc<watch::Sender<Vec<i64>>>, wanted: Arc<Notify>) {
    loop {
        if next.receiver_count() == 0 {
            wanted.notified().await;
        }
        match database.stored().await {
            Ok(offsets) => {
                next.send_replace(offsets);
                tokio::time::sleep(EVERY).await;
            }
            Err(error) => {
                tracing::debug!(%error, "how far the store has got is not known");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
