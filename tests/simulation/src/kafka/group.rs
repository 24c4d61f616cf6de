//! The consumer group: generations, static members, sessions, cooperative rebalances. Both ends of
//! the protocol: the coordinator, and what librdkafka does in the background of each member.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refused, Tp};

/// Session time-out, microseconds.
const SESSION: u64 = 6_000_000;

/// What a member proves when it commits offsets in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// `group.instance.id`.
    pub instance: String,
    /// Member id; 0 for none.
    pub member: u64,
    /// Generation; −1 for none.
    pub generation: i64,
}

#[derive(Debug)]
struct Member {
    id: u64,
    heard: u64,
    joined: bool,
    /// What it said it owns when it joined.
    owned: BTreeSet<Tp>,
    assignment: BTreeSet<Tp>,
    /// Has not fetched its assignment of this generation yet.
    synced: bool,
}

/// The group coordinator's view.
#[derive(Debug, Default)]
pub struct Group {
    /// Rises with every completed rebalance.
    pub generation: i64,
    /// Committed offsets.
    pub offsets: BTreeMap<Tp, i64>,
    /// Partitions to share out.
    pub partitions: Vec<Tp>,
    members: BTreeMap<String, Member>,
    rebalancing: bool,
    ids: u64,
}

/// What the coordinator answers to a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    /// All is well.
    Fine,
    /// Join again.
    Rebalancing,
    /// Another process has this instance id now.
    FencedInstance,
    /// Not a member (any more).
    Unknown,
}

impl Group {
    /// JoinGroup. Answers the member id, and the generation and assignment at once where a static
    /// member comes back under a new id and nothing needs to change.
    pub fn join(&mut self, instance: &str, id: u64, owned: &BTreeSet<Tp>, now: u64) -> Joined {
        if id != 0 {
            match self.members.get_mut(instance) {
                Some(member) if member.id == id => {
                    member.joined = true;
                    member.heard = now;
                    member.owned.clone_from(owned);
                    self.rebalancing = true;
                    return Joined::Waiting(id);
                }
                Some(_) => return Joined::FencedInstance,
                None => return Joined::Unknown,
            }
        }
        self.ids += 1;
        let id = self.ids;
        if let Some(member) = self.members.get_mut(instance) {
            member.id = id;
            member.heard = now;
            if !self.rebalancing {
                member.synced = true;
                return Joined::Back(id, self.generation, member.assignment.clone());
            }
            member.joined = true;
            member.owned.clone_from(owned);
            return Joined::Waiting(id);
        }
        let member = Member {
            id,
            heard: now,
            joined: true,
            owned: owned.clone(),
            assignment: BTreeSet::new(),
            synced: false,
        };
        self.members.insert(instance.to_string(), member);
        self.rebalancing = true;
        Joined::Waiting(id)
    }

    /// SyncGroup: the assignment, once the rebalance is complete.
    pub fn sync(&mut self, instance: &str, id: u64, now: u64) -> Result<Option<Assignment>, Beat> {
        let (generation, rebalancing) = (self.generation, self.rebalancing);
        let member = self.members.get_mut(instance).ok_or(Beat::Unknown)?;
        if member.id != id {
            return Err(Beat::FencedInstance);
        }
        member.heard = now;
        if member.joined || member.synced {
            return if rebalancing && !member.joined { Err(Beat::Rebalancing) } else { Ok(None) };
        }
        member.synced = true;
        Ok(Some((generation, member.assignment.clone())))
    }

    /// Heartbeat.
    pub fn beat(&mut self, instance: &str, id: u64, now: u64) -> Beat {
        let Some(member) = self.members.get_mut(instance) else { return Beat::Unknown };
        if member.id != id {
            return Beat::FencedInstance;
        }
        member.heard = now;
        if self.rebalancing { Beat::Rebalancing } else { Beat::Fine }
    }

    /// LeaveGroup.
    pub fn leave(&mut self, instance: &str, id: u64) {
        if self.members.get(instance).is_some_and(|member| member.id == id) {
            self.members.remove(instance);
            self.rebalancing = true;
        }
    }

    /// Ends sessions that were not heard of, and the rebalance when everyone has joined.
    pub fn sweep(&mut self, now: u64) -> bool {
        let before = self.members.len();
        self.members.retain(|_, member| now - member.heard < SESSION);
        self.rebalancing |= self.members.len() != before;
        let complete = self.rebalancing && self.members.values().all(|member| member.joined);
        if complete {
            self.complete();
        }
        complete
    }

    fn complete(&mut self) {
        self.generation += 1;
        self.rebalancing = false;
        let targets = self.targets();
        let owners: BTreeMap<Tp, String> = self
            .members
            .iter()
            .flat_map(|(name, member)| member.owned.iter().map(|tp| (*tp, name.clone())))
            .collect();
        for (name, member) in &mut self.members {
            let free = |tp: &&Tp| owners.get(*tp).is_none_or(|owner| owner == name);
            member.assignment = targets[name].iter().filter(free).copied().collect();
            member.joined = false;
            member.synced = false;
        }
    }

    /// Evenly, everyone keeping what it owns as far as that goes.
    fn targets(&self) -> BTreeMap<String, BTreeSet<Tp>> {
        let names: Vec<&String> = self.members.keys().collect();
        let mut targets: BTreeMap<String, BTreeSet<Tp>> =
            names.iter().map(|name| ((*name).clone(), BTreeSet::new())).collect();
        if names.is_empty() {
            return targets;
        }
        let most = self.partitions.len().div_ceil(names.len());
        let mut left = Vec::new();
        for tp in &self.partitions {
            let owner = self.members.iter().find(|(_, member)| member.owned.contains(tp));
            match owner.and_then(|(name, _)| targets.get_mut(name)) {
                Some(target) if target.len() < most => {
                    target.insert(*tp);
                }
                _ => left.push(*tp),
            }
        }
        for tp in left {
            let least = targets.values_mut().min_by_key(|target| target.len());
            least.expect("there are members").insert(tp);
        }
        targets
    }

    /// TxnOffsetCommit's check.
    ///
    /// # Errors
    /// When the proof is not of a present member and generation.
    pub fn admit(&self, proof: &Proof) -> Result<(), Refused> {
        match self.members.get(&proof.instance) {
            None => Err(Refused::UnknownMember),
            Some(member) if member.id != proof.member => Err(Refused::FencedInstance),
            Some(_) if proof.generation != self.generation => Err(Refused::IllegalGeneration),
            Some(_) => Ok(()),
        }
    }

    /// Whether partitions were left to nobody: a member that handed them over died before it joined
    /// again, and came back under its instance id, for which the coordinator starts no rebalance.
    pub fn stranded(&self) -> bool {
        let assigned = self.members.values().map(|member| member.assignment.len()).sum::<usize>();
        self.stable() && !self.members.is_empty() && assigned < self.partitions.len()
    }

    /// What any member that comes or goes does.
    pub fn rebalance(&mut self) {
        self.rebalancing = true;
    }

    /// Whether every member has its assignment and nothing changes.
    pub fn stable(&self) -> bool {
        !self.rebalancing && self.members.values().all(|member| member.synced)
    }
}

/// Generation and partitions.
pub type Assignment = (i64, BTreeSet<Tp>);

/// What the coordinator answers to a JoinGroup.
#[derive(Debug)]
pub enum Joined {
    /// Under this member id; the rebalance goes on.
    Waiting(u64),
    /// A static member is back: member id, generation, assignment as before.
    Back(u64, i64, BTreeSet<Tp>),
    /// Another process has this instance id now.
    FencedInstance,
    /// The member id is not known (any more).
    Unknown,
}
