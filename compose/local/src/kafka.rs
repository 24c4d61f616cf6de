//! Kafka as its own jars in KRaft mode: every node is broker and controller.
//!
//! One node is the default. Three or more replicate everything three times with
//! two in sync, as production does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::classes::Classes;
use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::tools::JAVA;

/// The folder of jars inside the component's folder.
pub(crate) const LIBS: &str = "libs";
const CHECKPOINT: &str = "bootstrap.checkpoint";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Internal topics have few partitions: each costs a start time and file handles.
const INTERNAL_PARTITIONS: u32 = 8;

const LOG4J: &str = r#"<Configuration status="warn">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1}: %m%n%ex"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config" level="warn"/>
    <Logger name="kafka.server.KafkaConfig" level="warn"/>
    <Root level="info"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"#;

struct Node {
    id: u32,
    port: u16,
    controller_port: u16,
}

/// The nodes of a cluster of `count`, ready to start, all at once.
pub(crate) fn plan(
    home: &Path,
    data: &Path,
    ports: &Ports,
    count: u32,
    classes: Classes,
) -> Result<Vec<Plan>> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        let name = node_name(id, count);
        let port = ports.get(&name)?;
        nodes.push(Node { id, port, controller_port: ports.get(&format!("{name}.controller"))? });
    }
    let cluster = cluster_id(data)?;
    let plan = |node| {
        let mut plan = plan_node(home, data, &nodes, node, &cluster)?;
        classes.configure(&mut plan.spec, home)?;
        Ok(plan)
    };
    nodes.iter().map(plan).collect()
}

fn node_name(id: u32, count: u32) -> String {
    if count == 1 { "kafka".to_owned() } else { format!("kafka-{id}") }
}

fn plan_node(home: &Path, data: &Path, nodes: &[Node], node: &Node, cluster: &str) -> Result<Plan> {
    let name = node_name(node.id, u32::try_from(nodes.len())?);
    let folder = data.join(&name);
    let log_folder = folder.join("log");
    fs::create_dir_all(&log_folder)
        .with_context(|| format!("cannot create {}", log_folder.display()))?;
    format(home, &log_folder, node.id, cluster)?;
    let properties = folder.join("server.properties");
    fs::write(&properties, settings(nodes, node, &log_folder))?;
    let log4j = folder.join("log4j2.xml");
    fs::write(&log4j, LOG4J)?;

    let mut spec = Spec::new(&name, JAVA.find()?, &folder, crate::stack::log_file(data, &name));
    let libs = home.join(LIBS).join("*");
    spec.args = [
        // A broker's garbage dies young: the throughput collector costs least on a small heap.
        "-XX:+UseParallelGC",
        "-Xms512m",
        "-Xmx512m",
        "-Xmn320m",
        "-Djava.awt.headless=true",
    ]
    .map(Into::into)
    .to_vec();
    if nodes.len() > 1 {
        // Brokers that share a small machine, and are killed and started again, spend more on the optimising
        // compiler than it gives back: half of two cores for the first minutes.
        spec.args.push("-XX:TieredStopAtLevel=1".into());
    }
    spec.args.push(format!("-Dlog4j2.configurationFile={}", log4j.display()).into());
    spec.args.extend(["-cp".into(), libs.into(), "kafka.Kafka".into(), properties.into()]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port));
    Ok(Plan {
        spec,
        url: address.to_string(),
        check: Check::Kafka { address, node: i32::try_from(node.id)? },
        ready_within: READY_WITHIN,
    })
}

fn settings(nodes: &[Node], node: &Node, log_folder: &Path) -> String {
    let Node { id, port, controller_port } = node;
    let voters: Vec<String> =
        nodes.iter().map(|n| format!("{}@127.0.0.1:{}", n.id, n.controller_port)).collect();
    let voters = voters.join(",");
    let (replicas, in_sync) = if nodes.len() >= 3 { (3, 2) } else { (1, 1) };
    let log_folder = log_folder.display();
    format!(
        "\
# Written at every start.
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_folder}

# Topics are declared by `tillroll setup`; a typo must not make one.
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions={INTERNAL_PARTITIONS}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions={INTERNAL_PARTITIONS}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
# Topics declare how long they keep records; the registry's journal, which declares
# nothing, must never lose any.
log.retention.ms=-1

# A group starts at once, and a killed member's open transaction ends a second
# after its time-out instead of ten.
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# A killed broker may register again only when its old session is over.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Threads for a node that shares two cores: more only take turns.
num.network.threads=2
num.io.threads=4

# Kept small: many topics on one small node.
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=33554432
"
    )
}

/// Makes an empty log folder a formatted one, as `kafka-storage format` would, but
/// without the second and a half that its JVM takes: the checkpoint it writes is the
/// same for every cluster of a version, so it was made once, when Kafka was fetched.
fn format(home: &Path, log_folder: &Path, node: u32, cluster: &str) -> Result<()> {
    let meta = log_folder.join("meta.properties");
    if meta.exists() {
        return Ok(());
    }
    let template = home.join(CHECKPOINT);
    fs::copy(&template, log_folder.join(CHECKPOINT))
        .with_context(|| format!("cannot copy {}", template.display()))?;
    let directory = random_id();
    let text =
        format!("version=1\nnode.id={node}\ncluster.id={cluster}\ndirectory.id={directory}\n");
    fs::write(&meta, text).with_context(|| format!("cannot write {}", meta.display()))
}

/// The command that formats a throw-away node in `work`, see [`keep_template`].
pub(crate) fn format_template(java: &Path, libs: &Path, work: &Path) -> Result<Command> {
    let node = Node { id: 1, port: 9092, controller_port: 9093 };
    let properties = work.join("template.properties");
    fs::write(&properties, settings(std::slice::from_ref(&node), &node, &template_folder(work)))?;
    let mut command = Command::new(java);
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(libs.join("*"))
        .args(["kafka.tools.StorageTool", "format", "--cluster-id"])
        .arg(random_id())
        .arg("--config")
        .arg(&properties);
    Ok(command)
}

/// Keeps what [`format_template`]'s command made.
pub(crate) fn keep_template(work: &Path, made: &Path) -> Result<()> {
    fs::copy(template_folder(work).join(CHECKPOINT), made.join(CHECKPOINT))
        .context("formatting made no checkpoint")?;
    Ok(())
}

fn template_folder(work: &Path) -> PathBuf {
    work.join("template")
}

/// One id for all nodes of the cluster in `data`, also when it starts again.
fn cluster_id(data: &Path) -> Result<String> {
    let file = data.join("kafka.cluster-id");
    if let Ok(id) = fs::read_to_string(&file) {
        return Ok(id);
    }
    let id = random_id();
    fs::write(&file, &id).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(id)
}

/// Kafka's way to write a UUID. Never with a leading dash, which its tools take for an option.
fn random_id() -> String {
    loop {
        let id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<Node> {
        (1..=count)
            .map(|id| Node { id: id.into(), port: 9000 + id, controller_port: 9100 + id })
            .collect()
    }

    #[test]
    fn three_nodes_replicate_and_vote() {
        let nodes = nodes(3);
        let text = settings(&nodes, &nodes[1], Path::new("/data"));
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "transaction.state.log.min.isr=2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing:\n{text}");
        }
    }

    #[test]
    fn one_node_needs_no_other() {
        let nodes = nodes(1);
        let text = settings(&nodes, &nodes[0], Path::new("/data"));
        assert!(text.contains("default.replication.factor=1\nmin.insync.replicas=1\n"), "{text}");
    }

    #[test]
    fn compose_has_the_same_settings() {
        let nodes = nodes(1);
        let ours = settings(&nodes, &nodes[0], Path::new("/data"));
        let ours: std::collections::BTreeMap<&str, &str> =
            ours.lines().filter_map(|line| line.split_once('=')).collect();
        let mut same = 0;
        for line in include_str!("../../compose.yaml").lines() {
            let Some((name, value)) = line.trim().split_once(": ") else { continue };
            let Some(name) = name.strip_prefix("KAFKA_") else { continue };
            let name = name.to_lowercase().replace('_', ".");
            // Those hold addresses and folders, which differ.
            let place = ["listener", "voters", "log.dirs"].iter().any(|part| name.contains(part));
            if let Some(own) = ours.get(name.as_str()).filter(|_| !place) {
                assert_eq!(value.trim_matches('"'), *own, "{name}");
                same += 1;
            }
        }
        assert_eq!(same, 19, "settings that both have");
    }
}
