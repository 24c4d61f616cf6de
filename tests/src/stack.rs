//! The whole system on free ports: components, set-up, couriers, an API key, our services.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::Merchant;
use local::{Service, Stack, StackBuilder, services};
use serde::Deserialize;
use tokio::process::Command;

/// The merchant that a new system has.
pub const MERCHANT: &str = "shop";

/// How long a courier may take to answer; the simulator's slowest ordinary answer is 300 ms.
const COURIER_TIMEOUT_MS: i32 = 1000;

/// How many processes of each service.
#[derive(Debug, Clone, Copy)]
pub struct Instances {
    /// Of ingest.
    pub ingest: usize,
    /// Of the processors.
    pub processors: usize,
    /// Of the sinks.
    pub sinks: usize,
}

/// A running system. Dropping it kills everything.
#[derive(Debug)]
pub struct System {
    /// Its components and services by name.
    pub stack: Stack,
    /// Whose API key [`Self::key`] is.
    pub merchant: Merchant,
    /// The secret for `Authorization: Bearer`.
    pub key: String,
}

#[derive(Deserialize)]
struct CourierSettings {
    price_minor: i64,
    currency: String,
}

impl System {
    /// Starts the components and the services, with the simulator's couriers listed and a key for
    /// [`MERCHANT`].
    ///
    /// # Errors
    /// When anything does not start; what was started is stopped again.
    pub async fn start(builder: StackBuilder, instances: Instances) -> Result<Self> {
        let stack = builder.all_components().start().await?;
        let couriers = stack.folder().join("couriers.toml");
        let simulator = stack.courier_simulator_url();
        std::fs::write(&couriers, couriers_file(&simulator).await?)?;
        let file = couriers.display().to_string();
        tillroll(&stack, &["setup", "--couriers", &file]).await?;
        let key = tillroll(&stack, &["keys", "new", "--merchant", MERCHANT]).await?;
        tokio::try_join!(
            stack.start_service(Service::Ingest, instances.ingest),
            stack.start_service(Service::Processors, instances.processors),
            stack.start_service(Service::Sinks, instances.sinks),
        )?;
        let merchant = Merchant::parse(MERCHANT).expect("a plain word");
        Ok(Self { stack, merchant, key: key.trim().to_owned() })
    }

    /// Copies the logs of every component into `folder`, which is made anew.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn save_logs(&self, folder: &Path) -> Result<()> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(self.stack.folder().join("logs"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(())
    }
}

/// Runs the operator's command against a stack and returns what it printed.
///
/// # Errors
/// When it fails; its messages are quoted.
pub async fn tillroll(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let output = Command::new(services::binary("tillroll")?)
        .args(arguments)
        .envs(stack.operator_environment())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run `tillroll`")?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        bail!("`tillroll {}` failed ({}):\n{messages}", arguments.join(" "), output.status);
    }
    String::from_utf8(output.stdout).context("`tillroll` printed something other than text")
}

/// The couriers that the simulator plays, as a file for `tillroll setup`.
async fn couriers_file(simulator: &str) -> Result<String> {
    let settings: std::collections::BTreeMap<String, CourierSettings> = reqwest::Client::new()
        .get(format!("{simulator}/settings"))
        .timeout(Duration::from_secs(10))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await
        .context("the courier simulator's settings cannot be read")?;
    let mut text = String::new();
    for (name, CourierSettings { price_minor, currency }) in settings {
        writeln!(
            text,
            "[[courier]]\ncode = \"{name}\"\nurl = \"{simulator}/{name}\"\n\
             price_minor = {price_minor}\ncurrency = \"{currency}\"\n\
             timeout_ms = {COURIER_TIMEOUT_MS}\n"
        )?;
    }
    Ok(text)
}
