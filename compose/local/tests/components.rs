//! The real components: killed, paused and restarted, they keep what they were given.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use local::{Stack, fetch};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

const TOPIC: &str = "kept";
const SUBJECT: &str = "kept-Record";

#[tokio::test(flavor = "multi_thread")]
async fn killed_components_come_back_with_their_data() -> Result<()> {
    let started = Instant::now();
    let stack = Stack::builder().registry().postgres().start().await?;
    for component in stack.components() {
        report(component.name(), "first start", component.took());
    }
    report("kafka, registry, postgres", "all ready", started.elapsed());

    create_topic(&stack.brokers(), 1).await?;
    produce(&stack.brokers(), 3).await?;
    let id = register(&stack.registry_url()).await?;
    let version = registered(&stack.registry_url()).await?;
    execute(&stack.postgres_url(), "create table kept as select 42 as answer").await?;

    for name in ["registry", "kafka", "postgres"] {
        stack.kill(name).await?;
        let component = stack.component(name)?;
        ensure!(component.pid().is_none(), "{name} is dead");
        ensure!(component.check().await.is_err(), "{name} doesn't answer when it is dead");
        report(name, "after kill -9", stack.restart(name).await?);
    }

    ensure!(end_offset(&stack.brokers())? == 3, "the acknowledged records are there");
    produce(&stack.brokers(), 2).await?;
    ensure!(end_offset(&stack.brokers())? == 5, "and it takes more");
    ensure!(registered(&stack.registry_url()).await? == version, "the schema is as it was");
    ensure!(register(&stack.registry_url()).await? == id, "the schema has kept its id");
    let answer = execute(&stack.postgres_url(), "select answer from kept").await?;
    ensure!(answer.as_deref() == Some("42"), "the row is there, not {answer:?}");

    // With Kafka: it forgets its copy, and reads the journal again.
    stack.stop("registry").await?;
    stack.restart("kafka").await?;
    report("registry", "after a stop", stack.restart("registry").await?);
    ensure!(registered(&stack.registry_url()).await? == version, "still as it was");
    stack.shutdown().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_component_answers_nobody_and_goes_on() -> Result<()> {
    let stack = Stack::builder().kafka(1).postgres().start().await?;
    for name in ["kafka", "postgres"] {
        let component = stack.component(name)?;
        let pid = component.pid();
        stack.pause(name)?;
        ensure!(component.check().await.is_err(), "{name} must not answer while it is paused");
        stack.resume(name)?;
        component.wait_ready().await?;
        ensure!(component.pid() == pid, "{name} is the same process");
    }
    let folder = stack.folder().to_owned();
    let pids: Vec<u32> = stack.components().iter().filter_map(|c| c.pid()).collect();
    drop(stack);
    ensure!(!folder.exists(), "a temporary folder goes with its stack");
    for pid in pids {
        ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is gone");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_serve_on_when_one_is_killed() -> Result<()> {
    let stack = Stack::builder().kafka(3).start().await?;
    create_topic(&stack.brokers(), 3).await?;
    produce(&stack.brokers(), 1).await?;
    stack.kill("kafka-2").await?;
    produce(&stack.brokers(), 1).await.context("two of three must be enough")?;
    report("kafka-2", "after kill -9", stack.restart("kafka-2").await?);
    ensure!(end_offset(&stack.brokers())? == 2, "both records are there");
    stack.shutdown().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_is_taken_up_again_and_belongs_to_one_stack() -> Result<()> {
    let temp = tempfile::Builder::new().prefix("tillroll-").tempdir()?;
    let data = temp.path().join("data");
    let builder = Stack::builder().kafka(1).data(&data);
    let stack = builder.clone().start().await?;
    create_topic(&stack.brokers(), 1).await?;
    produce(&stack.brokers(), 1).await?;
    let brokers = stack.brokers();
    let refusal = builder.clone().start().await.err().context("two stacks in one folder")?;
    ensure!(refusal.to_string().contains("is running"), "unclear: {refusal:#}");
    stack.shutdown().await?;

    let stack = builder.start().await?;
    ensure!(stack.brokers() == brokers, "the address is the same");
    ensure!(end_offset(&stack.brokers())? == 1, "the record is there");
    stack.shutdown().await
}

fn report(name: &str, what: &str, took: Duration) {
    fetch::say(&format!("{name}: {what}: ready in {:.1} s", took.as_secs_f64()));
}

async fn create_topic(brokers: &str, replicas: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(replicas));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for result in admin.create_topics([&topic], &options).await? {
        result.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
    }
    Ok(())
}

async fn produce(brokers: &str, count: usize) -> Result<()> {
    let producer: FutureProducer = client(brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "30000")
        .create()?;
    for _ in 0..count {
        let record = FutureRecord::<str, str>::to(TOPIC).payload("x");
        producer.send(record, Duration::ZERO).await.map_err(|(error, _)| error)?;
    }
    Ok(())
}

fn end_offset(brokers: &str) -> Result<i64> {
    let consumer: BaseConsumer = client(brokers).create()?;
    Ok(consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(20))?.1)
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Registers a schema (again); its id.
async fn register(registry: &str) -> Result<i64> {
    let schema = r#"{"type":"record","name":"Record","fields":[{"name":"a","type":"long"}]}"#;
    let answer: Value = reqwest::Client::new()
        .post(format!("{registry}/subjects/{SUBJECT}/versions"))
        .json(&json!({ "schema": schema }))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    answer["id"].as_i64().with_context(|| format!("no id in {answer}"))
}

/// The latest version as the registry gives it out: id, version and schema.
async fn registered(registry: &str) -> Result<Value> {
    let url = format!("{registry}/subjects/{SUBJECT}/versions/latest");
    Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
}

/// Runs SQL; the first column of the first row, if there is one.
async fn execute(url: &str, sql: &str) -> Result<Option<String>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let messages = client.simple_query(sql).await?;
    connection.abort();
    Ok(messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
