//! A whole stack: starts what was asked for in the quickest safe order, hands out
//! addresses, and stops, kills, pauses, resumes and restarts each component by name.
//!
//! Names: `kafka` (`kafka-1`, … if there are several), `registry`, `postgres`,
//! `clickhouse`, `courier-simulator`, `payment-simulator`, `ingest-1`, `processors-1`, `sinks-1`, …

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::{join_all, try_join_all};
use tempfile::TempDir;

use crate::component::{Component, Plan};
use crate::fetch;
use crate::ports::Ports;
use crate::services::{self, Addresses, Environment, Service};
use crate::{classes, courier};

mod builder;

pub use builder::StackBuilder;

/// Set to anything, it keeps the data folder of a stack that would be deleted, to look at its logs.
const KEEP: &str = "TILLROLL_KEEP";

/// Where the output of a component goes.
pub(crate) fn log_file(data: &Path, name: &str) -> PathBuf {
    data.join("logs").join(format!("{name}.log"))
}

/// A running stack. Dropping it kills everything; [`Stack::shutdown`] is gentler.
#[derive(Debug)]
pub struct Stack {
    running: RwLock<Vec<Arc<Component>>>,
    addresses: RwLock<Addresses>,
    overrides: BTreeMap<Service, Environment>,
    ports: Arc<Ports>,
    folder: PathBuf,
    temporary: Option<TempDir>,
    _lock: File,
}

impl Stack {
    /// An empty builder: say which components.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// Downloads everything that is missing, and records Java's class archives.
    /// Starting a stack does so too, for what it needs.
    ///
    /// # Errors
    /// If a tool is missing or a download fails.
    pub async fn prepare() -> Result<()> {
        fetch::ensure_all(&fetch::ALL).await?;
        classes::ensure(true).await;
        Ok(())
    }

    /// Runs `tillroll setup`: topics, schemas, and the simulator's couriers if there are any.
    ///
    /// # Errors
    /// If it fails; its messages are quoted.
    pub async fn setup(&self) -> Result<()> {
        let simulator = self.addresses.read().expect("no panic while locked").couriers.clone();
        if simulator.is_empty() {
            return self.tillroll(&["setup"]).await.map(drop);
        }
        let file = self.folder.join("couriers.toml");
        fs::write(&file, courier::listing(&simulator).await?)?;
        let file = file.display().to_string();
        self.tillroll(&["setup", "--couriers", &file]).await.map(drop)
    }

    /// Runs the operator's command against this stack; what it wrote to stdout.
    ///
    /// # Errors
    /// If it fails; its messages are quoted.
    pub async fn tillroll(&self, arguments: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(services::binary("tillroll")?)
            .args(arguments)
            .envs(self.operator_environment())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run `tillroll`")?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            bail!("`tillroll {}` failed ({}):\n{messages}", arguments.join(" "), output.status);
        }
        String::from_utf8(output.stdout).context("`tillroll` wrote something that isn't text")
    }

    /// Starts `count` more instances of a service at once and waits until all are ready.
    ///
    /// # Errors
    /// If one doesn't start or isn't ready in time; then none of them stays.
    pub async fn start_service(
        &self,
        service: Service,
        count: usize,
    ) -> Result<Vec<Arc<Component>>> {
        let first = self.instances(service).len() + 1;
        let addresses = self.addresses.read().expect("no panic while locked").clone();
        let nothing = Environment::new();
        let overrides = self.overrides.get(&service).unwrap_or(&nothing);
        let plans = (first..first + count)
            .map(|n| services::plan(service, n, &self.folder, &self.ports, &addresses, overrides))
            .collect::<Result<Vec<Plan>>>()?;
        let started = try_join_all(plans.into_iter().map(Component::start)).await?;
        self.add(started.clone());
        self.save()?;
        Ok(started)
    }

    /// A component by name.
    ///
    /// # Errors
    /// If there is none: the message lists the names.
    pub fn component(&self, name: &str) -> Result<Arc<Component>> {
        let all = self.components();
        if let Some(found) = all.iter().find(|component| component.name() == name) {
            return Ok(Arc::clone(found));
        }
        let names: Vec<&str> = all.iter().map(|component| component.name()).collect();
        bail!("there is no component {name}; there are: {}", names.join(", "))
    }

    /// All components, in the order they became ready.
    pub fn components(&self) -> Vec<Arc<Component>> {
        self.running.read().expect("no panic while locked").clone()
    }

    /// The instances of a service.
    pub fn instances(&self, service: Service) -> Vec<Arc<Component>> {
        let mut all = self.components();
        let prefix = format!("{}-", service.name());
        all.retain(|component| component.name().starts_with(&prefix));
        all
    }

    /// Kafka's bootstrap servers: `127.0.0.1:…`, separated by commas.
    ///
    /// # Panics
    /// If the stack was built without Kafka, as the other addresses do for theirs.
    pub fn brokers(&self) -> String {
        self.address("Kafka", |addresses| &addresses.brokers)
    }

    /// The registry's base URL, Confluent's API (`…/apis/ccompat/v7`).
    ///
    /// # Panics
    /// If the stack was built without it.
    pub fn registry_url(&self) -> String {
        self.address("a registry", |addresses| &addresses.registry)
    }

    /// PostgreSQL's URL with user, password and database.
    ///
    /// # Panics
    /// If the stack was built without it.
    pub fn postgres_url(&self) -> String {
        self.address("PostgreSQL", |addresses| &addresses.postgres)
    }

    /// ClickHouse's HTTP URL.
    ///
    /// # Panics
    /// If the stack was built without it.
    pub fn clickhouse_url(&self) -> String {
        self.address("ClickHouse", |addresses| &addresses.clickhouse)
    }

    /// The courier simulator's URL.
    ///
    /// # Panics
    /// If the stack was built without it.
    pub fn courier_simulator_url(&self) -> String {
        self.address("a courier simulator", |addresses| &addresses.couriers)
    }

    /// The payment simulator's URL.
    ///
    /// # Panics
    /// If the stack was built without it.
    pub fn payment_simulator_url(&self) -> String {
        self.address("a payment simulator", |addresses| &addresses.payments)
    }

    /// The URLs of the ingest instances; empty before they are started.
    pub fn ingest_urls(&self) -> Vec<String> {
        self.instances(Service::Ingest).iter().map(|i| i.url().to_owned()).collect()
    }

    /// The file of merchants' hashed keys that ingest reads.
    pub fn keys_file(&self) -> PathBuf {
        self.addresses.read().expect("no panic while locked").keys_file.clone()
    }

    /// The environment in which `tillroll` finds this stack.
    pub fn operator_environment(&self) -> Environment {
        let addresses = services::operator(&self.addresses.read().expect("no panic while locked"));
        let ours = [Service::Ingest, Service::Processors, Service::Sinks].map(|service| {
            let urls: Vec<String> =
                self.instances(service).iter().map(|i| i.url().to_owned()).collect();
            (format!("TILLROLL_{}_URLS", service.name().to_uppercase()), urls.join(","))
        });
        let running = ours.into_iter().filter(|(_, urls)| !urls.is_empty());
        addresses.into_iter().chain(running).collect()
    }

    /// The data folder; logs are in `logs`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks a component to stop. See [`Component::stop`].
    ///
    /// # Errors
    /// If there is no such component or it cannot be signalled.
    pub async fn stop(&self, name: &str) -> Result<bool> {
        self.component(name)?.stop().await
    }

    /// kill -9. See [`Component::kill`].
    ///
    /// # Errors
    /// If there is no such component or it cannot be signalled.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.component(name)?.kill().await
    }

    /// SIGSTOP. See [`Component::pause`].
    ///
    /// # Errors
    /// If there is no such component or it doesn't run.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.component(name)?.pause()
    }

    /// SIGCONT. See [`Component::resume`].
    ///
    /// # Errors
    /// If there is no such component or it doesn't run.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.component(name)?.resume()
    }

    /// Starts a component again and waits until it is ready. See [`Component::restart`].
    ///
    /// # Errors
    /// If there is no such component, or it doesn't become ready.
    pub async fn restart(&self, name: &str) -> Result<Duration> {
        let took = self.component(name)?.restart().await?;
        self.save()?;
        Ok(took)
    }

    /// Stops everything: services first, Kafka last. A stack in a temporary folder
    /// has nothing to save: it is killed.
    ///
    /// # Errors
    /// If a process cannot be signalled; the others are stopped all the same.
    pub async fn shutdown(self) -> Result<()> {
        let all = self.components();
        if self.temporary.is_some() {
            return join_all(all.iter().map(|c| c.kill())).await.into_iter().collect();
        }
        let services = [Service::Ingest, Service::Processors, Service::Sinks];
        let ours = services.map(|service| self.instances(service)).concat();
        let is_kafka = |component: &Component| component.name().starts_with("kafka");
        let is_ours = |component: &Component| ours.iter().any(|o| o.name() == component.name());
        let (brokers, others): (Vec<_>, Vec<_>) =
            all.iter().filter(|c| !is_ours(c)).cloned().partition(|c| is_kafka(c));
        let mut outcome = Ok(());
        for group in [ours.clone(), others, brokers] {
            let results = join_all(group.iter().map(|component| component.stop())).await;
            outcome = outcome.and(results.into_iter().try_for_each(|result| result.map(drop)));
        }
        outcome
    }

    async fn launch(
        &self,
        plan: Plan,
        address: impl FnOnce(&mut Addresses) -> &mut String,
    ) -> Result<()> {
        let component = Component::start(plan).await?;
        let mut addresses = self.addresses.write().expect("no panic while locked");
        component.url().clone_into(address(&mut addresses));
        drop(addresses);
        self.add(vec![component]);
        Ok(())
    }

    fn add(&self, components: Vec<Arc<Component>>) {
        self.running.write().expect("no panic while locked").extend(components);
    }

    fn address(&self, what: &str, pick: impl FnOnce(&Addresses) -> &String) -> String {
        let addresses = self.addresses.read().expect("no panic while locked");
        let found = pick(&addresses);
        assert!(!found.is_empty(), "the stack was built without {what}");
        found.clone()
    }

    fn save(&self) -> Result<()> {
        crate::control::save(&self.folder, &self.components())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Also those that someone still has a handle of: their folder goes now.
        for component in self.components().iter().rev() {
            component.end();
        }
        // Nobody shall look for a stack that is gone.
        let _ = fs::remove_file(crate::control::state_file(&self.folder));
        if let Some(temporary) = &mut self.temporary
            && (std::thread::panicking()
                || std::env::var_os(KEEP).is_some_and(|value| !value.is_empty()))
        {
            temporary.disable_cleanup(true);
            fetch::say(&format!("kept the stack's logs and data: {}", self.folder.display()));
        }
    }
}
