//! Tasks fed with anything that can stand in their inboxes: whatever decodes is processed or refused with
//! a reason, the position moves on, and what comes out are records that belong where they go.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use events::{Codec, Millis, RecordType, topics};
use fuzz::{Entropy, Mutation, Schema, damage, framed, mutations, run, schema_id};
use machines::footer::{Footer, parse_batch_header};
use machines::table::{Backing, Due, TableId, Write, deadline_of};
use machines::task::{Arrived, Start};
use machines::topology::{COURIERS, ORDERS, Processor, STOCK};
use machines::{Source, Task, TaskId};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Rows by table and key.
type Table = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// A task's committed rows.
#[derive(Default)]
struct Rows {
    rows: RefCell<Table>,
    deadlines: RefCell<BTreeSet<Due>>,
}

impl Rows {
    fn apply(&self, writes: &[Write], fired: &[Due]) {
        let (mut rows, mut deadlines) = (self.rows.borrow_mut(), self.deadlines.borrow_mut());
        deadlines.retain(|due| !fired.contains(due));
        for Write { table, key, value } in writes {
            if let Some(deadline) = value.as_deref().and_then(deadline_of) {
                deadlines.insert(Due { deadline, table: *table, key: key.clone() });
            }
            match value {
                Some(value) => drop(rows.insert((table.0, key.clone()), value.clone())),
                None => drop(rows.remove(&(table.0, key.clone()))),
            }
        }
    }
}

impl Backing for Rows {
    fn get(&self, table: TableId, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.borrow().get(&(table.0, key.to_vec())).cloned()
    }

    fn scan(&self, table: TableId, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let rows = self.rows.borrow().clone();
        rows.iter().filter(|((t, _), _)| *t == table.0).for_each(|((_, key), row)| visit(key, row));
    }

    fn due(&self, now: Millis, limit: usize) -> Vec<Due> {
        let deadlines = self.deadlines.borrow();
        deadlines.iter().take_while(|due| due.deadline <= now).take(limit).cloned().collect()
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.borrow().first().map(|due| due.deadline)
    }
}

/// One thing that happens to a task.
#[derive(Debug, Clone)]
enum Step {
    /// A record on one of its inboxes, mostly of a type that belongs there.
    Record { inbox: usize, stray: bool, choice: usize, entropy: Vec<u8>, mutations: Vec<Mutation> },
    /// Deadlines fire.
    Tick(i64),
    /// The batch is committed.
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let entropy = prop::collection::vec(any::<u8>(), 0..80);
    let damage = prop_oneof![4 => Just(vec![]), 1 => mutations()];
    let stray = prop::bool::weighted(0.05);
    let record = (any::<usize>(), stray, any::<usize>(), entropy, damage).prop_map(
        |(inbox, stray, choice, entropy, mutations)| Step::Record {
            inbox,
            stray,
            choice,
            entropy,
            mutations,
        },
    );
    let tick = prop::sample::select(&[1_000, 60_000, 2_000_000_000_000, i64::MAX][..]);
    prop_oneof![8 => record, 1 => tick.prop_map(Step::Tick), 2 => Just(Step::Commit)]
}

fn task(processor: Processor, rows: &Rc<Rows>) -> Task {
    let start = Start {
        term: 0,
        sequence: 0,
        positions: processor.inboxes().map(|inbox| (inbox.to_string(), 0)).collect(),
        now: Millis(0),
        store_id: "store".into(),
        owner: "fuzz".into(),
        repairs: vec![],
    };
    let id = TaskId { processor, partition: 0 };
    Task::new(id, rows.clone() as Rc<dyn Backing>, Codec::without_registry(), 1, start)
}

fn commit(task: &mut Task, rows: &Rows) -> Result<usize, TestCaseError> {
    let codec = Codec::without_registry();
    let transaction = task.seal(false);
    for output in &transaction.outputs {
        let record = codec.decode(&output.value);
        let record = record.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let topic = topics::ALL.iter().find(|topic| topic.name == output.topic);
        prop_assert!(topic.is_some_and(|t| t.record_types.contains(&record.record_type())));
        prop_assert_eq!(output.partition, 0);
    }
    prop_assert!(transaction.rejected.iter().all(|rejected| !rejected.reason.is_empty()));
    rows.apply(&transaction.writes, &transaction.fired);
    task.committed();
    Ok(transaction.rejected.len())
}

fn live(processor: Processor, steps: &[Step], schemas: &[Schema]) -> Result<(), TestCaseError> {
    let rows = Rc::new(Rows::default());
    let mut task = task(processor, &rows);
    let inboxes: Vec<&'static str> = processor.inboxes().collect();
    let mut offsets: BTreeMap<&str, i64> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Commit => drop(commit(&mut task, &rows)?),
            Step::Tick(at) => task.tick(Millis(*at)),
            Step::Record { inbox, stray, choice, entropy, mutations } => {
                let inbox = inboxes[inbox % inboxes.len()];
                let listed = topics::ALL.iter().find(|topic| topic.name == inbox).unwrap();
                let types = if *stray { RecordType::ALL } else { listed.record_types };
                let index = types[choice % types.len()].index();
                let datum = schemas[index].datum(&mut Entropy::new(entropy));
                let mut bytes = framed(schema_id(index), &datum);
                damage(&mut bytes, mutations);
                let offset = offsets.entry(inbox).or_insert(0);
                let appended_at = Millis(1_000 + *offset);
                let source = Source { topic: inbox, partition: 0, offset: *offset, appended_at };
                let arrived =
                    Arrived { source, key: Some(b"key"), value: Some(&bytes), headers: &Vec::new };
                if task.process(arrived).is_err() {
                    task.reject(arrived, "never registered".into());
                }
                *offset += 1;
                prop_assert_eq!(task.positions()[inbox], *offset);
            }
        }
    }
    commit(&mut task, &rows)?;
    // Whatever was written, a successor can start from it.
    commit(&mut self::task(processor, &rows), &rows)?;
    Ok(())
}

#[test]
fn a_task_takes_anything_and_moves_on() {
    let schemas: Vec<Schema> =
        RecordType::ALL.iter().map(|t| Schema::parse(t.schema_json())).collect();
    let processors = [ORDERS, STOCK, COURIERS];
    let case = (0..processors.len(), prop::collection::vec(step(), 1..24));
    run(&case, |(processor, steps)| live(processors[processor], &steps, &schemas));
}

#[test]
fn footers_and_batch_headers_may_be_any_bytes() {
    run(&prop::collection::vec(any::<u8>(), 0..40), |bytes| {
        prop_assert!(Footer::from_bytes(&bytes).is_none());
        prop_assert_eq!(parse_batch_header(&bytes).is_some(), bytes.len() == 16);
        Ok(())
    });
}
