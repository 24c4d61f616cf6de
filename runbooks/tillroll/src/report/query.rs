//! A report, asked of ClickHouse over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::pack::Report;

/// The longest a report may take; the server stops the analyst's queries sooner.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where the reports are. The password comes from the environment alone: flags are seen by others.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Database {
    /// ClickHouse's HTTP address [env: CLICKHOUSE_URL] [default: http://127.0.0.1:8123]
    #[arg(long)]
    clickhouse: Option<String>,
    /// User; its password comes from CLICKHOUSE_PASSWORD [env: CLICKHOUSE_USER] [default: analyst]
    #[arg(long)]
    user: Option<String>,
    /// Database of the reports
    #[arg(long, default_value = "tillroll")]
    database: String,
}

/// What a report is asked about.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub(crate) struct Period {
    /// First local day, by the shop's time of the order (flash-sale: UTC day of acceptance)
    #[arg(long, default_value = "1970-01-01", value_parser = day, hide_default_value = true)]
    pub(crate) from: String,
    /// Last local day, included
    #[arg(long, default_value = "2149-06-06", value_parser = day, hide_default_value = true)]
    pub(crate) to: String,
    /// One merchant only
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) merchant: String,
    /// Most rows of a ranking
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Currency of the amounts in flash-sale
    #[arg(long, default_value = "GBP", value_parser = currency)]
    pub(crate) currency: String,
    /// Currency that revenue-total converts into
    #[arg(long, default_value = "GBP", value_parser = currency)]
    pub(crate) into: String,
}

fn day(text: &str) -> Result<String, String> {
    let digits = |part: &str, n| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
    match text.split('-').collect::<Vec<_>>()[..] {
        [y, m, d] if digits(y, 4) && digits(m, 2) && digits(d, 2) => Ok(text.to_owned()),
        _ => Err("write a day as 2026-11-21".to_owned()),
    }
}

fn currency(text: &str) -> Result<String, String> {
    let parsed = events::Currency::parse(text).map_err(|e| e.to_string())?;
    Ok(parsed.as_str().to_owned())
}

/// A report's rows.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Name and ClickHouse type of each column.
    pub(crate) columns: Vec<Column>,
    /// Row by row; decimals are texts, so that they stay exact.
    pub(crate) rows: Vec<Vec<Value>>,
    /// When the newest row behind them was stored; empty without rows.
    pub(crate) data_as_of: String,
}

/// A column of an answer.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Deserialize)]
struct Document {
    meta: Vec<Column>,
    data: Vec<Vec<Value>>,
}

const AS_OF: &str = "data_as_of";

impl Database {
    /// The report's rows; `data_as_of`, the same in each, is taken out of them.
    ///
    /// # Errors
    /// When ClickHouse cannot be reached, or refuses.
    pub(crate) async fn ask(&self, report: &Report, period: &Period) -> Result<Answer> {
        let text = self.text(report.sql, period, "JSONCompact").await?;
        let Document { mut meta, mut data } =
            serde_json::from_str(&text).context("ClickHouse's answer is no JSON")?;
        let mut data_as_of = String::new();
        if let Some(at) = meta.iter().position(|column| column.name == AS_OF) {
            meta.remove(at);
            for row in &mut data {
                if let Value::String(text) = row.remove(at) {
                    data_as_of = text;
                }
            }
        }
        Ok(Answer { columns: meta, rows: data, data_as_of })
    }

    /// The answer as ClickHouse writes it in this format.
    ///
    /// # Errors
    /// When ClickHouse cannot be reached, or refuses; the message is ClickHouse's own.
    pub(crate) async fn text(&self, sql: &str, period: &Period, format: &str) -> Result<String> {
        let limit = period.limit.to_string();
        let parameters = [
            ("default_format", format),
            ("output_format_json_quote_decimals", "1"),
            ("output_format_json_quote_64bit_integers", "0"),
            ("param_from", &period.from),
            ("param_to", &period.to),
            ("param_merchant", &period.merchant),
            ("param_limit", &limit),
            ("param_currency", &period.currency),
            ("param_into", &period.into),
        ];
        self.send(&parameters, sql.to_owned()).await
    }

    /// Sends a body with these parameters beside it.
    ///
    /// # Errors
    /// When ClickHouse cannot be reached, or refuses; the message is ClickHouse's own.
    pub(crate) async fn send(&self, parameters: &[(&str, &str)], body: String) -> Result<String> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given = |flag: &Option<String>, names: [&str; 2], default: &str| {
            let found = flag.clone().or_else(|| names.iter().find_map(|name| set(name)));
            found.unwrap_or_else(|| default.to_owned())
        };
        let url = given(
            &self.clickhouse,
            ["CLICKHOUSE_URL", "TILLROLL_CLICKHOUSE__URL"],
            "http://127.0.0.1:8123",
        );
        let user = given(&self.user, ["CLICKHOUSE_USER", "TILLROLL_CLICKHOUSE__USER"], "analyst");
        let names = ["CLICKHOUSE_PASSWORD", "TILLROLL_CLICKHOUSE__PASSWORD"];
        let password = given(&None, names, "");
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let mut address: reqwest::Url =
            url.parse().with_context(|| format!("{url:?} is no address of ClickHouse"))?;
        address.query_pairs_mut().append_pair("database", &self.database).extend_pairs(parameters);
        let request = client
            .post(address)
            .header("X-ClickHouse-User", user)
            .header("X-ClickHouse-Key", password)
            .body(body);
        let answer = request.send().await.with_context(|| {
            format!("ClickHouse at {url} does not answer: give --clickhouse or set CLICKHOUSE_URL")
        })?;
        let status = answer.status();
        let text = answer.text().await.context("ClickHouse's answer broke off")?;
        if !status.is_success() {
            bail!("ClickHouse refuses: {}", text.trim());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_currencies_are_checked_before_anything_is_asked() {
        assert!(day("2026-11-21").is_ok());
        for wrong in ["21.11.2026", "2026-1-1", "2026-11", "2026-11-21' OR 1"] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
        assert!(currency("GBP").is_ok() && currency("pounds").is_err());
    }
}
