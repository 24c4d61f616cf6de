//! Operators' rules: pause, weight and blackouts of a courier; what lateness costs on a lane.

use anyhow::{Context, Result, ensure};
use events::{
    Blackout, CourierCode, CourierRuled, Currency, LaneRuled, Millis, Record, WarehouseCode,
};

use super::broadcast;
use crate::connection::Connection;
use crate::output;

/// A courier's rule.
#[derive(Debug, clap::Args)]
pub(crate) struct Rule {
    /// The courier's code
    courier: String,
    /// A lane, `origin>country`; every lane without
    #[arg(long, default_value = "")]
    lane: String,
    /// Ask it for nothing new
    #[arg(long)]
    pause: bool,
    /// Divide its costs by this share: 200 makes it look half as dear
    #[arg(long, default_value_t = 100, value_name = "PERCENT")]
    weight: i32,
    /// Ask it for nothing new from the first moment up to the second, UTC milliseconds; repeatable
    #[arg(long, value_name = "FROM..TO")]
    blackout: Vec<String>,
}

/// What lateness costs.
#[derive(Debug, clap::Args)]
pub(crate) struct Lateness {
    /// A lane, `origin>country`; every lane without
    #[arg(long, default_value = "")]
    lane: String,
    /// What a late consignment costs, minor units
    #[arg(long)]
    cost: i64,
    /// Currency of that, as the couriers' prices
    #[arg(long)]
    currency: String,
    /// Do not choose who is late in more than so many of a thousand, while another is not
    #[arg(long, default_value_t = 1_000, value_name = "PERMILLE")]
    most_late: i32,
}

impl Rule {
    fn record(self) -> Result<CourierRuled> {
        ensure!(self.weight >= 1, "--weight must be 1 or more: pause the courier instead");
        let blackouts = self.blackout.iter().map(|text| {
            let moment = |text: &str| text.trim().parse().map(Millis);
            let (from, to) = text.split_once("..").context("a blackout is FROM..TO")?;
            let (begins_at, ends_at) = (moment(from)?, moment(to)?);
            ensure!(begins_at < ends_at, "a blackout ends after it begins: {text}");
            Ok(Blackout { begins_at, ends_at })
        });
        Ok(CourierRuled {
            courier: CourierCode::parse(&self.courier).context("courier")?,
            lane: lane(&self.lane)?.into(),
            paused: self.pause,
            weight_percent: self.weight,
            blackouts: blackouts.collect::<Result<_>>()?,
        })
    }
}

impl Lateness {
    fn record(self) -> Result<LaneRuled> {
        ensure!(self.cost >= 0, "--cost must be 0 or more");
        ensure!((0..=1_000).contains(&self.most_late), "--most-late must be 0 to 1000");
        Ok(LaneRuled {
            lane: lane(&self.lane)?.into(),
            lateness_cost_minor: self.cost,
            currency: Currency::parse(&self.currency).context("currency")?,
            max_late_permille: self.most_late,
        })
    }
}

/// A lane's text as the log has it.
fn lane(text: &str) -> Result<&str> {
    let legal = text.split_once('>').is_some_and(|(origin, country)| {
        WarehouseCode::parse(origin).is_ok()
            && country.len() == 2
            && country.chars().all(|c| c.is_ascii_uppercase())
    });
    ensure!(text.is_empty() || legal, "a lane is warehouse>COUNTRY, for instance main>FR");
    Ok(text)
}

pub(super) async fn rule(connection: &Connection, rule: Rule) -> Result<()> {
    let ruled = rule.record()?;
    let key = ruled.courier.to_string();
    send(connection, key, ruled.into()).await
}

pub(super) async fn lateness(connection: &Connection, lateness: Lateness) -> Result<()> {
    let ruled = lateness.record()?;
    let key = ruled.lane.to_string();
    send(connection, key, ruled.into()).await
}

async fn send(connection: &Connection, key: String, record: Record) -> Result<()> {
    let (brokers, registry) = (connection.brokers()?, connection.registry()?);
    let codec = wire::registry::codec(&registry).await?;
    let partitions = broadcast::append(&brokers, &codec, &[(key, record)]).await?;
    output::message(&format!("tillroll: {partitions} partitions have the rule"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(lane: &str, weight: i32, blackout: &str) -> Rule {
        Rule {
            courier: "swift".into(),
            lane: lane.into(),
            pause: false,
            weight,
            blackout: vec![blackout.into()],
        }
    }

    #[test]
    fn rules_are_checked_before_they_are_sent() {
        let good = rule("main>FR", 120, "1..2").record().unwrap();
        assert_eq!((good.lane.as_str(), good.blackouts.len()), ("main>FR", 1));
        assert!(rule("", 100, "1..2").record().is_ok());
        assert!(rule("FR", 100, "1..2").record().is_err());
        assert!(rule("main>fr", 100, "1..2").record().is_err());
        assert!(rule("", 0, "1..2").record().is_err());
        assert!(rule("", 100, "2..2").record().is_err());
        assert!(rule("", 100, "tomorrow").record().is_err());
    }
}
