//! Which letters go back, in which order, and which are left where they are.

use std::collections::{BTreeMap, BTreeSet};

use super::letter::{Letter, Place};
use super::queue::Queue;

/// Why a letter that was asked for is left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub(crate) enum Left {
    /// Its bytes are not whole.
    Cut {
        /// What is missing.
        what: String,
    },
    /// It was redriven that often already.
    Attempts {
        /// How often.
        attempts: u32,
    },
    /// An earlier letter of the same key would be overtaken.
    Behind {
        /// That letter.
        letter: Place,
    },
    /// A newer record of the same key stands in its compacted topic.
    Superseded,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cut { what } => {
                write!(f, "too large to be kept whole ({what}): have it sent again, then drop it")
            }
            Self::Attempts { attempts } => {
                write!(f, "redriven {attempts} times in vain: mend the cause, or --attempts more")
            }
            Self::Behind { letter } => {
                write!(f, "{letter} of the same key comes first: redrive or drop that one too")
            }
            Self::Superseded => f.write_str("a newer record of its key is there already: drop it"),
        }
    }
}

/// What a redrive does.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// To be redriven, in this order.
    pub(crate) go: Vec<&'a Letter>,
    /// Asked for, and left.
    pub(crate) left: Vec<(&'a Letter, Left)>,
    /// How many were asked for and stand behind the last one that the limit allows: for another run.
    pub(crate) more: usize,
}

/// What bounds a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Letters redriven that often or more are left.
    pub(crate) attempts: u32,
    /// Most letters of one run.
    pub(crate) letters: usize,
}

/// Plans a redrive: letters in the order in which their records first stood in their partitions. A letter
/// that would overtake another one of its key, which is left or was not `asked` for, is left.
/// `superseded` knows the letters that a compacted topic has gone on without.
pub(crate) fn plan<'a>(
    queue: &'a Queue,
    asked: impl Fn(&Letter) -> bool,
    limits: Limits,
    superseded: &BTreeSet<Place>,
) -> Plan<'a> {
    let mut waiting: Vec<&Letter> = queue.waiting().collect();
    waiting.sort_by_key(|letter| (&letter.first, &letter.place));
    let mut plan = Plan::default();
    // By topic, partition and key: the first letter that stays.
    let mut staying: BTreeMap<(&str, i32, &[u8]), &Letter> = BTreeMap::new();
    for letter in waiting {
        let asked = asked(letter);
        // What stands behind the last one is for the next run, and not left for a cause of its own.
        if plan.go.len() == limits.letters {
            plan.more += usize::from(asked);
            continue;
        }
        if superseded.contains(&letter.place) {
            // It goes nowhere any more, so nothing overtakes it.
            plan.left.extend(asked.then_some((letter, Left::Superseded)));
            continue;
        }
        let line = letter.key.as_deref();
        let line = line.map(|key| (letter.first.topic.as_str(), letter.first.partition, key));
        let left = if let Some(what) = &letter.cut {
            Some(Left::Cut { what: what.clone() })
        } else if letter.attempts >= limits.attempts {
            Some(Left::Attempts { attempts: letter.attempts })
        } else {
            // Records without a key have no order among each other.
            let first = line.and_then(|line| staying.get(&line));
            first.map(|first| Left::Behind { letter: first.place.clone() })
        };
        if asked && left.is_none() {
            plan.go.push(letter);
            continue;
        }
        if let Some(line) = line {
            staying.entry(line).or_insert(letter);
        }
        plan.left.extend(left.filter(|_| asked).map(|left| (letter, left)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::filter::Filter;
    use super::super::letter::tests::letter;
    use super::super::letter::{ATTEMPTS_HEADER, Action, FIRST_HEADER};
    use super::super::queue::tests::queue;
    use super::*;
    use wire::dead_letter::CUT_HEADER;

    const LIMITS: Limits = Limits { attempts: 3, letters: 100 };

    fn planned(queue: &Queue, filter: &Filter, limits: Limits) -> (Vec<String>, Vec<String>) {
        let plan = plan(queue, |letter| filter.fits(letter), limits, &BTreeSet::new());
        let left = plan.left.iter().map(|(l, why)| format!("{}: {why}", l.place));
        (plan.go.iter().map(|l| l.place.to_string()).collect(), left.collect())
    }

    #[test]
    fn letters_go_back_in_the_order_of_their_partitions_once_each() {
        let letters = vec![
            letter("orders/1/12", "a", &[]),
            letter("orders/1/9", "a", &[]),
            letter("orders/0/40", "b", &[]),
            letter("orders/1/10", "c", &[]),
            letter("orders/1/9", "a", &[]),
        ];
        let queue = queue(letters, &[("orders/1/10", Action::Dropped)]);
        let (go, left) = planned(&queue, &Filter::default(), LIMITS);
        assert_eq!(go, ["orders/0/40", "orders/1/9", "orders/1/12"]);
        assert!(left.is_empty());
    }

    #[test]
    fn a_letter_that_came_back_keeps_its_turn() {
        let again = [(ATTEMPTS_HEADER, "1"), (FIRST_HEADER, "orders/1/4")];
        let letters = vec![letter("orders/1/5", "a", &[]), letter("orders/1/90", "a", &again)];
        let queue = queue(letters, &[]);
        let (go, _) = planned(&queue, &Filter::default(), LIMITS);
        assert_eq!(go, ["orders/1/90", "orders/1/5"]);
    }

    #[test]
    fn nothing_overtakes_a_letter_of_its_key() {
        let letters = vec![
            letter("orders/1/4", "a", &[(CUT_HEADER, "value of 9 bytes cut to 4")]),
            letter("orders/1/5", "a", &[]),
            letter("orders/1/6", "b", &[]),
            letter("orders/2/7", "a", &[]),
            letter("stock/1/8", "a", &[]),
            letter("orders/1/9", "b", &[(ATTEMPTS_HEADER, "3")]),
            letter("orders/1/10", "b", &[]),
        ];
        let queue = queue(letters, &[]);
        let (go, left) = planned(&queue, &Filter::default(), LIMITS);
        assert_eq!(go, ["orders/1/6", "orders/2/7", "stock/1/8"]);
        let starts = ["orders/1/4: too large", "orders/1/5: orders/1/4 of the same key"];
        let more = ["orders/1/9: redriven 3 times", "orders/1/10: orders/1/9 of the same key"];
        assert_eq!(left.len(), 4, "{left:?}");
        for (left, start) in left.iter().zip(starts.iter().chain(&more)) {
            assert!(left.starts_with(start), "{left}, not {start}");
        }
    }

    #[test]
    fn a_letter_that_was_not_asked_for_is_not_overtaken_either() {
        let letters = vec![letter("orders/1/4", "a", &[]), letter("orders/1/5", "a", &[])];
        let queue = queue(letters, &[]);
        let place = |text: &str| text.parse().expect("a place");
        let second = Filter { places: vec![place("orders/1/5")], ..Filter::default() };
        let (go, left) = planned(&queue, &second, LIMITS);
        assert!(go.is_empty());
        assert_eq!(left.len(), 1);
        let first = Filter { places: vec![place("orders/1/4")], ..Filter::default() };
        assert_eq!(planned(&queue, &first, LIMITS), (vec!["orders/1/4".into()], vec![]));
    }

    #[test]
    fn a_limit_takes_the_first_ones() {
        let letters = ["orders/1/4", "orders/1/5", "orders/1/6"].map(|at| letter(at, "a", &[]));
        let queue = queue(letters.to_vec(), &[]);
        let more = |limit| {
            let limits = Limits { letters: limit, ..LIMITS };
            let plan = plan(&queue, |l| l.place.offset != 5, limits, &BTreeSet::new());
            (plan.go.len(), plan.left.len(), plan.more)
        };
        assert_eq!(more(1), (1, 0, 1));
        // The last one stands behind one that was not asked for.
        assert_eq!(more(2), (1, 1, 0));
    }

    #[test]
    fn what_a_compacted_topic_went_on_without_is_left() {
        let queue = queue(vec![letter("stock-levels/0/4", "a", &[])], &[]);
        let superseded = [("stock-levels/0/4".parse().expect("a place"))].into();
        let plan = plan(&queue, |_| true, LIMITS, &superseded);
        assert_eq!(plan.left[0].1, Left::Superseded);
    }
}
