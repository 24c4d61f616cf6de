//! Webhooks: what courier companies and payment providers tell by themselves.
//!
//! Who calls is proved by a signature over time and body, not by an API key. An event is answered 200 once
//! it stands in the log; whoever hears anything else sends it again.

pub(crate) mod couriers;
pub(crate) mod payments;
mod signature;

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use crate::config::Config;
pub use payments::{Kind, ProviderSettings};
use signature::Age;

/// Which webhooks are believed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// An event signed longer ago, or as far ahead, is refused, seconds.
    pub tolerance_s: i64,
    /// Payment providers by code, as orders name them.
    pub providers: BTreeMap<String, ProviderSettings>,
}

/// Everybody who may send webhooks, with their secrets.
pub(crate) struct Webhooks {
    tolerance_s: i64,
    couriers: couriers::Secrets,
    payments: payments::Providers,
}

impl Webhooks {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            tolerance_s: config.webhooks.tolerance_s,
            couriers: couriers::Secrets::read(&config.webhook_secrets_file)?,
            payments: payments::Providers::new(&config.webhooks.providers)?,
        })
    }

    fn age(&self, now_s: i64) -> Age {
        Age { now_s, tolerance_s: self.tolerance_s }
    }
}
