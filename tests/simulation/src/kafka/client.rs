//! A member's end of the group protocol, as librdkafka plays it in the background: heartbeats go on
//! while the application restores, and nothing moves until the application has answered a rebalance.

use std::collections::{BTreeSet, VecDeque};

use super::Tp;
use super::group::{Assignment, Beat, Group, Joined, Proof};

/// A note to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Take over.
    Assigned(BTreeSet<Tp>),
    /// Hand over.
    Revoked(BTreeSet<Tp>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Awaiting {
    Nothing,
    Assign,
    Unassign(BTreeSet<Tp>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Out,
    Joining,
    Steady,
    Left,
}

/// A member.
#[derive(Debug)]
pub struct Client {
    instance: String,
    member: u64,
    generation: i64,
    stage: Stage,
    owned: BTreeSet<Tp>,
    awaiting: Awaiting,
    /// Assigned together with a revocation: said after it.
    pending: BTreeSet<Tp>,
    rejoin: bool,
    leaving: bool,
    /// With the proof of the generation that they belong to.
    notes: VecDeque<(Note, Proof)>,
    /// Another process has this instance id.
    pub fenced: bool,
}

impl Client {
    /// A member that has not joined yet.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_string(),
            member: 0,
            generation: -1,
            stage: Stage::Out,
            owned: BTreeSet::new(),
            awaiting: Awaiting::Nothing,
            pending: BTreeSet::new(),
            rejoin: false,
            leaving: false,
            notes: VecDeque::new(),
            fenced: false,
        }
    }

    /// What it can prove now.
    fn proof(&self) -> Proof {
        let (member, generation) = (self.member, self.generation);
        Proof { instance: self.instance.clone(), member, generation }
    }

    /// Notes since the last call; the application polled.
    pub fn notes(&mut self) -> Vec<(Note, Proof)> {
        self.notes.drain(..).collect()
    }

    /// Whether it is a settled member whose application has answered everything.
    pub fn settled(&self) -> bool {
        self.stage == Stage::Steady && self.awaiting == Awaiting::Nothing
    }

    /// One turn of the background thread.
    pub fn tick(&mut self, group: &mut Group, now: u64) {
        if self.fenced || self.stage == Stage::Left {
            return;
        }
        if self.awaiting != Awaiting::Nothing {
            if self.member != 0 {
                match group.beat(&self.instance, self.member, now) {
                    Beat::Fine | Beat::Rebalancing => {}
                    Beat::Unknown => self.forget(),
                    Beat::FencedInstance => self.fenced = true,
                }
            }
            return;
        }
        match self.stage {
            Stage::Out => match group.join(&self.instance, self.member, &self.owned, now) {
                Joined::Waiting(id) => {
                    self.member = id;
                    self.stage = Stage::Joining;
                }
                Joined::Back(id, generation, assignment) => {
                    self.member = id;
                    self.synced((generation, assignment));
                }
                Joined::FencedInstance => self.fenced = true,
                Joined::Unknown => self.lose(),
            },
            Stage::Joining => match group.sync(&self.instance, self.member, now) {
                Ok(Some(assignment)) => self.synced(assignment),
                Ok(None) => {}
                Err(Beat::Unknown) => self.lose(),
                Err(Beat::FencedInstance) => self.fenced = true,
                Err(_) => self.stage = Stage::Out,
            },
            Stage::Steady if self.member == 0 => self.lose(),
            Stage::Steady => match group.beat(&self.instance, self.member, now) {
                Beat::Fine => {}
                Beat::Rebalancing => self.stage = Stage::Out,
                Beat::Unknown => self.lose(),
                Beat::FencedInstance => self.fenced = true,
            },
            Stage::Left => {}
        }
    }

    fn synced(&mut self, (generation, assignment): Assignment) {
        self.generation = generation;
        self.stage = Stage::Steady;
        let revoked: BTreeSet<Tp> = self.owned.difference(&assignment).copied().collect();
        let added: BTreeSet<Tp> = assignment.difference(&self.owned).copied().collect();
        if revoked.is_empty() {
            self.assign(added);
        } else {
            self.rejoin = true;
            self.pending = added;
            self.revoke(revoked);
        }
    }

    fn assign(&mut self, added: BTreeSet<Tp>) {
        self.owned.extend(&added);
        self.awaiting = Awaiting::Assign;
        self.notes.push_back((Note::Assigned(added), self.proof()));
    }

    fn revoke(&mut self, gone: BTreeSet<Tp>) {
        self.awaiting = Awaiting::Unassign(gone.clone());
        self.notes.push_back((Note::Revoked(gone), self.proof()));
    }

    fn forget(&mut self) {
        self.member = 0;
        self.generation = -1;
    }

    /// Thrown out of the group: everything is revoked before it may join again.
    fn lose(&mut self) {
        self.forget();
        self.stage = Stage::Out;
        if !self.owned.is_empty() {
            self.revoke(self.owned.clone());
        }
    }

    /// The application has assigned.
    pub fn assigned(&mut self) {
        if self.awaiting == Awaiting::Assign {
            self.awaiting = Awaiting::Nothing;
            if std::mem::take(&mut self.rejoin) {
                self.stage = Stage::Out;
            }
        }
    }

    /// The application has unassigned.
    pub fn unassigned(&mut self, group: &mut Group) {
        let Awaiting::Unassign(gone) = &self.awaiting else { return };
        let gone = gone.clone();
        self.awaiting = Awaiting::Nothing;
        self.owned.retain(|tp| !gone.contains(tp));
        if self.leaving {
            group.leave(&self.instance, self.member);
            self.stage = Stage::Left;
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() || self.member == 0 {
            self.rejoin = false;
            self.stage = Stage::Out;
        } else {
            self.assign(pending);
        }
    }

    /// The application leaves the group.
    pub fn unsubscribe(&mut self) {
        self.leaving = true;
        self.revoke(self.owned.clone());
    }
}
