//! What a stack shall consist of, and starting it: Kafka, PostgreSQL, ClickHouse and the
//! couriers at once, the registry when Kafka is up.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;

use super::Stack;
use crate::classes::Classes;
use crate::component::Component;
use crate::fetch::{self, Part};
use crate::ports::Ports;
use crate::services::{Addresses, Environment, Service};
use crate::{classes, clickhouse, courier, kafka, payment, postgres, registry};

/// What a stack shall consist of.
#[derive(Debug, Clone, Default)]
pub struct StackBuilder {
    data: Option<PathBuf>,
    brokers: u32,
    registry: bool,
    postgres: bool,
    clickhouse: bool,
    couriers: bool,
    payments: bool,
    classes: Classes,
    keys_file: Option<PathBuf>,
    overrides: BTreeMap<Service, Environment>,
}

impl StackBuilder {
    /// Kafka with this many nodes; with three or more everything is replicated three times.
    #[must_use]
    pub fn kafka(mut self, nodes: u32) -> Self {
        self.brokers = nodes;
        self
    }

    /// The schema registry, and Kafka, which keeps its data.
    #[must_use]
    pub fn registry(mut self) -> Self {
        self.registry = true;
        self.brokers = self.brokers.max(1);
        self
    }

    /// PostgreSQL.
    #[must_use]
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// ClickHouse.
    #[must_use]
    pub fn clickhouse(mut self) -> Self {
        self.clickhouse = true;
        self
    }

    /// The courier simulator.
    #[must_use]
    pub fn courier_simulator(mut self) -> Self {
        self.couriers = true;
        self
    }

    /// The payment simulator, with the providers `stripe` and `gift`; their webhooks go to the first
    /// ingest process.
    #[must_use]
    pub fn payment_simulator(mut self) -> Self {
        self.payments = true;
        self
    }

    /// Everything but our own services, which are started by [`Stack::start_service`].
    #[must_use]
    pub fn all_components(self) -> Self {
        self.registry().postgres().clickhouse().courier_simulator().payment_simulator()
    }

    /// Keeps everything in this folder, and continues from what is there. Without
    /// it the stack lives in a temporary folder, deleted when it is dropped.
    #[must_use]
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// The file of merchants' hashed keys; `keys.json` in the data folder by default.
    #[must_use]
    pub fn keys_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.keys_file = Some(file.into());
        self
    }

    /// Sets an environment variable of every instance of a service, over the stack's own.
    #[must_use]
    pub fn service_env(mut self, service: Service, name: &str, value: impl Into<String>) -> Self {
        self.overrides.entry(service).or_default().insert(name.to_owned(), value.into());
        self
    }

    /// The stack that records class archives.
    pub(crate) fn recording(mut self, registry: bool) -> Self {
        self.classes = Classes::Record;
        self.registry = registry;
        self.kafka(1)
    }

    /// Fetches what is missing, starts everything and waits until it is ready.
    ///
    /// # Errors
    /// If something cannot be fetched or started; what was started is stopped again.
    pub async fn start(self) -> Result<Stack> {
        fetch::ensure_all(&self.parts()).await?;
        if self.brokers > 0 && self.classes == Classes::Use {
            classes::ensure(self.registry).await;
        }
        let (folder, temporary) = match &self.data {
            Some(folder) => (std::path::absolute(folder)?, None),
            None => {
                let temp = tempfile::Builder::new().prefix("tillroll-").tempdir()?;
                // PostgreSQL may run as someone else, who must get through.
                fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755))?;
                (temp.path().to_owned(), Some(temp))
            }
        };
        fs::create_dir_all(folder.join("logs"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = lock(&folder)?;
        let ports = Arc::new(Ports::open(&folder)?);
        let keys_file = self.keys_file.clone().unwrap_or_else(|| folder.join("keys.json"));
        let stack = Stack {
            running: RwLock::default(),
            addresses: RwLock::new(Addresses { keys_file, ..Default::default() }),
            overrides: self.overrides.clone(),
            ports,
            folder,
            temporary,
            _lock: lock,
        };
        let (a, b, c, d, e) = tokio::join!(
            self.start_kafka_and_registry(&stack),
            self.start_postgres(&stack),
            self.start_clickhouse(&stack),
            self.start_couriers(&stack),
            self.start_payments(&stack),
        );
        a.and(b).and(c).and(d).and(e)?;
        stack.save()?;
        Ok(stack)
    }

    fn parts(&self) -> Vec<Part> {
        [
            (self.brokers > 0, Part::Kafka),
            (self.registry, Part::Registry),
            (self.postgres, Part::Postgres),
            (self.clickhouse, Part::ClickHouse),
        ]
        .into_iter()
        .filter_map(|(wanted, part)| wanted.then_some(part))
        .collect()
    }

    async fn start_kafka_and_registry(&self, stack: &Stack) -> Result<()> {
        if self.brokers == 0 {
            return Ok(());
        }
        let home = Part::Kafka.path()?;
        let (data, ports, classes) = (&stack.folder, &stack.ports, self.classes);
        let plans = kafka::plan(&home, data, ports, self.brokers, classes)?;
        // A majority must be up before any is ready.
        let nodes = try_join_all(plans.into_iter().map(Component::start)).await?;
        let brokers: Vec<&str> = nodes.iter().map(|node| node.url()).collect();
        let brokers = brokers.join(",");
        stack.addresses.write().expect("no panic while locked").brokers.clone_from(&brokers);
        stack.add(nodes);
        if self.registry {
            let home = Part::Registry.path()?;
            let plan = registry::plan(&home, data, ports, &brokers, classes)?;
            stack.launch(plan, |addresses| &mut addresses.registry).await?;
        }
        Ok(())
    }

    async fn start_postgres(&self, stack: &Stack) -> Result<()> {
        if !self.postgres {
            return Ok(());
        }
        let home = Part::Postgres.path()?;
        let (folder, ports) = (stack.folder.clone(), Arc::clone(&stack.ports));
        let making = tokio::task::spawn_blocking(move || postgres::plan(&home, &folder, &ports));
        let plan = making.await.context("making PostgreSQL's data folder panicked")??;
        stack.launch(plan, |addresses| &mut addresses.postgres).await
    }

    async fn start_clickhouse(&self, stack: &Stack) -> Result<()> {
        if !self.clickhouse {
            return Ok(());
        }
        let plan = clickhouse::plan(&Part::ClickHouse.path()?, &stack.folder, &stack.ports)?;
        stack.launch(plan, |addresses| &mut addresses.clickhouse).await
    }

    async fn start_couriers(&self, stack: &Stack) -> Result<()> {
        if !self.couriers {
            return Ok(());
        }
        let plan = courier::plan(&stack.folder, &stack.ports)?;
        stack.launch(plan, |addresses| &mut addresses.couriers).await
    }

    async fn start_payments(&self, stack: &Stack) -> Result<()> {
        if !self.payments {
            return Ok(());
        }
        let plan = payment::plan(&stack.folder, &stack.ports)?;
        stack.launch(plan, |addresses| &mut addresses.payments).await
    }
}

/// Two stacks in one folder would ruin each other's data.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("stack.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("a stack is running in {} already", folder.display());
    }
    Ok(file)
}
