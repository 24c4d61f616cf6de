//! `tillroll dlq list` and `audit`: what waits, why, and what was done.

use std::collections::BTreeMap;

use anyhow::Result;
use events::Millis;
use serde_json::{Value, json};

use super::filter::Filter;
use super::letter::{Action, Decision, Letter, Place, key_text};
use super::queue::Queue;
use crate::connection::Connection;
use crate::log::Log;
use crate::{moment, output};

/// Most reasons that are listed of a topic; texts with numbers in them could be any number.
const REASONS: usize = 10;

/// Flags of `tillroll dlq list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
    /// One line per letter
    #[arg(long)]
    each: bool,
    /// Print as JSON, letters included
    #[arg(long)]
    json: bool,
}

/// Flags of `tillroll dlq audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(arguments: List) -> Result<()> {
    let List { connection, filter, each, json } = arguments;
    let (queue, filter) = read(&connection, filter).await?;
    let waiting: Vec<&Letter> = queue.waiting().filter(|letter| filter.fits(letter)).collect();
    let topics = summary(&queue, &filter, &waiting);
    if json {
        let letters: Vec<Value> = waiting.iter().map(|letter| letter_json(letter)).collect();
        let topics: Vec<Value> = topics.iter().map(|(topic, sums)| sums.json(topic)).collect();
        let document = json!({ "waiting": waiting.len(), "topics": topics, "letters": letters });
        return output::data(&serde_json::to_string_pretty(&document)?);
    }
    let now = moment::now();
    let lines = if each { letter_lines(&waiting, now) } else { topic_lines(&topics, now) };
    for line in lines {
        output::data(&line)?;
    }
    queue.mention_strange();
    if waiting.is_empty() {
        output::message("no dead letters wait");
    } else {
        let next = if each {
            format!("look at one: tillroll dlq show {}", waiting[0].place)
        } else {
            "one line per letter: tillroll dlq list --each".to_owned()
        };
        output::message(&format!("{} dead letters wait; {next}", waiting.len()));
    }
    Ok(())
}

pub(super) async fn audit(arguments: Audit) -> Result<()> {
    let Audit { connection, filter, json } = arguments;
    let (queue, filter) = read(&connection, filter).await?;
    let fits = |place: &Place| queue.letters.get(place).is_some_and(|letter| filter.fits(letter));
    let mut decisions: Vec<&Decision> =
        queue.decisions.values().filter(|d| filter.is_empty() || fits(&d.letter)).collect();
    decisions.sort_by_key(|decision| (decision.at, &decision.letter));
    if json {
        return output::data(&serde_json::to_string_pretty(&decisions)?);
    }
    let line = |decision: &&Decision| {
        let Decision { letter, action, by, why, at } = decision;
        let (at, letter, action) = (moment::text(*at), letter.to_string(), action.as_str().into());
        vec![at, letter, action, by.clone(), why.clone()]
    };
    let rows: Vec<Vec<String>> = decisions.iter().map(line).collect();
    for line in output::table(&[false; 5], &rows) {
        output::data(&line)?;
    }
    output::message(&format!("{} decisions", decisions.len()));
    Ok(())
}

async fn read(connection: &Connection, filter: Filter) -> Result<(Queue, Filter)> {
    let brokers = connection.brokers()?;
    tokio::task::spawn_blocking(move || {
        let queue = Queue::read(&Log::connect(&brokers)?, &filter)?;
        Ok((queue, filter))
    })
    .await?
}

/// What is said of a topic's queue.
#[derive(Debug, Default)]
struct Sums {
    waiting: u64,
    redriven: u64,
    dropped: u64,
    oldest: Option<Millis>,
    newest: Option<Millis>,
    /// Letters that wait, by stage, component without its partition, and reason.
    reasons: BTreeMap<(String, String, String), u64>,
}

fn summary(queue: &Queue, filter: &Filter, waiting: &[&Letter]) -> BTreeMap<String, Sums> {
    let mut topics: BTreeMap<String, Sums> = BTreeMap::new();
    for letter in waiting {
        let sums = topics.entry(letter.place.topic.clone()).or_default();
        sums.waiting += 1;
        sums.oldest = Some(sums.oldest.map_or(letter.at, |at| at.min(letter.at)));
        sums.newest = Some(sums.newest.map_or(letter.at, |at| at.max(letter.at)));
        let reason = (letter.stage.clone(), service(&letter.component), letter.reason.clone());
        *sums.reasons.entry(reason).or_default() += 1;
    }
    for letter in queue.letters.values().filter(|letter| filter.fits(letter)) {
        if let Some(decision) = queue.decisions.get(&letter.place) {
            let sums = topics.entry(letter.place.topic.clone()).or_default();
            match decision.action {
                Action::Redriven => sums.redriven += 1,
                Action::Dropped => sums.dropped += 1,
            }
        }
    }
    topics
}

/// `orders-3` is the processor `orders`; a sink is `sinks/tracking`.
fn service(component: &str) -> String {
    match component.rsplit_once('-') {
        Some((name, partition)) if partition.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => component.to_owned(),
    }
}

impl Sums {
    /// Reasons with the most letters first.
    fn ranked(&self) -> Vec<(&(String, String, String), u64)> {
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, n)| (reason, *n)).collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    fn json(&self, topic: &str) -> Value {
        let reasons = self.ranked().into_iter().map(|((stage, service, reason), count)| {
            json!({ "count": count, "stage": stage, "service": service, "reason": reason })
        });
        json!({
            "topic": topic,
            "waiting": self.waiting,
            "redriven": self.redriven,
            "dropped": self.dropped,
            "oldest": self.oldest.map(moment::text),
            "newest": self.newest.map(moment::text),
            "reasons": reasons.collect::<Vec<_>>(),
        })
    }
}

fn topic_lines(topics: &BTreeMap<String, Sums>, now: Millis) -> Vec<String> {
    let names = ["topic", "waiting", "oldest", "newest", "redriven", "dropped"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    let age = |at: Option<Millis>| at.map_or("-".to_owned(), |at| moment::age(now.0 - at.0));
    for (topic, sums) in topics {
        let number = |n: u64| n.to_string();
        let (oldest, newest) = (age(sums.oldest), age(sums.newest));
        let (waiting, topic) = (number(sums.waiting), topic.clone());
        rows.push(vec![
            topic,
            waiting,
            oldest,
            newest,
            number(sums.redriven),
            number(sums.dropped),
        ]);
    }
    if topics.is_empty() {
        return Vec::new();
    }
    let table = output::table(&[false, true, true, true, true, true], &rows);
    let mut lines = vec![table[0].clone()];
    for (line, sums) in table[1..].iter().zip(topics.values()) {
        lines.push(line.clone());
        let ranked = sums.ranked();
        for ((stage, service, reason), count) in ranked.iter().take(REASONS) {
            lines.push(format!("  {count:>6}  {stage} by {service}: {reason}"));
        }
        if ranked.len() > REASONS {
            lines.push(format!("          and {} more reasons: --json", ranked.len() - REASONS));
        }
    }
    lines
}

fn letter_lines(letters: &[&Letter], now: Millis) -> Vec<String> {
    let line = |letter: &&Letter| {
        let Letter { place, at, attempts, reason, .. } = letter;
        let (age, attempts) = (moment::age(now.0 - at.0), format!("redriven {attempts}x"));
        vec![place.to_string(), key_text(letter.key.as_deref()), age, attempts, reason.clone()]
    };
    let rows: Vec<Vec<String>> = letters.iter().map(line).collect();
    output::table(&[false, false, true, false, false], &rows)
}

pub(super) fn letter_json(letter: &Letter) -> Value {
    json!({
        "letter": letter.place,
        "first": letter.first,
        "queued": letter.queued.1,
        "key": key_text(letter.key.as_deref()),
        "at": moment::text(letter.at),
        "bytes": letter.size,
        "component": letter.component,
        "stage": letter.stage,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "cut": letter.cut,
    })
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::super::queue::tests::queue;
    use super::*;

    #[test]
    fn a_topic_says_how_many_wait_since_when_and_why() {
        let letters = vec![
            letter("orders/1/4", "a", &[]),
            letter("orders/1/5", "a", &[]),
            letter("orders/2/6", "a", &[("__connect.errors.exception.message", "too big")]),
            letter("orders/2/7", "a", &[]),
            letter("stock/1/8", "a", &[]),
        ];
        let decided = [("orders/2/7", Action::Redriven), ("stock/1/8", Action::Dropped)];
        let queue = queue(letters, &decided);
        let waiting: Vec<&Letter> = queue.waiting().collect();
        let topics = summary(&queue, &Filter::default(), &waiting);
        assert_eq!(
            topic_lines(&topics, Millis(61_000)),
            [
                "topic   waiting  oldest  newest  redriven  dropped",
                "orders        3    60 s    60 s         1        0",
                "       2  decode by orders: schema id 7 was never registered",
                "       1  decode by orders: too big",
                "stock         0       -       -         0        1",
            ]
        );
        let json = topics["orders"].json("orders");
        assert_eq!(json["reasons"][0]["count"], 2);
        assert_eq!(json["oldest"], "1970-01-01T00:00:01.000Z");
    }

    #[test]
    fn each_letter_is_one_line() {
        let letter = letter("orders/1/4", "a", &[]);
        let lines = letter_lines(&[&letter], Millis(61_000));
        let expected = "orders/1/4  a  60 s  redriven 0x  schema id 7 was never registered";
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn services_are_components_without_partitions() {
        assert_eq!(service("orders-3"), "orders");
        assert_eq!(service("sinks/tracking"), "sinks/tracking");
        assert_eq!(service("a-b"), "a-b");
    }
}
