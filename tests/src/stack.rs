//! The whole system on free ports: components, set-up, couriers, an API key, our services.

use std::path::Path;

use anyhow::Result;
use events::Merchant;
use local::{Service, Stack, StackBuilder};

/// The merchant that a new system has.
pub const MERCHANT: &str = "shop";

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

impl System {
    /// Starts the components and the services, with the simulator's couriers listed and a key for
    /// [`MERCHANT`].
    ///
    /// # Errors
    /// When anything does not start; what was started is stopped again.
    pub async fn start(builder: StackBuilder, instances: Instances) -> Result<Self> {
        let stack = builder.all_components().start().await?;
        stack.setup().await?;
        let key = stack.tillroll(&["keys", "new", "--merchant", MERCHANT]).await?;
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
