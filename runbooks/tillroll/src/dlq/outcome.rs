//! What a run of `tillroll dlq redrive` or `drop` comes to.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::filter::Filter;
use super::letter::{Action, Letter, Place, key_text};
use super::plan::{Left, Plan};
use crate::output;

/// There are more letters than `--limit`: run the same command again.
const MORE: u8 = 4;

/// What a run has done so far, and what it still has to do.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Letters that were decided about, and their keys.
    go: Vec<(Place, String)>,
    /// Letters that were asked for and left, and their keys.
    left: Vec<(Place, String, Left)>,
    /// How many letters that were asked for are beyond the limit.
    more: usize,
    /// What the last plan had, and is not done; `None` before the first plan.
    rest: Option<BTreeSet<Place>>,
}

impl Outcome {
    /// Whether nothing was planned yet.
    pub(super) fn is_new(&self) -> bool {
        self.rest.is_none()
    }

    /// Whether the next plan is about a letter. Of a second one nothing is asked but what the first one had:
    /// what was refused again meanwhile is left to another run.
    pub(super) fn asks(&self, filter: &Filter, letter: &Letter) -> bool {
        match &self.rest {
            None => filter.fits(letter),
            Some(rest) => rest.contains(&letter.place),
        }
    }

    /// Enters a plan, the first `done` letters of which were decided about. Returns how many letters of the
    /// rest it should have had and has not: another run has decided about them.
    pub(super) fn enter(&mut self, plan: &Plan<'_>, done: usize) -> usize {
        let named = |letter: &Letter| (letter.place.clone(), key_text(letter.key.as_deref()));
        let planned = plan.go.len() + plan.left.len();
        let others = self.rest.as_ref().map_or(0, |rest| rest.len().saturating_sub(planned));
        self.go.extend(plan.go[..done].iter().map(|letter| named(letter)));
        self.left.extend(plan.left.iter().map(|(letter, left)| {
            let (place, key) = named(letter);
            (place, key, left.clone())
        }));
        self.more += plan.more;
        self.rest = Some(plan.go[done..].iter().map(|letter| letter.place.clone()).collect());
        others
    }

    /// Whether all that was planned is done.
    pub(super) fn is_done(&self) -> bool {
        self.rest.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// What the run is to end with. More letters count before those that were left, which the last of all
    /// runs tells again.
    pub(super) fn exit_code(&self) -> ExitCode {
        match (self.more, self.left.as_slice()) {
            (1.., _) => ExitCode::from(MORE),
            (0, []) => ExitCode::SUCCESS,
            (0, _) => ExitCode::FAILURE,
        }
    }

    /// Says how far a run came that failed, if it had begun.
    pub(super) fn mention(&self, action: Action) {
        if let Some(rest) = &self.rest {
            let (go, all) = (self.go.len(), self.go.len() + rest.len());
            output::message(&format!("{go} of {all} letters {}", action.as_str()));
        }
    }

    /// Prints what was done, or would be.
    pub(super) fn report(&self, action: Action, dry_run: bool, as_json: bool) -> Result<()> {
        if as_json {
            let go: Vec<&Place> = self.go.iter().map(|(place, _)| place).collect();
            let left = self.left.iter().map(|(place, _, left)| {
                json!({ "letter": place, "left": left, "because": left.to_string() })
            });
            let left: Vec<_> = left.collect();
            let more = self.more;
            let done =
                json!({ "dry_run": dry_run, action.as_str(): go, "left": left, "more": more });
            output::data(&serde_json::to_string_pretty(&done)?)?;
            self.mention_more(dry_run);
            return Ok(());
        }
        let would = if dry_run { "would be " } else { "" };
        for (place, key) in &self.go {
            output::data(&format!("{place}  {key}  {would}{}", action.as_str()))?;
        }
        for (place, key, left) in &self.left {
            output::data(&format!("{place}  {key}  left: {left}"))?;
        }
        let (go, left) = (self.go.len(), self.left.len());
        output::message(&format!("{go} letters {would}{}, {left} left", action.as_str()));
        if action == Action::Redriven && go > 0 && !dry_run {
            output::message("what is refused again shows up in `tillroll dlq list --since 1m`");
        }
        self.mention_more(dry_run);
        Ok(())
    }

    fn mention_more(&self, dry_run: bool) {
        let next = if dry_run { "give a higher one" } else { "run the same command again" };
        if self.more > 0 {
            let more = self.more;
            output::message(&format!("tillroll: {more} letters more than --limit wait: {next}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::super::letter::{ATTEMPTS_HEADER, FIRST_HEADER};
    use super::super::plan::{Limits, plan};
    use super::super::queue::tests::queue;
    use super::*;

    const LIMITS: Limits = Limits { attempts: 3, letters: 3 };

    #[test]
    fn after_a_slow_commit_the_rest_is_planned_anew_without_what_others_did() {
        let letters = ["orders/1/4", "orders/1/5", "orders/1/6", "orders/1/7"];
        let mut letters = letters.map(|at| letter(at, at, &[])).to_vec();
        let filter = Filter::default();
        let mut outcome = Outcome::default();
        let planned = |letters: &[Letter], decided: &[(&str, Action)], outcome: &mut Outcome| {
            let queue = queue(letters.to_vec(), decided);
            let asked = |letter: &Letter| outcome.asks(&filter, letter);
            let plan = plan(&queue, asked, LIMITS, &BTreeSet::new());
            let go: Vec<String> = plan.go.iter().map(|l| l.place.to_string()).collect();
            // Every commit is slow.
            (go, outcome.enter(&plan, 1.min(plan.go.len())))
        };
        let (go, others) = planned(&letters, &[], &mut outcome);
        assert_eq!((go.len(), others, outcome.is_done()), (3, 0, false));
        // The first one is back already, and another run has begun with the second.
        let again = [(ATTEMPTS_HEADER, "1"), (FIRST_HEADER, "orders/1/4")];
        letters.push(letter("orders/1/90", "orders/1/4", &again));
        let decided = [("orders/1/4", Action::Redriven), ("orders/1/5", Action::Dropped)];
        let (go, others) = planned(&letters, &decided, &mut outcome);
        assert_eq!((go, others), (vec!["orders/1/6".to_owned()], 1));
        assert!(outcome.is_done());
        // One was beyond the limit from the beginning.
        assert_eq!((outcome.more, outcome.left.len()), (1, 0));
        let done: Vec<String> = outcome.go.iter().map(|(place, _)| place.to_string()).collect();
        assert_eq!(done, ["orders/1/4", "orders/1/6"]);
    }

    #[test]
    fn that_there_are_more_is_told_apart_from_what_is_left() {
        let code = |more: usize, places: &[&str]| {
            let left =
                |place: &&str| (place.parse().expect("a place"), String::new(), Left::Superseded);
            let left = places.iter().map(left).collect();
            format!("{:?}", Outcome { more, left, ..Outcome::default() }.exit_code())
        };
        assert_eq!(code(0, &[]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(0, &["orders/1/4"]), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(2, &[]), format!("{:?}", ExitCode::from(4)));
        assert_eq!(code(2, &["orders/1/4"]), format!("{:?}", ExitCode::from(4)));
    }
}
