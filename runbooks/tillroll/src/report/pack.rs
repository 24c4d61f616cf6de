//! The reports: SQL files in `reports/`, each with a head that says what its figures mean.

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// As typed.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) title: &'static str,
    /// What each figure means, line by line.
    pub(crate) definition: String,
    /// How it is drawn; `None` where only the table makes sense.
    pub(crate) chart: Option<Chart>,
    /// The query, head included.
    pub(crate) sql: &'static str,
}

/// How a report is drawn.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Chart {
    /// `bar` or `line`.
    kind: String,
    /// Column of the category or time axis.
    x: String,
    /// Columns that are drawn.
    y: Vec<String>,
    /// One chart per value of this column.
    group: Option<String>,
    /// Only so many rows of each group.
    top: Option<usize>,
    /// Bars stand on each other.
    stack: bool,
    /// The value axis is logarithmic.
    log: bool,
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../reports/", $name, ".sql")))),+]
    };
}

/// In the order in which they are listed.
const FILES: &[(&str, &str)] = files![
    "revenue-hourly",
    "revenue-daily",
    "revenue-total",
    "orders-by-status",
    "funnel",
    "durations",
    "stock-outs",
    "top-skus",
    "top-customers",
    "courier-league",
    "promise-calibration",
    "flash-sale",
    "data-quality",
];

/// Every report.
pub(crate) fn all() -> impl Iterator<Item = Report> {
    FILES.iter().map(|(name, sql)| parse(name, sql).expect("a test reads every file"))
}

/// The report of that name.
pub(crate) fn find(name: &str) -> Option<Report> {
    all().find(|report| report.name == name)
}

/// A head is the file's first comment lines: title, an empty one, the definition, and `chart: …`.
fn parse(name: &'static str, sql: &'static str) -> Result<Report, String> {
    let mut head = sql.lines().map_while(|line| line.strip_prefix("--")).map(str::trim);
    let title = head.next().filter(|title| !title.is_empty()).ok_or("no title")?;
    let (mut definition, mut chart) = (Vec::new(), None);
    for line in head {
        match line.strip_prefix("chart: ") {
            Some(spec) => chart = Some(Chart::parse(spec)?),
            None => definition.push(line),
        }
    }
    let chart = chart.ok_or("no line `chart: …`")?;
    let definition = definition.join("\n").trim().to_owned();
    if definition.is_empty() {
        return Err("no definition".to_owned());
    }
    Ok(Report { name, title, definition, chart, sql })
}

impl Chart {
    /// From `bar x=day y=net,lost stack group=currency`, or `none`.
    fn parse(spec: &str) -> Result<Option<Self>, String> {
        let mut words = spec.split_whitespace();
        let kind = words.next().unwrap_or_default().to_owned();
        if kind == "none" {
            return Ok(None);
        }
        if !["bar", "line"].contains(&kind.as_str()) {
            return Err(format!("chart {kind:?}: bar, line or none"));
        }
        let (x, y) = (String::new(), Vec::new());
        let mut chart = Self { kind, x, y, group: None, top: None, stack: false, log: false };
        for word in words {
            match word.split_once('=') {
                Some(("x", column)) => chart.x = column.to_owned(),
                Some(("y", columns)) => chart.y = columns.split(',').map(str::to_owned).collect(),
                Some(("group", column)) => chart.group = Some(column.to_owned()),
                Some(("top", rows)) => {
                    chart.top = Some(rows.parse().map_err(|_| format!("top={rows}"))?);
                }
                None if word == "stack" => chart.stack = true,
                None if word == "log" => chart.log = true,
                _ => return Err(format!("chart: {word:?} is unknown")),
            }
        }
        if chart.x.is_empty() || chart.y.is_empty() {
            return Err("chart: x or y is missing".to_owned());
        }
        Ok(Some(chart))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_what_it_measures_and_draws_columns_it_has() {
        for (name, sql) in FILES {
            let report = parse(name, sql).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            assert!(report.sql.contains("data_as_of"), "{name} does not say how fresh it is");
            let chart = report.chart.iter();
            let columns = chart.flat_map(|c| c.y.iter().chain([&c.x]).chain(c.group.as_ref()));
            for column in columns {
                assert!(
                    sql.split("\nSELECT").last().unwrap().contains(column.as_str())
                        || sql.contains(&format!("AS {column}")),
                    "{name} has no column {column}"
                );
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_list() {
        let files = std::fs::read_dir("reports").unwrap().map(|file| file.unwrap().file_name());
        for file in files {
            let file = file.into_string().unwrap();
            let name = file.strip_suffix(".sql").expect("only SQL files");
            assert!(find(name).is_some(), "{name} is not listed");
        }
    }

    #[test]
    fn a_chart_that_cannot_be_drawn_is_told() {
        for spec in ["pie x=a y=b", "bar x=a", "bar x=a y=b z=c", "bar x=a y=b top=x"] {
            assert!(Chart::parse(spec).is_err(), "{spec}");
        }
        assert_eq!(Chart::parse("none"), Ok(None));
    }
}
