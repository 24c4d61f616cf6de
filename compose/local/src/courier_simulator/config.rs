//! Flags and file → configuration. Flags win over the file, the file over what is built in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use super::settings::{Range, Settings};

/// Everything the simulator starts with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Decides every draw; the same seed and the same calls give the same outcomes.
    pub seed: u64,
    /// Bookings remembered for each courier, about 100 bytes each; the oldest are forgotten first.
    pub keep_bookings: usize,
    /// The couriers by name.
    pub couriers: BTreeMap<String, Settings>,
}

impl Default for Config {
    /// Four couriers on a free port, `budget` the cheapest.
    fn default() -> Self {
        let couriers = [
            ("swift", Settings::new(895, 24)),
            ("royal", Settings::new(595, 48)),
            ("parcelo", Settings::new(450, 72)),
            ("budget", Settings::new(325, 96)),
        ];
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            keep_bookings: 5_000_000,
            couriers: couriers.map(|(name, settings)| (name.to_owned(), settings)).into(),
        }
    }
}

/// The command line of `courier-simulator`.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "courier-simulator", about = "Several courier companies behind one HTTP server")]
pub struct Arguments {
    /// Address to listen on; port 0 takes a free one, told on stdout [default: 127.0.0.1:0]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// TOML file: `listen`, `seed`, `keep_bookings`, `latency_ms`, `[couriers.<name>]` with settings
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Latency of all couriers, ms, such as 50-300
    #[arg(long)]
    pub latency_ms: Option<Range>,
    /// Decides every draw [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Bookings remembered for each courier [default: 5000000]
    #[arg(long)]
    pub keep_bookings: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    seed: Option<u64>,
    keep_bookings: Option<usize>,
    latency_ms: Option<Range>,
    /// Replaces the built-in couriers when given.
    couriers: Option<BTreeMap<String, Value>>,
}

impl Arguments {
    /// The configuration these flags and their file describe; errors name the field.
    pub fn config(self) -> anyhow::Result<Config> {
        let text = match &self.config {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("reading {}: does it exist?", path.display()))?,
            None => String::new(),
        };
        let mut config = parsed(&text)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.seed = self.seed.unwrap_or(config.seed);
        config.keep_bookings = self.keep_bookings.unwrap_or(config.keep_bookings);
        if let Some(range) = self.latency_ms {
            config.couriers.values_mut().for_each(|settings| settings.latency_ms = range);
        }
        Ok(config)
    }
}

fn parsed(text: &str) -> anyhow::Result<Config> {
    let file: File = toml::from_str(text).context("the configuration file")?;
    let mut config = Config::default();
    config.listen = file.listen.unwrap_or(config.listen);
    config.seed = file.seed.unwrap_or(config.seed);
    config.keep_bookings = file.keep_bookings.unwrap_or(config.keep_bookings);
    if let Some(range) = file.latency_ms {
        config.couriers.values_mut().for_each(|settings| settings.latency_ms = range);
    }
    if let Some(couriers) = file.couriers {
        let known = std::mem::take(&mut config.couriers);
        for (name, given) in couriers {
            check_name(&name).map_err(anyhow::Error::msg)?;
            let settings = match known.get(&name) {
                Some(settings) => settings.patched(&given),
                None => Settings::parsed(with_latency(given, file.latency_ms)),
            };
            let settings = settings.map_err(|fault| anyhow::anyhow!("couriers.{name}: {fault}"))?;
            config.couriers.insert(name, settings);
        }
        if config.couriers.is_empty() {
            bail!("couriers is empty: leave it out for the built-in ones");
        }
    }
    Ok(config)
}

fn with_latency(mut given: Value, range: Option<Range>) -> Value {
    if let (Some(fields), Some(range)) = (given.as_object_mut(), range) {
        let range = serde_json::to_value(range).expect("a range is plain data");
        fields.entry("latency_ms").or_insert(range);
    }
    given
}

/// Whether a courier may have this name: it is a path segment and starts consignment ids.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=32).contains(&name.len()) && name.bytes().all(plain);
    if !fits || ["settings", "ledger", "livez"].contains(&name) {
        return Err(format!("\"{name}\" can't name a courier: use 1 to 32 of a-z, 0-9 and -"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_changes_built_in_couriers_and_adds_others() {
        let config = parsed(
            "seed = 9\nlatency_ms = { min = 1, max = 2 }\n\
             [couriers.budget]\nfailure_rate = 0.5\n\
             [couriers.night-owl]\nprice_minor = 777\ncurrency = \"EUR\"\n",
        )
        .unwrap();
        assert_eq!(config.seed, 9);
        assert_eq!(config.couriers.len(), 2);
        let budget = &config.couriers["budget"];
        assert_eq!((budget.price_minor, budget.failure_rate), (325, 0.5));
        let owl = &config.couriers["night-owl"];
        assert_eq!((owl.price_minor, owl.currency.as_str()), (777, "EUR"));
        assert_eq!(owl.latency_ms, Range { min: 1, max: 2 });
    }

    #[test]
    fn faults_in_the_file_are_errors() {
        for text in ["sed = 1", "[couriers.x]\nprice_minor = -1", "[couriers.ledger]\n"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert_eq!(parsed("").unwrap().couriers.len(), 4);
    }
}
