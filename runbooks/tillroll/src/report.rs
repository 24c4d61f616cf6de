//! `tillroll report`: figures for analysts, as a table, CSV, JSON or a page with charts.

mod pack;
mod page;
pub(crate) mod query;
mod table;

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;

use crate::output;
use pack::Report;
use query::{Database, Period};

/// Flags of `tillroll report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll report                                     the list of reports
  tillroll report revenue-daily --from 2026-11-01     a table
  tillroll report top-skus --limit 10 --format csv    for a spreadsheet
  tillroll report funnel --format json | jq .rows
  tillroll report courier-league --define             what its figures mean, and its SQL
  tillroll report --all --html reports.html           every report with charts, in one file
  tillroll report revenue-total --into EUR            all currencies in one, see `tillroll reports rates`

Without --from and --to a report is about everything there is. Amounts are decimals in the currency
beside them; in JSON they are texts, so that no cent is rounded away. In ClickHouse the reports' own
SQL works as well: every {name:Type} in it is a parameter.")]
pub(crate) struct Arguments {
    /// Which report; without one they are listed
    name: Option<String>,
    /// Every report, with --html
    #[arg(long, conflicts_with = "name", requires = "html")]
    all: bool,
    #[command(flatten)]
    period: Period,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write a page with charts to this file instead; it needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print what the report's figures mean, and its SQL, instead
    #[arg(long, requires = "name")]
    define: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Columns for reading
    Table,
    /// With names in the first line
    Csv,
    /// Columns, rows, parameters and `data_as_of`
    Json,
}

/// Runs the command.
///
/// # Errors
/// When there is no such report, ClickHouse does not answer or refuses, or the file cannot be written.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { name, all, period, format, html, define, database } = arguments;
    let Some(name) = name else {
        return match html {
            Some(file) if all => page(&file, pack::all().collect(), &period, &database).await,
            Some(_) => bail!("name a report, or give --all"),
            None => list(),
        };
    };
    let Some(report) = pack::find(&name) else {
        bail!("there is no report {name:?}: see `tillroll report`");
    };
    if define {
        return output::data(report.sql.trim_end());
    }
    if let Some(file) = html {
        return page(&file, vec![report], &period, &database).await;
    }
    match format {
        Format::Csv => {
            let text = database.text(report.sql, &period, "CSVWithNames").await?;
            output::data(text.trim_end())
        }
        Format::Json => {
            let answer = database.ask(&report, &period).await?;
            let document = json!({
                "report": report.name,
                "title": report.title,
                "parameters": period,
                "data_as_of": answer.data_as_of,
                "columns": answer.columns,
                "rows": answer.rows,
            });
            output::data(&serde_json::to_string_pretty(&document)?)
        }
        Format::Table => {
            let answer = database.ask(&report, &period).await?;
            for line in table::lines(&answer) {
                output::data(&line)?;
            }
            match answer.data_as_of.as_str() {
                "" => output::message("no rows: nothing was ordered in this period"),
                time => output::message(&format!("data as of {time} UTC")),
            }
            Ok(())
        }
    }
}

fn list() -> Result<()> {
    for report in pack::all() {
        output::data(&format!("{:<20} {}", report.name, report.title))?;
    }
    Ok(())
}

async fn page(
    file: &std::path::Path,
    reports: Vec<Report>,
    period: &Period,
    database: &Database,
) -> Result<()> {
    let mut answered = Vec::new();
    for report in reports {
        let answer = database.ask(&report, period).await?;
        answered.push((report, answer));
    }
    page::write(file, &answered, period)?;
    output::message(&format!("{} reports: {}", answered.len(), file.display()));
    Ok(())
}
