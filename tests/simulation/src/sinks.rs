//! Models of the sinks and their databases: tracking writes rows and offset in one transaction;
//! reports inserts rows and commits its offset after that. Two processes share each sink; a paused one
//! becomes a zombie that goes on where it stood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use events::{OrderKey, Origin, Record, topics};

use machines::planted;

use crate::kafka::Tp;
use crate::kafka::log::{Entry, Header};
use crate::world::faults::Fault;
use crate::world::{Event, World};

/// Processes of each sink.
const MEMBERS: usize = 2;
/// Transactions that the database has not synced.
const UNSYNCED: usize = 10;

/// One status event as a table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRow {
    /// Term and sequence of its batch.
    pub origin: (u64, u64),
    /// Status, as text.
    pub status: &'static str,
}

/// Identity of a status event.
pub type StatusKey = (OrderKey, i32);

/// Rows and offsets of tracking.
#[derive(Debug, Clone, Default)]
pub struct Postgres {
    /// History.
    pub history: BTreeMap<StatusKey, StatusRow>,
    /// Newest version and status of an order.
    pub current: BTreeMap<OrderKey, (i32, &'static str)>,
    /// Newest version and pieces (on hand, reserved, allocated) of a stock level.
    pub levels: BTreeMap<Vec<u8>, (i64, [i64; 3])>,
    offsets: BTreeMap<Tp, i64>,
}

/// Rows of reports, as inserted.
#[derive(Debug, Clone, Default)]
pub struct ClickHouse {
    /// What a reader sees: of the rows of a key the one of the highest origin.
    pub rows: BTreeMap<StatusKey, StatusRow>,
    /// The group's offset per partition.
    offsets: BTreeMap<Tp, i64>,
}

#[derive(Debug, Clone)]
enum Stage {
    /// Reads from this offset on.
    Collecting(i64),
    /// Holds the records of `from..to`.
    Writing(i64, i64, Vec<Entry>),
}

#[derive(Debug, Default)]
struct Member {
    stages: BTreeMap<Tp, Stage>,
    paused_until: u64,
    down_until: u64,
}

/// Both sinks.
#[derive(Debug)]
pub struct Sinks {
    members: Vec<Member>,
    /// Who owns a partition: member index by sink (0 tracking, 1 reports).
    owners: [usize; 2],
    /// Tracking's database.
    pub postgres: Postgres,
    unsynced: VecDeque<Postgres>,
    /// Reports' database.
    pub clickhouse: ClickHouse,
    /// Partitions of every topic.
    partitions: u8,
}

impl Sinks {
    /// Sinks that have read nothing.
    pub fn new(partitions: u8) -> Self {
        Self {
            members: (0..2 * MEMBERS).map(|_| Member::default()).collect(),
            owners: [0, 0],
            postgres: Postgres::default(),
            unsynced: VecDeque::new(),
            clickhouse: ClickHouse::default(),
            partitions,
        }
    }

    /// Processes.
    pub fn count(&self) -> usize {
        self.members.len()
    }
}

fn sink_of(member: usize) -> usize {
    member / MEMBERS
}

impl World {
    pub(super) fn sink_moves(&mut self, member: usize) {
        let after = self.chance.between(2_000, if self.faulty { 30_000 } else { 60_000 });
        let state = &self.sinks.members[member];
        let resumes = state.paused_until.max(state.down_until);
        if resumes > self.now {
            return self.schedule(resumes - self.now + 1, Event::Sink(member));
        }
        self.schedule(after, Event::Sink(member));
        if !self.online() {
            return;
        }
        let sink = sink_of(member);
        let owns = self.sinks.owners[sink] == member % MEMBERS;
        let mut places: BTreeSet<Tp> = self.sinks.members[member].stages.keys().copied().collect();
        if owns {
            for partition in 0..self.sinks.partitions {
                places.insert(self.kafka.tp(topics::ORDER_STATUS.name, i32::from(partition)));
                if sink == 0 {
                    places.insert(self.kafka.tp(topics::STOCK_LEVELS.name, i32::from(partition)));
                }
            }
        }
        for place in places {
            let stage = self.sinks.members[member].stages.remove(&place);
            let next = match stage {
                None if owns => Some(self.open(sink, place)),
                None => None,
                Some(Stage::Collecting(from)) if owns => Some(self.collect(sink, place, from)),
                // Revoked while it held nothing.
                Some(Stage::Collecting(..)) => None,
                Some(Stage::Writing(from, to, records)) if sink == 0 => {
                    self.transact(place, from, to, records)
                }
                Some(Stage::Writing(from, to, records)) => self.insert(place, from, to, records),
            };
            if let Some(next) = next {
                self.sinks.members[member].stages.insert(place, next);
            }
        }
    }

    fn open(&self, sink: usize, place: Tp) -> Stage {
        let offsets =
            if sink == 0 { &self.sinks.postgres.offsets } else { &self.sinks.clickhouse.offsets };
        Stage::Collecting(offsets.get(&place).copied().unwrap_or(0))
    }

    fn collect(&mut self, sink: usize, place: Tp, from: i64) -> Stage {
        let most = self.chance.index(40) + 1;
        let log = self.kafka.log(place);
        let records: Vec<Entry> =
            log.committed(from, log.end()).take(most).map(|(entry, _)| entry.clone()).collect();
        let Some(newest) = records.last().map(|entry| entry.offset) else {
            return Stage::Collecting(from);
        };
        if sink == 1 && planted!(SinkAcknowledgesFirst) {
            self.sinks.clickhouse.offsets.insert(place, newest + 1);
        }
        self.moved = self.now;
        Stage::Writing(from, newest + 1, records)
    }

    fn transact(&mut self, place: Tp, from: i64, to: i64, records: Vec<Entry>) -> Option<Stage> {
        self.moved = self.now;
        let guarded = !planted!(SinkWithoutGuards);
        let known = self.sinks.postgres.offsets.get(&place).copied().unwrap_or(0);
        if guarded && known != from {
            self.coverage.hit("sink: zombie rolled back");
            return None;
        }
        let before = self.sinks.postgres.clone();
        for entry in &records {
            let Some((record, origin)) = self.read(entry) else { continue };
            self.sinks.postgres.write(record, origin, entry, guarded);
        }
        self.sinks.postgres.offsets.insert(place, to);
        self.sinks.unsynced.push_back(before);
        if self.sinks.unsynced.len() > UNSYNCED {
            self.sinks.unsynced.pop_front();
        }
        self.coverage.hit("sink: transaction");
        // Committed, but the answer is lost: the offset is read anew.
        if self.faulty && self.chance.per_mille(20) {
            self.coverage.hit("sink: answer of the database lost");
            return None;
        }
        Some(Stage::Collecting(to))
    }

    fn insert(&mut self, place: Tp, from: i64, to: i64, records: Vec<Entry>) -> Option<Stage> {
        self.moved = self.now;
        // Whether a failed insert stored its rows is not known: it is done again.
        let failed = self.faulty && self.chance.per_mille(60);
        if failed && self.chance.per_mille(500) {
            self.coverage.hit("sink: block not stored");
            return Some(Stage::Writing(from, to, records));
        }
        for entry in &records {
            let Some((Record::OrderStatusChanged(changed), origin)) = self.read(entry) else {
                continue;
            };
            let order = OrderKey { order_id: changed.order_id, accepted_at: changed.accepted_at };
            let row = StatusRow { origin, status: changed.status.as_str() };
            keep_newest(&mut self.sinks.clickhouse.rows, (order, changed.version), row);
        }
        self.coverage.hit("sink: block inserted");
        if failed {
            self.coverage.hit("sink: answer of the database lost");
            return Some(Stage::Writing(from, to, records));
        }
        // A zombie's commit of the group's offset is refused.
        let known = self.sinks.clickhouse.offsets.get(&place).copied().unwrap_or(0);
        if known != from && !planted!(SinkAcknowledgesFirst) {
            self.coverage.hit("sink: block inserted by two");
            return None;
        }
        self.sinks.clickhouse.offsets.insert(place, to);
        Some(Stage::Collecting(to))
    }

    fn read(&self, entry: &Entry) -> Option<(Record, (u64, u64))> {
        let record = entry.record.as_ref()?;
        let origin = match &record.header {
            Header::Origin(text) => text.parse::<Origin>().ok()?,
            _ => return None,
        };
        let decoded = self.codec.decode(record.value.as_deref()?).ok()?;
        Some((decoded, (origin.term, origin.sequence)))
    }

    pub(super) fn kill_sink(&mut self, member: usize) {
        self.fault("sink killed");
        let down = self.now + self.chance.between(50_000, 2_000_000);
        let state = &mut self.sinks.members[member];
        state.stages.clear();
        state.down_until = down;
        self.pass_on(member);
    }

    pub(super) fn pause_sink(&mut self, member: usize, time: u64) {
        let writing = |stage: &Stage| matches!(stage, Stage::Writing(..));
        if !self.sinks.members[member].stages.values().any(writing) {
            if self.faulty {
                let after = self.chance.between(3_000, 20_000);
                self.schedule(after, Event::Fault(Fault::SinkPause(member, time)));
            }
            return;
        }
        self.fault("sink paused");
        self.sinks.members[member].paused_until = self.now + time;
        self.pass_on(member);
    }

    fn pass_on(&mut self, member: usize) {
        let owner = &mut self.sinks.owners[sink_of(member)];
        if *owner == member % MEMBERS {
            *owner = (*owner + 1) % MEMBERS;
            // It opens what it gets; what it held in an earlier generation is revoked.
            let next = sink_of(member) * MEMBERS + *owner;
            let writing = |_: &Tp, stage: &mut Stage| matches!(stage, Stage::Writing(..));
            self.sinks.members[next].stages.retain(writing);
        }
    }

    /// `synchronous_commit=off`: the newest transactions vanish, rows and offsets together.
    pub(super) fn cut_database(&mut self) {
        let lost = self.chance.index(self.sinks.unsynced.len() + 1);
        if lost == 0 {
            return;
        }
        self.fault("database lost its newest transactions");
        for _ in 0..lost {
            if let Some(before) = self.sinks.unsynced.pop_back() {
                self.sinks.postgres = before;
            }
        }
        // Its connections broke.
        for member in 0..MEMBERS {
            self.sinks.members[member].stages.clear();
        }
    }

    /// Whether both sinks have written everything.
    pub fn sinks_caught_up(&self) -> bool {
        let behind = |position: i64, tp: Tp| {
            let log = self.kafka.log(tp);
            log.next_committed(position, log.end()).is_some()
        };
        let offsets = &self.sinks.postgres.offsets;
        let position = |tp: Tp| offsets.get(&tp).copied().unwrap_or(0);
        let tracked = [topics::ORDER_STATUS.name, topics::STOCK_LEVELS.name];
        let mut tracked = tracked.iter().flat_map(|topic| self.kafka.of_topic(topic));
        let inserted = |tp: Tp| self.sinks.clickhouse.offsets.get(&tp).copied().unwrap_or(0);
        let mut reported = self.kafka.of_topic(topics::ORDER_STATUS.name);
        !tracked.any(|(tp, _)| behind(position(tp), tp))
            && !reported.any(|(tp, _)| behind(inserted(tp), tp))
    }
}

/// Of two rows of one key the one of the higher origin stays.
fn keep_newest(rows: &mut BTreeMap<StatusKey, StatusRow>, key: StatusKey, row: StatusRow) {
    rows.entry(key)
        .and_modify(|old| {
            if old.origin < row.origin {
                *old = row.clone();
            }
        })
        .or_insert(row);
}

impl Postgres {
    fn write(&mut self, record: Record, origin: (u64, u64), entry: &Entry, guarded: bool) {
        match record {
            Record::OrderStatusChanged(changed) => {
                let order =
                    OrderKey { order_id: changed.order_id, accepted_at: changed.accepted_at };
                let row = StatusRow { origin, status: changed.status.as_str() };
                keep_newest(&mut self.history, (order, changed.version), row);
                let newest = (changed.version, changed.status.as_str());
                let current = self.current.entry(order).or_insert(newest);
                if !guarded || current.0 < newest.0 {
                    *current = newest;
                }
            }
            Record::StockLevelChanged(level) => {
                let key = entry.record.as_ref().and_then(|r| r.key.clone()).unwrap_or_default();
                let pieces = [level.on_hand, level.reserved, level.allocated];
                let newest = (level.version, pieces);
                let current = self.levels.entry(key).or_insert(newest);
                if !guarded || current.0 < newest.0 {
                    *current = newest;
                }
            }
            _ => {}
        }
    }
}
