//! An answer as text for a terminal: numbers to the right, everything else to the left.

use serde_json::Value;

use super::query::Answer;
use crate::output;

/// Lines of the table, the names of the columns first.
pub(crate) fn lines(answer: &Answer) -> Vec<String> {
    let names: Vec<String> = answer.columns.iter().map(|column| column.name.clone()).collect();
    let right: Vec<bool> = answer.columns.iter().map(|column| number(&column.kind)).collect();
    let cells = answer.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>());
    let rows: Vec<Vec<String>> = std::iter::once(names).chain(cells).collect();
    output::table(&right, &rows)
}

/// Whether a ClickHouse type is a number.
pub(crate) fn number(kind: &str) -> bool {
    let kind = kind.trim_start_matches("Nullable(");
    ["Int", "UInt", "Float", "Decimal"].iter().any(|start| kind.starts_with(start))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::query::Column;
    use serde_json::json;

    #[test]
    fn numbers_stand_to_the_right() {
        let column = |name: &str, kind: &str| Column { name: name.into(), kind: kind.into() };
        let answer = Answer {
            columns: vec![column("sku", "String"), column("net", "Decimal(38, 4)")],
            rows: vec![vec![json!("85123A"), json!("2.55")], vec![json!("é"), json!("1000.1")]],
            data_as_of: String::new(),
        };
        assert_eq!(lines(&answer), ["sku        net", "85123A    2.55", "é       1000.1"]);
    }
}
