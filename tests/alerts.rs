//! Alert ⇄ runbook ⇄ metric: every alert has its page and every page its alert, whatever rules, pages and
//! dashboards name is exported by a service, and Prometheus' own tools agree with rules and their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::alerts::{Rule, files, names, repository, rules, say, tool};
use wire::telemetry::CATALOGUE;

const SEVERITIES: [&str; 3] = ["page", "ticket", "none"];
const SECTIONS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];
/// From an alert to its cause.
const MOST_COMMANDS: usize = 3;
/// What Prometheus adds to every series that it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() -> Result<()> {
    let alerts: BTreeSet<String> = alerts()?.into_iter().map(|rule| rule.name).collect();
    let titles: BTreeSet<String> = pages()?.iter().map(|page| stem(page)).collect();
    ensure!(alerts == titles, "alerts {alerts:?}\nrunbooks {titles:?}");
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let name = stem(&page);
        ensure!(text.starts_with(&format!("# {name}\n")), "{name}: its title is another");
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        ensure!(found == SECTIONS, "{name}: sections {found:?}");
        let commands = commands(&text);
        ensure!((1..=MOST_COMMANDS).contains(&commands.len()), "{name}: {commands:#?}");
    }
    Ok(())
}

#[test]
fn every_alert_says_how_bad_how_much_and_what_to_do() -> Result<()> {
    for rule in alerts()? {
        let name = &rule.name;
        let severity = rule.labels.iter().find(|(label, _)| label == "severity");
        let known = severity.is_some_and(|(_, value)| SEVERITIES.contains(&value.as_str()));
        ensure!(known, "{name}: severity {severity:?}");
        let number = ["{{ $value", "query"].iter().any(|part| rule.summary.contains(part));
        ensure!(number, "{name}: no number in {:?}", rule.summary);
        ensure!(rule.runbook == format!("runbooks/{name}.md"), "{name}: {}", rule.runbook);
    }
    Ok(())
}

#[test]
fn rules_name_what_is_exported() -> Result<()> {
    let rules = rules()?;
    let recorded: BTreeSet<&str> =
        rules.iter().filter(|rule| !rule.alert).map(|rule| rule.name.as_str()).collect();
    for rule in &rules {
        let mut known: BTreeSet<&str> = SCRAPED.into();
        let found = names(&rule.expr);
        ensure!(
            rule.name == "Watchdog" || !found.series.is_empty(),
            "{}: names nothing",
            rule.name
        );
        for (series, selected) in &found.series {
            if recorded.contains(series.as_str()) {
                continue;
            }
            let labels = labels(series)
                .with_context(|| format!("{}: no service exports {series}", rule.name))?;
            let unknown = selected.iter().find(|label| !labels.contains(label.as_str()));
            ensure!(unknown.is_none(), "{}: {series} has no label {unknown:?}", rule.name);
            known.extend(labels);
        }
        let unknown = found.grouped.iter().find(|label| !known.contains(label.as_str()));
        ensure!(unknown.is_none(), "{}: nothing has a label {unknown:?}", rule.name);
        known.extend(rule.labels.iter().map(|(label, _)| label.as_str()));
        let templates = rule.labels.iter().map(|(_, value)| value).chain([&rule.summary]);
        for label in templates.flat_map(|text| text.split("$labels.").skip(1)) {
            let label: String =
                label.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            ensure!(known.contains(label.as_str()), "{}: nothing has a label {label}", rule.name);
        }
    }
    Ok(())
}

#[test]
fn pages_and_dashboards_name_what_is_exported() -> Result<()> {
    let series: BTreeSet<String> = CATALOGUE.iter().flat_map(|metric| metric.series()).collect();
    let exported = |name: &str| series.contains(name) || CATALOGUE.iter().any(|m| m.name == name);
    let root = repository();
    let mut texts = pages()?;
    texts.extend(files(&root.join("runbooks"), "md")?);
    texts.extend(files(&root.join("compose/grafana/dashboards"), "json")?);
    texts.extend(files(&root.join("compose/prometheus/rules"), "yml")?);
    texts.push(root.join("README.md"));
    for file in texts {
        let text = fs::read_to_string(&file)?;
        for name in metrics(&text) {
            ensure!(exported(name), "{}: no service exports {name}", file.display());
        }
        // `grep` finds parts of names.
        let searches = text.lines().filter(|line| line.contains("/metrics | grep"));
        for part in
            searches.flat_map(|line| line.split('|').skip(1).flat_map(words).collect::<Vec<_>>())
        {
            let part = part.trim_matches('_');
            let known = series.iter().any(|name| name.contains(part));
            ensure!(known || !part.contains('_'), "{}: grep {part} finds nothing", file.display());
        }
    }
    Ok(())
}

#[test]
fn commands_of_runbooks_exist_with_their_flags() -> Result<()> {
    let tillroll = local::services::binary("tillroll")?;
    let (mut tried, mut flags) = (0, 0);
    let mut pages = files(&repository().join("runbooks"), "md")?;
    pages.push(repository().join("README.md"));
    for page in pages {
        for command in tillroll_commands(&fs::read_to_string(&page)?) {
            let path = command.split(' ').skip(1).take_while(|word| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())
            });
            // The last word may be an argument: asked for help, nothing is done with it.
            let done = Command::new(&tillroll).args(path).arg("--help").output()?;
            ensure!(done.status.success(), "{}: there is no `{command}`", page.display());
            let help = String::from_utf8(done.stdout)?;
            let known = options(&help);
            for flag in command.split(' ').filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or(flag);
                let page = page.display();
                ensure!(known.contains(flag), "{page}: `{command}`: there is no {flag}:\n{help}");
                flags += 1;
            }
            tried += 1;
        }
    }
    ensure!(tried > 20 && flags > 10, "{tried} commands and {flags} flags found");
    Ok(())
}

#[test]
fn commands_and_options_are_found_in_texts() {
    let page = "Say `tillroll dlq list`, or\n\n```sh\ntillroll why <order> --json | jq .  # all\n```\nand `tillroll`.";
    assert_eq!(tillroll_commands(page), ["tillroll dlq list", "tillroll why <order> --json"]);
    let help = "Usage: tillroll x [--no]\n\nOptions:\n      --brokers <B>  As --other has it\n  \
                -h, --help  Print\n\nExamples:\n  tillroll x \\\n      --never y\n";
    assert_eq!(options(help), ["--brokers", "--help"].map(str::to_owned).into());
}

#[test]
fn promtool_and_amtool_agree() -> Result<()> {
    let folder = repository().join("compose/prometheus");
    let plain = |paths: Vec<PathBuf>| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    let (rules, cases) =
        (plain(files(&folder.join("rules"), "yml")?), plain(files(&folder.join("tests"), "yml")?));
    let config = |name: &str| vec![folder.join(name).display().to_string()];
    let routed = |receiver: &str, label: &str| {
        let file = config("alertmanager.yml").concat();
        let expected = [format!("--verify.receivers={receiver}"), format!("--config.file={file}")];
        ("amtool", vec!["config", "routes", "test"], [&expected[..], &[label.to_owned()]].concat())
    };
    let tools = [
        ("promtool", vec!["check", "rules"], rules),
        ("promtool", vec!["check", "config"], config("prometheus.yml")),
        ("promtool", vec!["test", "rules"], cases),
        ("amtool", vec!["check-config"], config("alertmanager.yml")),
        routed("pages", "severity=page"),
        routed("tickets", "severity=ticket"),
        routed("watchdog", "alertname=Watchdog"),
    ];
    for (name, command, arguments) in tools {
        let Some(program) = tool(name) else {
            say(&format!("{name} is not there, {command:?} was not checked: run .ci/prometheus"));
            continue;
        };
        let done = Command::new(program).args(&command).args(arguments).output()?;
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        ensure!(done.status.success(), "{name} {command:?}: {said}");
    }
    Ok(())
}

fn alerts() -> Result<Vec<Rule>> {
    Ok(rules()?.into_iter().filter(|rule| rule.alert).collect())
}

/// The runbooks, without their index.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = files(&repository().join("runbooks"), "md")?;
    pages.retain(|page| stem(page) != "README");
    Ok(pages)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The commands of a page.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// The operator's commands in a text, quoted or on lines of their own, without what they are piped into.
fn tillroll_commands(text: &str) -> Vec<String> {
    let begins = |at: usize| at == 0 || text[..at].ends_with(['`', '\n']);
    let found = text.match_indices("tillroll ").filter(|(at, _)| begins(*at));
    found
        .map(|(at, _)| {
            let end = text[at..].find(['`', '\n', '|', '#']).map_or(text.len(), |end| at + end);
            text[at..end].trim().to_owned()
        })
        .collect()
}

/// The options that a command lists in its help; its examples may show those of others.
fn options(help: &str) -> BTreeSet<String> {
    let listed = help.split("Options:").nth(1).unwrap_or_default();
    let listed = listed.split("Examples:").next().unwrap_or_default();
    let lines = listed.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let named =
        |line: &str| line.split([' ', ',']).find(|w| w.starts_with("--")).map(str::to_owned);
    lines.filter_map(named).collect()
}

/// The labels of a series as it is scraped; `None` if nobody exports it.
fn labels(series: &str) -> Option<BTreeSet<&'static str>> {
    let mut labels: BTreeSet<&str> = SCRAPED.into();
    if series != "up" {
        let metric =
            CATALOGUE.iter().find(|metric| metric.series().iter().any(|name| name == series))?;
        labels.extend(metric.labels);
        if series.ends_with("_bucket") {
            labels.insert("le");
        }
    }
    Some(labels)
}

/// Names that begin as metrics do; ClickHouse has functions that do so, too.
fn metrics(text: &str) -> Vec<&str> {
    let named = text.match_indices("tillroll_").map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        rest.split_at(end.unwrap_or(rest.len()))
    });
    named.filter(|(_, behind)| !behind.starts_with('(')).map(|(name, _)| name).collect()
}

fn words(text: &str) -> Vec<String> {
    let apart = |c: char| !(c.is_ascii_lowercase() || c == '_');
    text.split(apart).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
