//! What has come out where: follows `order-status` and both databases while their servers come and
//! go, and so tells when everything that was accepted before a moment is final and visible.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use events::{Codec, OrderId, OrderStatus, Record, topics};
use local::Stack;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::reconcile::{clickhouse, postgres};
use crate::watch::open;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A look that takes longer meets a server that is down.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    /// Acknowledged, not yet known to be visible everywhere.
    open: HashMap<OrderId, Instant>,
    /// Final in the log at this place, not yet visible everywhere.
    finals: HashMap<OrderId, (i32, i64)>,
    /// Visible everywhere; kept because an acknowledgement may come later than that.
    done: HashSet<OrderId>,
    /// When an order was last seen to be done, by the time of its acknowledgement.
    newest: Option<Instant>,
    postgres: HashMap<i32, i64>,
    clickhouse: HashMap<i32, i64>,
}

/// Follows a running stack until dropped.
pub struct Tracker {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Tracker {
    /// Starts following.
    ///
    /// # Errors
    /// When a component does not answer now; later they may.
    pub async fn start(stack: &Stack) -> Result<Self> {
        let registry = wire::config::Registry { url: stack.registry_url() };
        let codec = wire::registry::codec(&registry).await?;
        let brokers = stack.brokers();
        let partitions = {
            let brokers = brokers.clone();
            tokio::task::spawn_blocking(move || wire::admin::partitions(&brokers)).await??
        };
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let consumer = consumer(&brokers, partitions)?;
        let follower = {
            let (state, stop) = (state.clone(), stop.clone());
            std::thread::spawn(move || follow(&consumer, &codec, &state, &stop))
        };
        let (url, pg) = (stack.postgres_url(), state.clone());
        let (reports, ch) = (clickhouse::client(&stack.clickhouse_url()), state.clone());
        let tasks = vec![
            tokio::spawn(async move { look_at_postgres(&url, &pg).await }),
            tokio::spawn(async move { look_at_clickhouse(&reports, &ch).await }),
        ];
        Ok(Self { state, stop, threads: vec![follower], tasks })
    }

    /// An order was acknowledged to its client.
    pub fn acknowledged(&self, order: OrderId) {
        let mut state = open(&self.state);
        if !state.done.contains(&order) {
            state.open.insert(order, Instant::now());
        }
    }

    /// Orders acknowledged until then that are not yet final and visible in both databases.
    pub fn outstanding(&self, until: Instant) -> usize {
        let mut state = open(&self.state);
        state.settle();
        state.open.values().filter(|at| **at <= until).count()
    }

    /// Whether an order that was acknowledged after this moment has come out everywhere.
    pub fn flows_since(&self, moment: Instant) -> bool {
        let mut state = open(&self.state);
        state.settle();
        state.newest.is_some_and(|newest| newest > moment)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(|task| task.abort());
        for thread in self.threads.drain(..) {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl State {
    fn settle(&mut self) {
        let Self { open, finals, done, newest, postgres, clickhouse } = self;
        let past = |offsets: &HashMap<i32, i64>, partition: &i32, offset: i64| {
            offsets.get(partition).is_some_and(|next| *next > offset)
        };
        finals.retain(|order, (partition, offset)| {
            let visible =
                past(postgres, partition, *offset) && past(clickhouse, partition, *offset);
            if visible {
                *newest = (*newest).max(open.remove(order));
                done.insert(*order);
            }
            !visible
        });
    }
}

fn consumer(brokers: &str, partitions: i32) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "tracker").create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topics::ORDER_STATUS.name, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn follow(consumer: &BaseConsumer, codec: &Codec, state: &Mutex<State>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let record = codec.decode(message.payload().unwrap_or_default());
        let Ok(Record::OrderStatusChanged(changed)) = record else { continue };
        if matches!(changed.status, OrderStatus::Routed | OrderStatus::Rejected) {
            let place = (message.partition(), message.offset());
            open(state).finals.insert(changed.order_id, place);
        }
    }
}

async fn look_at_postgres(url: &str, state: &Mutex<State>) {
    let query = "SELECT partition, next_offset FROM sink_offsets
        WHERE sink = 'tracking' AND topic = 'order-status'";
    let mut client = None;
    loop {
        if client.is_none() {
            let connected = tokio::time::timeout(LOOK_WITHIN, postgres::connect(url)).await;
            client = connected.ok().and_then(Result::ok);
        }
        if let Some(connected) = &client {
            match tokio::time::timeout(LOOK_WITHIN, connected.query(query, &[])).await {
                Ok(Ok(rows)) => {
                    open(state).postgres =
                        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                }
                _ => client = None,
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look_at_clickhouse(client: &::clickhouse::Client, state: &Mutex<State>) {
    let query = "SELECT toInt32(kafka_partition), toInt64(max(kafka_offset)) + 1 \
                 FROM order_events GROUP BY kafka_partition";
    loop {
        let look = client.query(query).fetch_all::<(i32, i64)>();
        if let Ok(Ok(rows)) = tokio::time::timeout(LOOK_WITHIN, look).await {
            open(state).clickhouse = rows.into_iter().collect();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
