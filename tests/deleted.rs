//! Records that were deleted before anybody read them are for an operator to decide on: the processors say
//! so and end, instead of going on as if nothing were missing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use events::topics;
use local::Stack;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tests::load;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const PROCESSORS: &str = "processors-1";
/// As many as reach every partition.
const ORDERS: u64 = 40;
const ENDS_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn processors_end_when_orders_were_deleted_before_they_were_read() -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    load::stock_up(&shop).await?;
    ensure!(system.stack.stop(PROCESSORS).await?, "the processors had to be killed");
    order(&shop).await?;
    delete(&system.stack.brokers()).await?;

    let processors = system.stack.component(PROCESSORS)?;
    let began = Instant::now();
    processors.relaunch().await?;
    while processors.pid().is_some() {
        ensure!(
            began.elapsed() < ENDS_WITHIN,
            "the processors go on after {ENDS_WITHIN:?}:\n{}",
            processors.log_tail(20)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last_words = processors.log_tail(20);
    ensure!(last_words.contains("records lost"), "{last_words}");
    system.stack.shutdown().await
}

async fn order(shop: &Shop) -> Result<()> {
    let zipf = load::Zipf::new(load::SKUS);
    for n in 0..ORDERS {
        let body = load::order(&mut load::Random::new(n), &zipf);
        let answer = shop.post(0, "/v1/orders", &format!("deleted-{n}"), &body).await?;
        ensure!(answer.status == 202, "order got {}: {}", answer.status, answer.body);
    }
    Ok(())
}

/// Deletes every order from the log.
async fn delete(brokers: &str) -> Result<()> {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..topics::DEFAULT_PARTITIONS {
        all.add_partition_offset(topics::ORDERS.name, partition, Offset::End)?;
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let answers = client.delete_records(&all, &options).await.context("records not deleted")?;
    for answer in answers.elements() {
        answer.error().context("records not deleted")?;
    }
    Ok(())
}
