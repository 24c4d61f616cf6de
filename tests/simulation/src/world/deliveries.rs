//! What companies report about the consignments that they carry: out of order, twice, too late, or
//! not at all. A report is acknowledged when it stands in the log.

use events::{CourierCode, Millis, Record, TrackingEvent, TrackingReported, topics};

use super::{Event, World};
use crate::couriers::Taken;
use crate::kafka::log::{self, Header};

impl World {
    /// A company has taken a consignment: what it will report is decided now.
    pub(super) fn carry(&mut self, courier: &CourierCode, taken: &Taken) {
        use TrackingEvent::{
            Attempted, Collected, Delivered, InTransit, OutForDelivery, PickupMissed, Returned,
            Returning, Undeliverable,
        };
        let course: &[TrackingEvent] = match self.chance.below(100) {
            // Companies without tracking, and consignments that vanish.
            0..20 => &[],
            20..25 => &[PickupMissed, Collected],
            25..30 => &[Collected, Undeliverable, Returning, Returned],
            30..34 => &[Collected, InTransit, Undeliverable],
            // Given up, and delivered after all.
            34..36 => &[Collected, Undeliverable, Delivered],
            36..45 => &[Collected, OutForDelivery, Attempted, Delivered],
            _ => &[Collected, InTransit, Delivered],
        };
        // Two in ten are slow.
        let slow = self.chance.per_mille(200);
        let (mut after, mut span) = (500_000, if slow { 3_000_000 } else { 800_000 });
        for event in course {
            after += self.chance.between(200_000, span);
            let occurred_at = Millis(self.wall().0 + i64::try_from(after / 1_000).expect("soon"));
            let report = TrackingReported {
                order_id: taken.order.order_id,
                accepted_at: taken.order.accepted_at,
                lane: taken.lane.clone(),
                courier: courier.clone(),
                attempt: taken.attempt,
                event: *event,
                occurred_at,
                detail: "".into(),
            };
            let times = if self.chance.per_mille(100) { 2 } else { 1 };
            for _ in 0..times {
                // What happened first may be heard last.
                let heard = after + self.chance.between(0, 1_500_000);
                self.schedule(heard, Event::Reported(Box::new(report.clone())));
            }
            span = span.max(1_000_000);
        }
    }

    /// A report reaches ingest, which writes it before it answers; until then the company tries
    /// again.
    pub(super) fn reported(&mut self, report: Box<TrackingReported>) {
        self.moved = self.now;
        if !self.online() {
            let after = self.kafka.down_until - self.now + 1_000;
            return self.schedule(after, Event::Reported(report));
        }
        let key = Some(report.lane.as_str().as_bytes().to_vec());
        let value = Some(self.codec.to_bytes(&Record::from(*report)));
        let at = self.wall();
        let record = log::Record { key, value, header: Header::None };
        self.kafka.append(topics::COURIERS.name, at, record);
    }
}
