//! What other commands tell of dead letters.

use anyhow::Result;
use events::Millis;

use super::filter::Filter;
use super::letter::{
    ATTEMPTS_HEADER, Decision, FIRST_HEADER, REDRIVEN_BY_HEADER, REDRIVEN_WHY_HEADER,
};
use super::queue::Queue;
use crate::log::Log;

/// Topic and append time of every record whose letter waits. Blocks.
///
/// # Errors
/// When Kafka does not answer.
pub(crate) fn waiting(log: &Log) -> Result<Vec<(String, Millis)>> {
    let queue = Queue::read(log, &Filter::default())?;
    Ok(queue.waiting().map(|letter| (letter.place.topic.clone(), letter.at)).collect())
}

/// A letter as a timeline tells it.
#[derive(Debug)]
pub(crate) struct Told {
    /// When its record was appended.
    pub(crate) at: Millis,
    /// What it is known by.
    pub(crate) place: String,
    /// In a line.
    pub(crate) what: String,
    /// What was done with it.
    pub(crate) more: Vec<String>,
    /// Whether nothing was.
    pub(crate) waits: bool,
}

/// The letters with this key. Blocks.
///
/// # Errors
/// When Kafka does not answer.
pub(crate) fn letters_of(log: &Log, key: &[u8]) -> Result<Vec<Told>> {
    let queue = Queue::read(log, &Filter::default())?;
    let mine = queue.letters.values().filter(|letter| letter.key.as_deref() == Some(key));
    let told = mine.map(|letter| {
        let decision = queue.decisions.get(&letter.place);
        let (place, stage, component) = (&letter.place, &letter.stage, &letter.component);
        let done = decision.map(|decision| {
            let Decision { action, by, why, at, .. } = decision;
            format!("{} {} by {by}: {why}", action.as_str(), crate::moment::text(*at))
        });
        Told {
            at: letter.at,
            place: place.to_string(),
            what: format!("{place}: refused by {component}, {stage}: {}", letter.reason),
            waits: done.is_none(),
            more: done.into_iter().collect(),
        }
    });
    Ok(told.collect())
}

/// How often a record went back, by whom and why, from its headers; `None` if it never did.
pub(crate) fn redriven(header: impl Fn(&str) -> Option<String>) -> Option<String> {
    let attempts = header(ATTEMPTS_HEADER)?;
    let known = |name| header(name).unwrap_or_else(|| "nobody knows".to_owned());
    let (by, why) = (known(REDRIVEN_BY_HEADER), known(REDRIVEN_WHY_HEADER));
    let first = known(FIRST_HEADER);
    Some(format!("redriven, attempt {attempts}, first at {first}, by {by}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_went_back_says_who_sent_it() {
        let headers = |name: &str| {
            let all = [
                (ATTEMPTS_HEADER, "2"),
                (FIRST_HEADER, "orders/3/9"),
                (REDRIVEN_BY_HEADER, "ada@ops"),
                (REDRIVEN_WHY_HEADER, "mended"),
            ];
            all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let told = redriven(headers).expect("it went back");
        assert_eq!(told, "redriven, attempt 2, first at orders/3/9, by ada@ops: mended");
        assert_eq!(redriven(|_| None), None);
    }
}
