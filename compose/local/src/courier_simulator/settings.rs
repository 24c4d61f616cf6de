//! What can be changed about a courier while the simulator runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An inclusive range; which unit is said by the field that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least value.
    pub min: u64,
    /// The greatest value; never below `min`.
    pub max: u64,
}

impl std::str::FromStr for Range {
    type Err = String;

    /// Reads `50-300`, or `50` for exactly 50.
    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let number = |part: &str| part.trim().parse::<u64>();
        match (number(min), number(max)) {
            (Ok(min), Ok(max)) if min <= max => Ok(Range { min, max }),
            _ => Err(format!("\"{text}\" is no range: write min-max, such as 50-300")),
        }
    }
}

/// How a courier behaves as a whole; the rates of [`Settings`] come on top of `normal`, `slow` and
/// the good phase of `flap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As its rates say.
    Normal,
    /// Takes calls and never answers.
    Hang,
    /// Answers 503 to every call.
    Error,
    /// Latency times `slow_factor`.
    Slow,
    /// Turns between normal and error every `flap_ms`, normal first.
    Flap,
}

/// All settings of one courier; [`Settings::checked`] tells what is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Price of a consignment in minor units of `currency`; 0 or more.
    pub price_minor: i64,
    /// ISO 4217 code.
    #[serde(default = "Settings::default_currency")]
    pub currency: String,
    /// Time from a call to its answer, ms; drawn evenly.
    #[serde(default = "Settings::default_latency")]
    pub latency_ms: Range,
    /// Share of calls answered 500, nothing done; 0 to 1.
    #[serde(default)]
    pub failure_rate: f64,
    /// Share of orders this courier refuses with 422; the same order is refused again. 0 to 1.
    #[serde(default)]
    pub refusal_rate: f64,
    /// Share of calls never answered; 0 to 1.
    #[serde(default)]
    pub timeout_rate: f64,
    /// Of the calls never answered (by rate or by `hang`), the share that is carried out; 0 to 1.
    #[serde(default = "Settings::default_timeout_done_rate")]
    pub timeout_done_rate: f64,
    /// How the courier behaves as a whole.
    #[serde(default = "Settings::default_mode")]
    pub mode: Mode,
    /// Factor on the latency in mode `slow`; 1 or more.
    #[serde(default = "Settings::default_slow_factor")]
    pub slow_factor: u64,
    /// Length of a phase in mode `flap`, ms; 1 or more.
    #[serde(default = "Settings::default_flap_ms")]
    pub flap_ms: u64,
    /// Takes no bookings (503 with Retry-After at once); voids and lookups go on.
    #[serde(default)]
    pub paused: bool,
    /// Bookings allowed in a second, 429 with Retry-After above; null is unlimited.
    #[serde(default)]
    pub rate_limit_per_s: Option<u32>,
    /// Promised delivery: hours after the booking.
    #[serde(default = "Settings::default_promise_hours")]
    pub promise_hours: u32,
}

impl Settings {
    /// A courier that does everything right at this price, in GBP, within 50–300 ms.
    pub fn new(price_minor: i64, promise_hours: u32) -> Self {
        Settings {
            price_minor,
            currency: Self::default_currency(),
            latency_ms: Self::default_latency(),
            failure_rate: 0.0,
            refusal_rate: 0.0,
            timeout_rate: 0.0,
            timeout_done_rate: Self::default_timeout_done_rate(),
            mode: Mode::Normal,
            slow_factor: Self::default_slow_factor(),
            flap_ms: Self::default_flap_ms(),
            paused: false,
            rate_limit_per_s: None,
            promise_hours,
        }
    }

    /// These settings with the fields of `change` put over them, checked. Unknown fields and
    /// values out of range are errors that name the field.
    pub fn patched(&self, change: &Value) -> Result<Self, String> {
        let mut value = serde_json::to_value(self).expect("settings are plain data");
        merge(&mut value, change);
        Self::parsed(value)
    }

    /// Settings from JSON, where every field but `price_minor` has a default; checked.
    pub fn parsed(value: Value) -> Result<Self, String> {
        serde_json::from_value::<Settings>(value).map_err(|error| error.to_string())?.checked()
    }

    /// Itself, or what is out of range.
    pub fn checked(self) -> Result<Self, String> {
        let rates = [
            ("failure_rate", self.failure_rate),
            ("refusal_rate", self.refusal_rate),
            ("timeout_rate", self.timeout_rate),
            ("timeout_done_rate", self.timeout_done_rate),
        ];
        for (name, rate) in rates {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} is {rate}: give 0 to 1"));
            }
        }
        let hour_ms = 3_600_000;
        let faults = [
            (self.price_minor < 0, "price_minor is negative"),
            (
                self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()),
                "currency is not three capital letters",
            ),
            (self.latency_ms.min > self.latency_ms.max, "latency_ms: min is above max"),
            (self.latency_ms.max > hour_ms, "latency_ms: max is above an hour"),
            (!(1..=10_000).contains(&self.slow_factor), "slow_factor: give 1 to 10000"),
            (self.flap_ms == 0, "flap_ms is 0"),
            (self.promise_hours > 24 * 365, "promise_hours is above a year"),
        ];
        match faults.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err((*what).to_owned()),
            None => Ok(self),
        }
    }

    fn default_currency() -> String {
        "GBP".to_owned()
    }

    fn default_latency() -> Range {
        Range { min: 50, max: 300 }
    }

    fn default_timeout_done_rate() -> f64 {
        0.5
    }

    fn default_mode() -> Mode {
        Mode::Normal
    }

    fn default_slow_factor() -> u64 {
        20
    }

    fn default_flap_ms() -> u64 {
        5_000
    }

    fn default_promise_hours() -> u32 {
        72
    }
}

/// Puts `change` over `value`, objects field by field (RFC 7396, but null is a value here).
fn merge(value: &mut Value, change: &Value) {
    match (value, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name.as_str()).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let before = Settings::new(450, 72);
        let after = before.patched(&json!({"latency_ms": {"max": 900}, "mode": "flap"})).unwrap();
        assert_eq!(after.latency_ms, Range { min: 50, max: 900 });
        assert_eq!(after.mode, Mode::Flap);
        assert_eq!(Settings { latency_ms: before.latency_ms, mode: before.mode, ..after }, before);
    }

    #[test]
    fn a_limit_is_set_and_taken_away() {
        let limited = Settings::new(1, 1).patched(&json!({"rate_limit_per_s": 5})).unwrap();
        assert_eq!(limited.rate_limit_per_s, Some(5));
        let free = limited.patched(&json!({"rate_limit_per_s": null})).unwrap();
        assert_eq!(free.rate_limit_per_s, None);
    }

    #[test]
    fn faults_are_named() {
        let settings = Settings::new(450, 72);
        for (change, word) in [
            (json!({"failure_rate": 1.5}), "failure_rate"),
            (json!({"latency_ms": {"min": 400}}), "latency_ms"),
            (json!({"currency": "pounds"}), "currency"),
            (json!({"colour": "red"}), "colour"),
            (json!({"mode": "sleepy"}), "sleepy"),
            (json!({"price_minor": -1}), "price_minor"),
        ] {
            let fault = settings.patched(&change).unwrap_err();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
