//! Restoring before joining the group: a partition that moves to a new process stands still only for what
//! was written meanwhile, not for its whole state.
//!
//! Which partitions a process will get is known only when it has them, so it restores all: those it
//! does not get cost disk until they are made anew.

use machines::TaskId;
use machines::topology::Processor;

use anyhow::Result;

use crate::io::{Changelogs, Platform, Store};
use crate::observe::Observed;
use crate::restore::{last_footer, make_usable, restore};
use crate::takeover::changelog;

/// Brings the stores of these tasks to the last footers of their changelogs, as far as they are
/// committed now. To be called while no task of this process runs. What fails is left to the takeover.
pub fn warm_up<P: Platform>(platform: &P, tasks: &[TaskId]) -> Result<()> {
    let began = platform.elapsed();
    let logs = platform.changelogs()?;
    let mut warmed = 0;
    for task in tasks {
        if platform.stopping() {
            return Ok(());
        }
        match warm(platform, &logs, *task) {
            Ok(()) => warmed += 1,
            Err(error) => platform.observe(Observed::NotWarmed(*task, &error)),
        }
    }
    platform.observe(Observed::Warmed(warmed, platform.elapsed() - began));
    Ok(())
}

/// Every task of these processors, in the order of partitions.
pub fn all_tasks(processors: &[Processor], partitions: i32) -> Vec<TaskId> {
    let of = |partition| {
        processors.iter().map(move |processor| TaskId { processor: *processor, partition })
    };
    (0..partitions).flat_map(of).collect()
}

fn warm<P: Platform>(platform: &P, logs: &P::Changelogs, task: TaskId) -> Result<()> {
    let log = changelog(task);
    let Some(footer) = last_footer(logs, &log)? else { return Ok(()) };
    let store = platform.store(task)?;
    // Behind the footer something else may have been committed since: the store may be ahead of it.
    let bounds = logs.bounds(&log)?;
    make_usable(platform, task, &store, Some(&footer.1), bounds)?;
    if store.meta()?.is_none_or(|meta| meta.position <= footer.0) {
        restore(platform, logs, &log, &store, &footer)?;
    }
    Ok(())
}
