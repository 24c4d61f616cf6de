//! What can be changed while the simulator runs, and its chance.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the providers behave; `PATCH /settings` changes what it names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// From request to answer, ms, at least.
    pub latency_min_ms: u64,
    /// From request to answer, ms, at most.
    pub latency_max_ms: u64,
    /// Authorizations that are refused, 0 to 1.
    pub decline_rate: f64,
    /// Requests that are never answered, 0 to 1.
    pub timeout_rate: f64,
    /// Of those and of failures, the part that is performed all the same, 0 to 1.
    pub done_rate: f64,
    /// Requests that are answered 500, 0 to 1.
    pub failure_rate: f64,
    /// Every request is answered 503 and nothing is done.
    pub down: bool,
    /// Webhooks that are sent twice, 0 to 1.
    pub webhook_double_rate: f64,
    /// Webhooks that are sent before the response, 0 to 1.
    pub webhook_early_rate: f64,
    /// A webhook that does not come early is sent after so many ms, at most.
    pub webhook_delay_max_ms: u64,
    /// Where to: `stripe` or `gift` is appended; empty: none is sent.
    pub webhook_url: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency_min_ms: 20,
            latency_max_ms: 80,
            decline_rate: 0.0,
            timeout_rate: 0.0,
            done_rate: 0.5,
            failure_rate: 0.0,
            down: false,
            webhook_double_rate: 0.0,
            webhook_early_rate: 0.2,
            webhook_delay_max_ms: 500,
            webhook_url: String::new(),
        }
    }
}

impl Settings {
    /// These settings with the fields of `change` put over them, checked.
    ///
    /// # Errors
    /// Names the field that is unknown or out of range.
    pub fn patched(&self, change: &Value) -> Result<Self, String> {
        let mut value = serde_json::to_value(self).expect("settings are plain data");
        let (Some(fields), Some(changes)) = (value.as_object_mut(), change.as_object()) else {
            return Err("give an object".into());
        };
        fields.extend(changes.clone());
        let settings: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        for (name, rate) in [
            ("decline_rate", settings.decline_rate),
            ("timeout_rate", settings.timeout_rate),
            ("done_rate", settings.done_rate),
            ("failure_rate", settings.failure_rate),
            ("webhook_double_rate", settings.webhook_double_rate),
            ("webhook_early_rate", settings.webhook_early_rate),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} is {rate}: give 0 to 1"));
            }
        }
        if settings.latency_min_ms > settings.latency_max_ms {
            return Err("latency_min_ms is above latency_max_ms".into());
        }
        Ok(settings)
    }
}

/// Splitmix64: enough chance for a simulator.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with this probability.
    pub(crate) fn hits(&mut self, rate: f64) -> bool {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < rate
    }

    /// Evenly from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_what_it_names_and_faults_are_named() {
        let before = Settings::default();
        let after = before.patched(&json!({"down": true})).unwrap();
        assert_eq!(Settings { down: false, ..after }, before);
        for (change, word) in [
            (json!({"decline_rate": 2}), "decline_rate"),
            (json!({"colour": 1}), "colour"),
            (json!({"latency_min_ms": 900}), "latency_min_ms"),
        ] {
            assert!(before.patched(&change).unwrap_err().contains(word));
        }
    }
}
