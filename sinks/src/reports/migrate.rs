//! Versioned migrations of ClickHouse's tables.
//!
//! ClickHouse has no transactions over DDL and no lock to take, so every statement of a migration is
//! safe to repeat: two processes that start at once, or a crash in between, do no harm.

use std::time::Duration;

use clickhouse::Client;

use crate::retry::Failure;

/// Folding the whole history takes a while: 10 million events took 37 s on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Version, name and statements, in order; a released one never changes.
const MIGRATIONS: &[(u32, &str, &str)] = &[
    (1, "order_events", include_str!("migrations/V1__order_events.sql")),
    (2, "order_lines_and_states", include_str!("migrations/V2__order_lines_and_states.sql")),
    (3, "repeated_blocks", include_str!("migrations/V3__repeated_blocks.sql")),
    (4, "stock_movements", include_str!("migrations/V4__stock_movements.sql")),
];

/// What analysts read: made anew at every start, after the migrations.
const VIEWS: &str = include_str!("views.sql");

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
        version UInt32 COMMENT 'Migration that was applied',
        name String COMMENT 'What it is about',
        applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When it was applied'
    ) ENGINE = ReplacingMergeTree ORDER BY version
    COMMENT 'Which migrations these tables have been through'";

/// Brings tables to this version and makes the views, whose local days are those of `time_zone`.
pub(super) async fn run(client: &Client, database: &str, time_zone: &str) -> Result<(), Failure> {
    execute(client, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
    let client = client.clone().with_database(database);
    execute(&client, TABLE).await?;
    let done = "SELECT max(version) FROM schema_migrations";
    let done: u32 = patient(client.query(done).fetch_one()).await?;
    for (version, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| *version > done) {
        for statement in statements(sql) {
            execute(&client, statement).await?;
        }
        let note = "INSERT INTO schema_migrations (version, name) VALUES (?, ?)";
        patient(client.query(note).bind(version).bind(name).execute()).await?;
        tracing::info!(version, name, "applied to clickhouse");
    }
    for statement in statements(&VIEWS.replace("{time_zone}", time_zone)) {
        execute(&client, statement).await?;
    }
    Ok(())
}

async fn execute(client: &Client, statement: &str) -> Result<(), Failure> {
    // `raw`: a question mark in a statement is no parameter.
    patient(client.query_raw(statement).execute()).await
}

async fn patient<T>(
    query: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(TIMEOUT, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::retry("clickhouse: no answer to a migration")),
    }
}

/// A file's statements: each ends with `;` at the end of a line.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_and_files_split_into_statements() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.0 < b.0));
        let first: Vec<_> = statements(MIGRATIONS[0].2).collect();
        assert_eq!(first.len(), 3);
        assert!(first[1].starts_with("CREATE OR REPLACE VIEW v_order_events"));
        assert!(first.iter().all(|statement| !statement.ends_with(';')));
        let comment = |line: &&str| !line.starts_with("--");
        let later = MIGRATIONS[1..].iter().flat_map(|(.., sql)| statements(sql));
        for statement in later.chain(statements(VIEWS)) {
            assert!(!statement.ends_with(';'), "{statement}");
            assert!(statement.lines().any(|line| comment(&line)), "only a comment: {statement}");
        }
        assert!(VIEWS.contains("toDate(ordered_at, '{time_zone}')"));
    }
}
