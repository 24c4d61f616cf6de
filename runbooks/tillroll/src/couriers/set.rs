//! `tillroll couriers set`: the companies as they are from now on.
//!
//! A courier is a command in the log of every `couriers` partition, so each task knows from which
//! record on it is to be asked, and a redone batch decides as the first time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use events::{Codec, CourierCode, CourierListed, Currency, Record};
use serde::{Deserialize, Serialize};

use super::broadcast;
use crate::connection::Connection;
use crate::output;

const LONGEST_TIMEOUT_MS: i32 = 60_000;

/// The couriers file cannot be used: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", file.display())]
pub(crate) struct Unusable {
    file: PathBuf,
    detail: String,
}

/// A checked couriers file.
#[derive(Debug)]
pub(crate) struct File(Vec<CourierListed>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    courier: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    code: String,
    url: String,
    price_minor: i64,
    currency: String,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: i32,
    #[serde(default)]
    paused: bool,
}

fn default_timeout_ms() -> i32 {
    1000
}

/// What was appended to every partition.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    courier: String,
    url: String,
    price_minor: i64,
    currency: String,
    timeout_ms: i32,
    paused: bool,
    partitions: i32,
}

/// Lists the couriers of a file.
///
/// # Errors
/// [`Unusable`] before anything was sent; otherwise Kafka or the registry doesn't answer.
pub(super) async fn run(connection: &Connection, json: bool, file: &Path) -> Result<()> {
    let brokers = connection.brokers()?;
    let registry = connection.registry()?;
    let file = File::read(file)?;
    let codec = wire::registry::codec(&registry).await?;
    let listed = append(&brokers, &codec, file).await?;
    if json {
        return output::data(&serde_json::to_string(&listed)?);
    }
    for one in &listed {
        let Listed { courier, price_minor, currency, timeout_ms, url, .. } = one;
        let paused = if one.paused { "  paused" } else { "" };
        output::data(&format!(
            "{courier:<16} {price_minor:>8} {currency}  {timeout_ms:>5} ms  {url}{paused}"
        ))?;
    }
    Ok(())
}

impl File {
    /// Reads and checks a couriers file.
    ///
    /// # Errors
    /// [`Unusable`], naming the courier and the field.
    pub(crate) fn read(path: &Path) -> Result<Self, Unusable> {
        let unusable = |detail| Unusable { file: path.to_owned(), detail };
        let text = std::fs::read_to_string(path).map_err(|e| unusable(e.to_string()))?;
        parse(&text).map(Self).map_err(unusable)
    }
}

fn parse(text: &str) -> Result<Vec<CourierListed>, String> {
    let document: Document = toml::from_str(text).map_err(|e| e.to_string())?;
    if document.courier.is_empty() {
        return Err("lists no courier: add a [[courier]]".to_owned());
    }
    let mut codes = BTreeSet::new();
    let mut listed = Vec::new();
    for entry in document.courier {
        if !codes.insert(entry.code.clone()) {
            return Err(format!("courier {:?} stands in it twice", entry.code));
        }
        let code = entry.code.clone();
        listed.push(checked(entry).map_err(|fault| format!("courier {code:?}: {fault}"))?);
    }
    Ok(listed)
}

fn checked(entry: Entry) -> Result<CourierListed, String> {
    let courier = CourierCode::parse(&entry.code).map_err(|e| format!("code {e}"))?;
    let currency = Currency::parse(&entry.currency).map_err(|e| format!("currency {e}"))?;
    let address = entry.url.strip_prefix("http://").or(entry.url.strip_prefix("https://"));
    if address.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err("url must start with http:// or https:// and name a host".to_owned());
    }
    if entry.price_minor < 0 {
        return Err("price_minor must be 0 or more".to_owned());
    }
    if !(1..=LONGEST_TIMEOUT_MS).contains(&entry.timeout_ms) {
        return Err(format!("timeout_ms must be 1 to {LONGEST_TIMEOUT_MS}"));
    }
    Ok(CourierListed {
        courier,
        url: entry.url.trim_end_matches('/').into(),
        price_minor: entry.price_minor,
        currency,
        timeout_ms: entry.timeout_ms,
        paused: entry.paused,
    })
}

/// Appends every courier to every partition of `couriers`, each in the order of the file.
///
/// # Errors
/// When Kafka doesn't acknowledge; the command can be repeated.
pub(crate) async fn append(brokers: &str, codec: &Codec, file: File) -> Result<Vec<Listed>> {
    let records: Vec<(String, Record)> =
        file.0.iter().map(|one| (one.courier.to_string(), one.clone().into())).collect();
    let partitions = broadcast::append(brokers, codec, &records).await?;
    let listed = |courier: CourierListed| Listed {
        courier: courier.courier.to_string(),
        url: courier.url.to_string(),
        price_minor: courier.price_minor,
        currency: courier.currency.to_string(),
        timeout_ms: courier.timeout_ms,
        paused: courier.paused,
        partitions,
    };
    Ok(file.0.into_iter().map(listed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWIFT: &str = "[[courier]]\ncode = \"swift\"\nurl = \"http://localhost:1/swift/\"\n\
                         price_minor = 895\ncurrency = \"GBP\"\n";

    #[test]
    fn defaults_fill_what_the_file_leaves_out() {
        let listed = parse(SWIFT).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].url, "http://localhost:1/swift");
        assert_eq!((listed[0].timeout_ms, listed[0].paused), (1000, false));
    }

    #[test]
    fn a_fault_names_the_courier_and_the_field() {
        let with = |from: &str, to: &str| SWIFT.replace(from, to);
        let twice = format!("{SWIFT}{SWIFT}");
        for (text, expected) in [
            ("".to_owned(), "lists no courier"),
            (with("895", "-1"), "courier \"swift\": price_minor"),
            (with("\"GBP\"", "\"gbp\""), "courier \"swift\": currency"),
            (with("http://localhost:1", ""), "courier \"swift\": url"),
            (with("\"swift\"", "\"a/b\""), "courier \"a/b\": code"),
            (format!("{SWIFT}timeout_ms = 0\n"), "courier \"swift\": timeout_ms"),
            (format!("{SWIFT}prize = 1\n"), "prize"),
            (twice, "twice"),
        ] {
            let fault = parse(&text).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
