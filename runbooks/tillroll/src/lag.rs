//! `tillroll lag`: how far every reader is behind the log.
//!
//! What counts is what was applied, not what was fetched. Processors commit their group's offsets in the
//! transaction that carries what they made of the records. `reports` commits once its rows are inserted.
//! `tracking` keeps its offsets in PostgreSQL, in the transaction of its rows (`sink_offsets`), and so does
//! whatever else writes there. Records are counted, not subtracted: markers of transactions have offsets, too.

mod measure;
mod position;

use std::process::ExitCode;

use anyhow::Result;
use events::Millis;

use crate::connection::Connection;
use crate::{moment, output};
pub(crate) use measure::Behind;

/// Flags of `tillroll lag`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll lag
  tillroll lag --group tracking --json | jq '.partitions[] | select(.records > 0)'
  tillroll lag --max-seconds 30 || echo 'somebody is behind'

Groups are the processors' and each sink's. Seconds are the age of the oldest record that is not applied.
A number of records with ~ counts offsets: there are that many at most. PostgreSQL's address comes from
POSTGRES_URL.

Exit codes: 0 all known, and within the limits; 1 beyond a limit, or something does not answer")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    groups: Groups,
    /// Only this group; may be repeated
    #[arg(long)]
    group: Vec<String>,
    /// Fail if a partition is more records behind
    #[arg(long, value_name = "RECORDS")]
    max_records: Option<u64>,
    /// Fail if a partition is more seconds behind
    #[arg(long, value_name = "SECONDS")]
    max_seconds: Option<u64>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Names that an installation may have changed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Groups {
    /// The processors' consumer group, as their setting `group` names it
    #[arg(long, value_name = "GROUP", default_value = "processors")]
    processors_group: String,
}

/// Every reader's partitions, worst first, and what could not be asked.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    pub(crate) partitions: Vec<Behind>,
    pub(crate) unknown: Vec<String>,
}

/// Measures every reader.
///
/// # Errors
/// When Kafka does not answer. That PostgreSQL does not is told in the answer.
pub(crate) async fn measured(brokers: String, groups: &Groups) -> Result<Lag> {
    let (stored, unknown) = match position::stored().await {
        Ok(stored) => (stored, Vec::new()),
        Err(error) => (Vec::new(), vec![format!("sinks of PostgreSQL: {error:#}")]),
    };
    let known = unknown.is_empty();
    let group = groups.processors_group.clone();
    let partitions = tokio::task::spawn_blocking(move || {
        let mut positions = position::committed(&brokers, &group)?;
        if known {
            positions.extend(position::complete(&brokers, stored)?);
        }
        measure::measure(&brokers, &positions, moment::now())
    });
    let mut partitions = partitions.await??;
    partitions.sort_by(|one, other| other.rank().cmp(&one.rank()));
    Ok(Lag { partitions, unknown })
}

/// Runs the command.
///
/// # Errors
/// When Kafka does not answer.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { connection, groups, group, max_records, max_seconds, json } = arguments;
    let mut lag = measured(connection.brokers()?, &groups).await?;
    if !group.is_empty() {
        lag.partitions.retain(|behind| group.contains(&behind.group));
        anyhow::ensure!(
            !lag.partitions.is_empty() || !lag.unknown.is_empty(),
            "no group {} reads anything: see `tillroll lag`",
            group.join(" or ")
        );
    }
    let beyond = |behind: &&Behind| behind.beyond(max_records, max_seconds);
    let beyond = lag.partitions.iter().filter(beyond).count();
    if json {
        let document = serde_json::json!({
            "measured_at": moment::text(moment::now()),
            "beyond": beyond,
            "partitions": lag.partitions,
            "unknown": lag.unknown,
        });
        output::data(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for line in lines(&lag.partitions) {
            output::data(&line)?;
        }
    }
    for unknown in &lag.unknown {
        output::message(&format!("tillroll: {unknown}"));
    }
    if beyond > 0 {
        output::message(&format!("{beyond} partitions are beyond the limits"));
    }
    let well = beyond == 0 && lag.unknown.is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(partitions: &[Behind]) -> Vec<String> {
    let names = ["group", "topic", "partition", "applied", "end", "records", "behind"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(partitions.iter().map(|behind| {
        let applied = behind.applied.map_or("nothing".to_owned(), |offset| offset.to_string());
        let about = if behind.exact { "" } else { "~" };
        let age = behind.oldest_ms.map_or("-".to_owned(), moment::age);
        vec![
            behind.group.clone(),
            behind.topic.clone(),
            behind.partition.to_string(),
            applied,
            behind.end.to_string(),
            format!("{about}{}", behind.records),
            age,
        ]
    }));
    output::table(&[false, false, true, true, true, true, true], &rows)
}

/// Age of a record's append time.
fn age_ms(now: Millis, at: Millis) -> i64 {
    now.0.saturating_sub(at.0).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_line() {
        let behind = Behind {
            group: "tracking".into(),
            topic: "order-status".into(),
            partition: 3,
            applied: Some(7),
            end: 12_000,
            records: 11_993,
            exact: false,
            oldest_ms: Some(61_000),
        };
        let unread =
            Behind { applied: None, records: 0, exact: true, oldest_ms: None, ..behind.clone() };
        assert_eq!(
            lines(&[behind, unread]),
            [
                "group     topic         partition  applied    end  records  behind",
                "tracking  order-status          3        7  12000   ~11993    61 s",
                "tracking  order-status          3  nothing  12000        0       -",
            ]
        );
    }
}
