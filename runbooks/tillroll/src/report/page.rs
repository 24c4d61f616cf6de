//! Reports as one HTML file that needs nothing else: data, style and charts are inside.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pack::Report;
use super::query::{Answer, Period};

/// Apache ECharts 6.1.0, see `charts/README.md`.
const ECHARTS: &str = include_str!("../../charts/echarts.common.min.js");
const STYLE: &str = include_str!("../../charts/page.css");
const SCRIPT: &str = include_str!("../../charts/page.js");
const FRAME: &str = include_str!("../../charts/page.html");

/// Writes the page.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(file: &Path, reports: &[(Report, Answer)], period: &Period) -> Result<()> {
    std::fs::write(file, page(reports, period))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn page(reports: &[(Report, Answer)], period: &Period) -> String {
    let documents: Vec<Value> =
        reports.iter().map(|(report, answer)| document(report, answer)).collect();
    let data = json!({ "period": period, "reports": documents });
    // Inside a script element only `<` could end it.
    let data = data.to_string().replace('<', "\\u003c");
    let parts = [("style", STYLE), ("charts", ECHARTS), ("data", &data), ("script", SCRIPT)];
    let mut page = String::new();
    let mut rest = FRAME;
    for (name, part) in parts {
        let mark = format!("{{{{{name}}}}}");
        let (before, after) = rest.split_once(&mark).expect("the frame has every part in order");
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

fn document(report: &Report, answer: &Answer) -> Value {
    json!({
        "name": report.name,
        "title": report.title,
        "definition": report.definition,
        "chart": report.chart,
        "columns": answer.columns,
        "rows": answer.rows,
        "data_as_of": answer.data_as_of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::pack;
    use crate::report::query::Column;

    #[test]
    fn the_page_is_whole_and_asks_nothing_of_the_network() {
        let column = Column { name: "x</script><script>".into(), kind: "String".into() };
        let answer = Answer { columns: vec![column], rows: vec![], data_as_of: String::new() };
        let period = Period {
            from: "1970-01-01".into(),
            to: "2149-06-06".into(),
            merchant: String::new(),
            limit: 1,
            currency: "GBP".into(),
            into: "GBP".into(),
        };
        let page = page(&[(pack::find("funnel").unwrap(), answer)], &period);
        assert!(page.contains("default-src 'none'"), "the browser is told so");
        assert!(!page.contains("x</script>"), "data cannot end its element");
        for outside in ["<link", "src=\"http", "@import", "url(http"] {
            assert!(!FRAME.contains(outside) && !STYLE.contains(outside), "{outside}");
        }
        assert!(ECHARTS.contains("Licensed to the Apache Software Foundation"));
    }
}
