//! Bugs for the simulation to find, chosen at run time, per thread. Exists only with the feature
//! `planted`; [`crate::planted!`] is `false` everywhere else.

use std::cell::Cell;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $name,)+
        }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

bugs!(
    /// The store is written when a batch is sealed, before its transaction committed.
    StoreBeforeCommit,
    /// A store that has any state is not brought forward from its changelog.
    StoreTrusted,
    /// A takeover neither fences the last owner nor waits for open transactions.
    OpenTransactionsIgnored,
    /// Positions are the start of the inboxes, whatever the footer says.
    FooterIgnored,
    /// A commit that may have been sent twice does not lead to a new producer.
    SlowCommitTrusted,
    /// After a failure the tasks go on with what they had staged.
    OverlaysKept,
    /// A commit whose outcome is unknown counts as done.
    UnknownOutcomeTakenAsCommitted,
    /// Offsets are not part of the transaction.
    OffsetsNotSent,
    /// An idle inbox is passed without a look at what is in it.
    UnreadPassed,
    /// A store's position is taken from another task's footer.
    FootersMixedUp,
    /// Due deadlines leave the index when they fire, not when their batch committed.
    TimerForgotten,
    /// Calls that were outstanding at a takeover are not made again.
    CallsForgotten,
    /// A call that was made again after a takeover is trusted to end as the first one did.
    RepeatedCallTrusted,
    /// A click that comes again is a new order.
    RepeatAdmitted,
    /// Another payload under the same key counts as the same.
    ConflictUnseen,
    /// A rejected order keeps what its other stock partitions hold.
    HoldNotReleased,
    /// What is allocated counts as available.
    AllocatedIgnored,
    /// What a count did not find is sold.
    MissingSold,
    /// What a courier reports to have stays allocated.
    LeftStaysAllocated,
    /// A call that timed out is not voided.
    VoidNotOwed,
    /// The answer to an abandoned attempt counts.
    AbandonedAnswerCounts,
    /// A cancelled order's consignment is not voided.
    CancelNotVoided,
    /// A request to cancel that is read before its order is forgotten.
    EarlyCancelLost,
    /// An order whose time is over goes on waiting for its customer.
    ExpiryIgnored,
    /// A payment whose outcome is unknown counts as declined.
    PaymentGuessed,
    /// A step in doubt is sent again under another key.
    DoubtNewKey,
    /// What was captured is not given back.
    RefundForgotten,
    /// What could not be delivered is not refunded.
    ReturnNotRefunded,
    /// Unwinding forgets what is being called.
    OpenStepForgotten,
    /// A report that comes late is believed.
    LateWebhookBelieved,
    /// A courier is booked when the payment is authorized.
    BookedUnpaid,
    /// A flash sale's limit per customer does not count.
    LimitIgnored,
    /// Tracking's transaction guards neither versions nor its offset.
    SinkWithoutGuards,
    /// Reports commits its offset before it inserts.
    SinkAcknowledgesFirst,
    /// Ingest acknowledges before the write.
    IngestAcknowledgesFirst,
);

thread_local! {
    static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Chooses the bug of this thread.
pub fn plant(bug: Option<Bug>) {
    ACTIVE.set(bug);
}

/// Whether this bug is active on this thread.
pub fn active(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}
