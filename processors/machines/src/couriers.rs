//! Couriers: one lane at a time. Chooses who carries an order, books, fails over, owes voids, learns.
//!
//! States of a booking: *calling* (one courier is being asked) → booked, and the row goes; or, when
//! every courier was tried in vain, *resting* until a new round. A time-out abandons the attempt:
//! its void is owed, retried until the company confirms, while the next courier is asked at once.
//! A cancelled order's booking is abandoned or voided likewise.
//!
//! Reading order: `rows` (what is kept), `booking` (the course of one), `deciding` (who is asked),
//! `choice`, `belief`, `chance` (how), `breaker` (who is rested), `parcels` (what came of it),
//! `rules` (what operators say).

pub mod belief;
mod booking;
pub mod breaker;
mod cancel;
pub mod chance;
pub mod choice;
mod deciding;
pub mod parcels;
pub mod rows;
mod rules;
pub mod transit;

use std::rc::Rc;

use events::{CourierCode, Lane, Millis, OrderKey, Record};

use crate::machine::{Context, Effects, Machine, Source};
use crate::planted;
use crate::table::{AnyTable, Backing, Key, Row, Table, TableId};
use parcels::Parcel;
use rows::{Booking, Company, Health, LaneRow, LaneRule, LaneText, Rule, RuleKey, Stage};
use rules::Book;

/// The couriers machine.
pub struct Couriers {
    companies: Table<CourierCode, Company>,
    bookings: Table<OrderKey, Booking>,
    lanes: Table<Lane, LaneRow>,
    health: Table<CourierCode, Health>,
    rules: Table<RuleKey, Rule>,
    lane_rules: Table<LaneText, LaneRule>,
    parcels: Table<OrderKey, Parcel>,
    /// What every decision reads whole.
    book: Option<Book>,
}

impl Couriers {
    /// The machine over a task's committed state. Table 2 held prices by lane and courier until
    /// lanes had rows; what an old store holds in it is never read.
    pub fn new(backing: &Rc<dyn Backing>) -> Self {
        Self {
            companies: Table::new(1, backing),
            bookings: Table::new(3, backing),
            lanes: Table::new(4, backing),
            health: Table::new(5, backing),
            rules: Table::new(6, backing),
            lane_rules: Table::new(7, backing),
            parcels: Table::new(8, backing),
            book: None,
        }
    }
}

impl Machine for Couriers {
    fn step(&mut self, record: Record, _source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::CourierListed(listed) => self.list(listed, effects),
            Record::CourierRuled(ruled) => self.rule(ruled, effects),
            Record::LaneRuled(ruled) => self.rule_lane(ruled, effects),
            Record::BreakerMoved(moved) => self.heard(moved, context, effects),
            Record::BookConsignment(command) => self.begin(command, context, effects),
            Record::VoidConsignment(command) => self.void(command, context, effects),
            Record::CourierAnswered(answer) => self.answered(answer, context, effects),
            Record::TrackingReported(report) => self.reported(report, context, effects),
            other => effects.reject(format!("{} is not for couriers", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, effects: &mut Effects) {
        let Some(order) = OrderKey::from_bytes(key) else { return };
        let due = |deadline: Option<Millis>| deadline.is_some_and(|at| at <= context.now);
        if table == self.bookings.id() {
            if let Some(booking) = self.bookings.get(&order).filter(|row| due(row.deadline())) {
                self.booking_due(order, booking, context, effects);
            }
        } else if table == self.parcels.id()
            && let Some(parcel) = self.parcels.get(&order).filter(|row| due(row.deadline()))
        {
            self.parcel_due(order, parcel, context, effects);
        }
    }

    fn resume(&mut self, _context: &Context, effects: &mut Effects) {
        self.show_breakers(effects);
        if planted!(CallsForgotten) {
            return;
        }
        // Repeated under the same reference: a company that did book answers with that booking.
        for (order, mut booking) in self.bookings.all() {
            if matches!(booking.stage, Stage::Calling(_)) {
                self.call_book(order, &booking, effects);
                booking.repeated = !planted!(RepeatedCallTrusted);
                self.bookings.put(order, booking);
            }
        }
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        vec![
            &mut self.companies,
            &mut self.bookings,
            &mut self.lanes,
            &mut self.health,
            &mut self.rules,
            &mut self.lane_rules,
            &mut self.parcels,
        ]
    }
}

#[cfg(test)]
#[path = "couriers_tests.rs"]
mod tests;
