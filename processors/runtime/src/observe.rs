//! Metrics and log lines of what a stream thread says happened.

use events::BreakerState;
use machines::footer::Run;
use machines::{Notice, TaskId, Transaction};
use stream::Observed;
use wire::telemetry::{
    self, COURIER_BREAKER, INVARIANT_VIOLATIONS, ORDERS_WAITED, PAYMENTS_OLDEST, PAYMENTS_WAITING,
    RECORDS_PROCESSED, RECORDS_REJECTED, RESTORED_RECORDS, TRANSACTION_SECONDS, TRANSACTIONS,
};

/// Counts and logs.
pub fn observe(observed: &Observed<'_>) {
    match observed {
        Observed::Applied(transaction) => applied(transaction),
        Observed::Committed { drain, commit } => {
            TRANSACTIONS.with_label_values(&["committed"]).inc();
            TRANSACTION_SECONDS.with_label_values(&["drain"]).observe(drain.as_secs_f64());
            TRANSACTION_SECONDS.with_label_values(&["commit"]).observe(commit.as_secs_f64());
        }
        Observed::SlowCommit(took) => {
            TRANSACTIONS.with_label_values(&["reinitialised"]).inc();
            tracing::warn!(took_ms = took.as_millis(), "slow commit: producer made anew");
        }
        Observed::Redone(tasks, error) => {
            TRANSACTIONS.with_label_values(&["redone"]).inc();
            tasks.iter().for_each(|task| forget_payments(*task));
            tracing::warn!(error = format!("{error:#}"), "batch dropped, tasks restored");
        }
        Observed::NotTakenOver(task, error) => {
            TRANSACTIONS.with_label_values(&["not_taken_over"]).inc();
            tracing::warn!(task = %task, error = format!("{error:#}"), "not taken over yet: tried again");
        }
        Observed::Fencing(task, owner) => {
            tracing::info!(task = %task, owner, "fencing the last owner");
        }
        Observed::Emptied(task) => {
            tracing::info!(task = %task, "state store does not fit its changelog: emptied");
        }
        Observed::RestoredRows(log, rows) => {
            RESTORED_RECORDS.with_label_values(&[&log.to_string()]).inc_by(*rows as u64);
        }
        Observed::Restored(log, rows, took) => {
            let took_ms = took.as_millis();
            tracing::info!(changelog = %log, rows, took_ms, "state restored");
        }
        Observed::TakenOver(tasks, took) => {
            let took_ms = took.as_millis();
            tracing::info!(tasks = %names(tasks), took_ms, "tasks taken over");
        }
        Observed::Passed(task, inbox, position) => {
            tracing::info!(task = %task, inbox, position, "idle inbox: position moved past markers");
        }
        Observed::Warmed(tasks, took) => {
            tracing::info!(tasks, took_ms = took.as_millis(), "stores brought forward");
        }
        Observed::NotWarmed(task, error) => {
            let error = format!("{error:#}");
            tracing::warn!(task = %task, error, "store not brought forward: left to the takeover");
        }
        Observed::HandedOver(tasks) => {
            tasks.iter().for_each(|task| forget(*task));
            tracing::info!(tasks = %names(tasks), "tasks handed over");
        }
        Observed::Ready => {}
    }
}

fn applied(transaction: &Transaction) {
    for run in &transaction.footer.runs {
        if let Run::Read(topic, from, to) = run {
            let read = u64::try_from(to - from).unwrap_or_default();
            RECORDS_PROCESSED.with_label_values(&[topic]).inc_by(read);
        }
    }
    for rejected in &transaction.rejected {
        let (topic, stage) = (rejected.source.topic, rejected.stage);
        RECORDS_REJECTED.with_label_values(&[topic, stage]).inc();
        let (offset, reason) = (rejected.source.offset, &rejected.reason);
        tracing::warn!(topic, offset, stage, reason, "record sent to the dead letters");
    }
    for notice in &transaction.notices {
        noticed(transaction.task.partition, notice);
    }
    for violation in &transaction.violations {
        INVARIANT_VIOLATIONS.with_label_values(&[violation.invariant]).inc();
        tracing::error!(
            invariant = violation.invariant,
            detail = violation.detail,
            "invariant violated"
        );
    }
}

fn noticed(partition: i32, notice: &Notice) {
    match notice {
        Notice::BreakerMoved { courier, lane, state } => {
            let value = match state {
                BreakerState::Open => 2,
                BreakerState::HalfOpen => 1,
                BreakerState::Closed | BreakerState::Unknown => 0,
            };
            let lane = lane.as_ref().map_or("*", |lane| lane.as_str());
            let (courier, place) = (courier.as_str(), partition.to_string());
            COURIER_BREAKER.with_label_values(&[courier, lane, &place]).set(value);
            tracing::warn!(courier, lane, partition, state = state.as_str(), "courier breaker");
        }
        Notice::OrderWaits => ORDERS_WAITED.inc(),
        Notice::PaymentsWait { provider, steps, oldest } => {
            let (provider, place) = (provider.as_str(), partition.to_string());
            for (step, waiting) in steps {
                let labels = [provider, step.as_str(), &place];
                PAYMENTS_WAITING.with_label_values(&labels).set(*waiting);
            }
            let labels = [provider, &place];
            match oldest {
                Some(since) => PAYMENTS_OLDEST.with_label_values(&labels).set(since.0 / 1_000),
                // Not there is what none waits looks like.
                None => PAYMENTS_OLDEST.remove_label_values(&labels).unwrap_or_default(),
            }
        }
    }
}

/// What is known of a partition that was handed over is its next owner's to report.
fn forget(task: TaskId) {
    if task.processor.name == "couriers" {
        telemetry::forget(&COURIER_BREAKER, "partition", &task.partition.to_string());
    }
    forget_payments(task);
}

/// Another process may tell of the partition from now on; if it stays, it is told of again with its next change, which a
/// waiting payment makes by itself.
fn forget_payments(task: TaskId) {
    if task.processor.name == "orders" {
        let partition = task.partition.to_string();
        telemetry::forget(&PAYMENTS_WAITING, "partition", &partition);
        telemetry::forget(&PAYMENTS_OLDEST, "partition", &partition);
    }
}

fn names(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use events::{Millis, PaymentStep, ProviderCode, topics};
    use machines::topology::Processor;

    use super::*;

    #[test]
    fn what_is_redone_hides_its_own_payments_alone() {
        let task = |partition| {
            let processor = Processor::by_commands(topics::ORDERS.name).unwrap();
            TaskId { processor, partition }
        };
        // Metrics are the whole process': no other test has these partitions.
        let (redone, other) = (7001, 7002);
        for partition in [redone, other] {
            let provider = ProviderCode::parse("redone").unwrap();
            let (steps, oldest) = (vec![(PaymentStep::Capture, 3)], Some(Millis(5_000)));
            noticed(partition, &Notice::PaymentsWait { provider, steps, oldest });
        }
        let told = |partition: i32| {
            let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather());
            let label = format!("partition=\"{partition}\"");
            text.unwrap().lines().filter(|line| line.contains(&label)).count()
        };
        assert_eq!((told(redone), told(other)), (2, 2));
        observe(&Observed::Redone(&[task(redone)], &anyhow::anyhow!("a broker is away")));
        assert_eq!((told(redone), told(other)), (0, 2));
    }
}
