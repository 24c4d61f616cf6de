//! State and positions: stores equal the fold of their changelogs, footers equal the group's
//! offsets, everything is read, nothing is open; the sinks' tables equal the log.

use std::collections::BTreeMap;
use std::rc::Rc;

use events::topics;
use machines::footer::Footer;

use super::Evidence;
use crate::store::Rows;
use crate::world::World;

pub(super) fn check(world: &World, faults: &mut Vec<String>) {
    for (tp, log) in world.kafka.all() {
        if log.stable() != log.end() {
            let topic = world.kafka.topic(tp);
            faults.push(format!("AU-10 {topic}-{} has an open transaction", tp.partition));
        }
    }
    for processor in machines::topology::ALL {
        for partition in 0..i32::from(world.kafka.partitions) {
            let task = format!("{}-{partition}", processor.name);
            let Some((footer, rows)) = fold(world, &topics::changelog(processor.name), partition)
            else {
                faults.push(format!("AU-11 {task} has no footer"));
                continue;
            };
            for inbox in processor.inboxes() {
                let tp = world.kafka.tp(inbox, partition);
                let position = footer.positions.get(inbox).copied();
                let offset = world.kafka.group.offsets.get(&tp).copied();
                if position.is_none() || position != offset {
                    faults.push(format!(
                        "AU-11 {task} stands at {position:?} of {inbox}, the group at {offset:?}"
                    ));
                }
                let log = world.kafka.log(tp);
                if log.next_committed(position.unwrap_or(0), log.end()).is_some() {
                    faults.push(format!("AU-11 {task} has not read all of {inbox}"));
                }
            }
            check_store(world, &task, &rows, faults);
        }
    }
}

/// The last footer of a changelog partition and the rows that its records leave.
fn fold(world: &World, topic: &str, partition: i32) -> Option<(Footer, Rows)> {
    let log = world.kafka.log(world.kafka.tp(topic, partition));
    let (mut rows, mut footer) = (Rows::new(), None);
    for (_, record) in log.committed(0, log.end()) {
        let (table, key) = record.key.as_deref()?.split_first()?;
        match (&record.value, *table) {
            (Some(value), 0) => footer = serde_json::from_slice(value).ok(),
            (Some(value), _) => {
                rows.entry(*table).or_default().insert(key.to_vec(), value.clone());
            }
            (None, _) => {
                rows.entry(*table).or_default().remove(key);
            }
        }
    }
    Some((footer?, rows))
}

/// AU-12: the store of a task's owner holds exactly what the changelog says.
fn check_store(world: &World, task: &str, rows: &Rows, faults: &mut Vec<String>) {
    let disks = world.processes.iter().filter_map(|process| process.disks.get(task));
    let owned: Vec<_> = disks.filter(|disk| Rc::strong_count(disk) > 1).collect();
    let [disk] = owned.as_slice() else {
        return faults.push(format!("AU-12 {task} is open {} times", owned.len()));
    };
    let (disk, none) = (disk.borrow(), BTreeMap::new());
    for table in rows.keys().chain(disk.rows().keys()) {
        let expected = rows.get(table).unwrap_or(&none);
        let stored = disk.rows().get(table).unwrap_or(&none);
        if expected != stored {
            let differ =
                expected.iter().filter(|(key, row)| stored.get(*key) != Some(*row)).count();
            let (told, held) = (expected.len(), stored.len());
            faults.push(format!(
                "AU-12 {task} table {table}: {told} rows in the log, {held} in the store, {differ} differ"
            ));
            break;
        }
    }
}

/// AU-13: history, current state, levels and reports, row for row as in the log.
pub(super) fn sinks(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let (postgres, clickhouse) = (&world.sinks.postgres, &world.sinks.clickhouse);
    let mut log = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for (order, chain) in &evidence.statuses {
        for changed in chain {
            log.insert((*order, changed.version), changed.status.as_str());
            newest.insert(*order, (changed.version, changed.status.as_str()));
        }
    }
    let history: BTreeMap<_, _> =
        postgres.history.iter().map(|(key, row)| (*key, row.status)).collect();
    if history != log {
        let (rows, events) = (history.len(), log.len());
        faults.push(format!("AU-13 tracking's history: {rows} rows, {events} events in the log"));
    }
    if postgres.current != newest {
        faults.push("AU-13 tracking's current state is not the newest".into());
    }
    let reports: BTreeMap<_, _> =
        clickhouse.rows.iter().map(|(key, row)| (*key, row.status)).collect();
    if reports != log {
        let (rows, events) = (reports.len(), log.len());
        faults.push(format!("AU-13 reports: {rows} rows, {events} events in the log"));
    }
    let mut levels = BTreeMap::new();
    let mut unreadable = 0;
    for (_, entry, record) in super::records(world, topics::STOCK_LEVELS.name, &mut unreadable) {
        if let events::Record::StockLevelChanged(level) = record {
            let key = entry.record.as_ref().and_then(|r| r.key.clone()).unwrap_or_default();
            levels.insert(key, (level.version, [level.on_hand, level.reserved, level.allocated]));
        }
    }
    if postgres.levels != levels {
        faults.push("AU-13 tracking's stock levels are not the newest".into());
    }
}
