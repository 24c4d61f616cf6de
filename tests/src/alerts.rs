//! The alert rules as text, and what they name. They are read by the line, as `compose/prometheus` writes them;
//! that they are rules at all is promtool's to say.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// A rule that alerts or records.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// The alert, or the series that it records.
    pub name: String,
    /// Whether it alerts.
    pub alert: bool,
    /// Its expression.
    pub expr: String,
    /// Its labels, templates included.
    pub labels: Vec<(String, String)>,
    /// What people read.
    pub summary: String,
    /// The page that says what to do.
    pub runbook: String,
}

/// The folder of the whole repository.
///
/// # Panics
/// When this crate was moved.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate is a folder of the repository").to_owned()
}

/// A program of Prometheus or Alertmanager: on the PATH, or where `.ci/prometheus` puts it.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(TOOLS));
    std::env::split_paths(&path).chain(cache).map(|folder| folder.join(name)).find(|f| f.is_file())
}

/// Where `.ci/prometheus` puts them, below the home folder.
const TOOLS: &str = ".cache/tillroll/tools/bin";

/// Says something to whoever runs the tests, captured output or not.
pub fn say(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Every rule of `compose/prometheus/rules`.
///
/// # Errors
/// When a file cannot be read, or a line is not as expected.
pub fn rules() -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for file in files(&repository().join("compose/prometheus/rules"), "yml")? {
        let text = fs::read_to_string(&file)?;
        rules.extend(parse(&text).with_context(|| format!("{}", file.display()))?);
    }
    ensure!(!rules.is_empty(), "no rules");
    Ok(rules)
}

/// The files of a folder with this extension, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn parse(text: &str) -> Result<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
    for (number, line) in lines.iter().enumerate() {
        let indent = indent(line);
        let Some((key, value)) = line.trim_start_matches(['-', ' ']).split_once(':') else {
            continue;
        };
        let value = match value.trim() {
            "|" | ">-" => block(&lines[number + 1..], indent),
            plain => plain.trim_matches('\'').replace("''", "'"),
        };
        match (indent, key) {
            (2, "alert" | "record") => {
                rules.push(Rule { name: value, alert: key == "alert", ..Rule::default() });
            }
            (4.., _) => {
                let rule = rules.last_mut().context("a rule begins with its name")?;
                match (indent, key) {
                    (4, "expr") => rule.expr = value,
                    (6, "summary") => rule.summary = value,
                    (6, "runbook_url") => rule.runbook = value,
                    // Of an expression that is continued, too.
                    (6, _) if plain_word(key) => rule.labels.push((key.to_owned(), value)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(rules)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn plain_word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The lines that are indented deeper.
fn block(lines: &[&str], than: usize) -> String {
    let deeper = lines.iter().take_while(|line| indent(line) > than);
    deeper.map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Series, each with the labels that its selector has.
    pub series: BTreeSet<(String, Vec<String>)>,
    /// Labels of `by (…)` and `on (…)`.
    pub grouped: BTreeSet<String>,
}

/// Words of PromQL that are neither series nor functions.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "by", "on", "ignoring"];

/// The series and labels of an expression.
pub fn names(expr: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expr;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
        // What is in brackets is a range.
        if let Some(bracket) = rest[..at].find('[') {
            rest = rest[bracket..].split_once(']').map_or("", |(_, after)| after);
            continue;
        }
        let word_end = |c: char| !(c.is_ascii_alphanumeric() || "_:.".contains(c));
        let end = rest[at..].find(word_end).map_or(rest.len(), |length| at + length);
        let word = &rest[at..end];
        let after = rest[end..].trim_start();
        rest = &rest[end..];
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        if matches!(word, "by" | "on" | "ignoring") {
            let (inside, behind) = inside(after, '(', ')');
            names.grouped.extend(inside.split(',').map(|l| l.trim().to_owned()));
            names.grouped.remove("");
            rest = behind;
        } else if after.starts_with('{') {
            let (selector, behind) = inside(after, '{', '}');
            names.series.insert((word.to_owned(), selected(selector)));
            rest = behind;
        } else if !after.starts_with('(') && !WORDS.contains(&word) && !aggregation(word) {
            names.series.insert((word.to_owned(), Vec::new()));
        }
    }
    names
}

/// Functions over labels may be followed by `by` instead of their argument.
fn aggregation(word: &str) -> bool {
    ["sum", "min", "max", "count", "avg"].contains(&word)
}

fn inside(text: &str, open: char, close: char) -> (&str, &str) {
    let text = text.strip_prefix(open).unwrap_or(text);
    text.split_once(close).unwrap_or((text, ""))
}

/// The labels of `a="b",c=~"d|e"`.
fn selected(selector: &str) -> Vec<String> {
    // Every second piece between quotes is a value.
    let outside = selector.split(['"', '\'']).step_by(2).collect::<String>();
    let labels = outside.split(',').map(|matcher| matcher.trim().trim_end_matches(['=', '~', '!']));
    labels.filter(|label| !label.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_names_series_and_labels() {
        let found = names(
            "sum by (job, topic) (rate(a_total{topic=\"x,y\",code=~'5..'}[5m])) / 2.5 \
             unless on () b:c:rate5m offset 1h > 14.4 * 0.001 and max(up) == 0",
        );
        let series = |name: &str, labels: &[&str]| -> (String, Vec<String>) {
            (name.to_owned(), labels.iter().map(|l| (*l).to_owned()).collect())
        };
        let expected = Names {
            series: [
                series("a_total", &["topic", "code"]),
                series("b:c:rate5m", &[]),
                series("up", &[]),
            ]
            .into(),
            grouped: ["job".to_owned(), "topic".to_owned()].into(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rule_is_read_by_the_line() {
        let text = "groups:\n- name: g\n  rules:\n  # Why: because.\n  - alert: Down\n    expr: |\n      up{job=\"x\"}\n        == 0\n    for: 1m\n    labels:\n      severity: page\n    annotations:\n      summary: >-\n        one\n        two\n      runbook_url: runbooks/Down.md\n";
        let [rule] = parse(text).unwrap().try_into().unwrap();
        assert_eq!((rule.name.as_str(), rule.alert), ("Down", true));
        assert_eq!(rule.expr, "up{job=\"x\"} == 0");
        assert_eq!(rule.labels, [("severity".to_owned(), "page".to_owned())]);
        assert_eq!((rule.summary.as_str(), rule.runbook.as_str()), ("one two", "runbooks/Down.md"));
    }
}
