//! Deliveries: every order is told what its courier reported, once, and nothing else; every booked
//! attempt was decided once, on the record.

use std::collections::{BTreeMap, BTreeSet};

use events::{CallOutcome, CourierCall, OrderKey, OrderStatus, Record, TrackingEvent, topics};

use super::{Evidence, records};
use crate::world::World;

/// An attempt of an order.
type Attempt = (OrderKey, i32);

/// What the log of `couriers` says about an attempt.
#[derive(Default)]
struct Course {
    /// The booking's answer is at this offset.
    booked: Option<i64>,
    /// Events that were reported after it.
    reported: BTreeSet<TrackingEvent>,
}

/// AU-17: what was reported of a booked consignment after its booking is told, what was not is not.
/// AU-18: every booking stands on one recorded decision for its courier.
pub(super) fn check(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let courses = courses(world);
    let mut decided: BTreeMap<Attempt, Vec<String>> = BTreeMap::new();
    let mut judged: BTreeMap<Attempt, usize> = BTreeMap::new();
    let mut unreadable = 0;
    for (_, _, record) in records(world, topics::COURIER_DECISIONS.name, &mut unreadable) {
        match record {
            Record::CourierDecided(d) => {
                let order = OrderKey { order_id: d.order_id, accepted_at: d.accepted_at };
                decided.entry((order, d.attempt)).or_default().push(d.courier.to_string());
                let chosen = d.candidates.iter().filter(|c| c.courier == d.courier).count();
                if chosen != 1 || !(1..=1_000).contains(&d.propensity_permille) {
                    faults.push(format!("AU-18 decision for {} makes no sense", d.order_id));
                }
            }
            Record::DeliveryJudged(j) => {
                let order = OrderKey { order_id: j.order_id, accepted_at: j.accepted_at };
                *judged.entry((order, j.attempt)).or_default() += 1;
            }
            _ => {}
        }
    }
    for ((order, attempt), times) in &judged {
        if *times > 1 {
            faults.push(format!("AU-17 {} attempt {attempt} judged {times} times", order.order_id));
        }
    }
    for (order, chain) in &evidence.statuses {
        let Some(consignment) = chain.iter().find_map(|changed| changed.consignment.as_ref())
        else {
            continue;
        };
        let attempt = (*order, consignment.attempt);
        let id = order.order_id;
        let by = decided.get(&attempt).map(Vec::as_slice).unwrap_or_default();
        if by != [consignment.courier.to_string()] {
            faults.push(format!("AU-18 order {id} booked {}, decided {by:?}", consignment.courier));
        }
        let Some(course) = courses.get(&attempt) else {
            faults.push(format!("AU-17 order {id} is booked, without an answer in the log"));
            continue;
        };
        let told = |status| chain.iter().any(|changed| changed.status == status);
        let given_up = told(OrderStatus::Cancelled) || told(OrderStatus::Rejected);
        let delivered = course.reported.contains(&TrackingEvent::Delivered);
        if told(OrderStatus::Delivered) && !delivered {
            faults.push(format!("AU-17 order {id} was never delivered"));
        }
        if delivered && !told(OrderStatus::Delivered) && !given_up && !told(OrderStatus::Returned) {
            faults.push(format!("AU-17 order {id} was delivered and does not know"));
        }
        let returned = course.reported.contains(&TrackingEvent::Returned);
        if told(OrderStatus::Returned) != (returned && !given_up) {
            faults.push(format!("AU-17 order {id}: returned {returned}, told otherwise"));
        }
    }
}

fn courses(world: &World) -> BTreeMap<Attempt, Course> {
    let mut courses: BTreeMap<Attempt, Course> = BTreeMap::new();
    let mut unreadable = 0;
    for (_, entry, record) in records(world, topics::COURIERS.name, &mut unreadable) {
        match record {
            Record::CourierAnswered(answer)
                if answer.call == CourierCall::Book && answer.outcome == CallOutcome::Succeeded =>
            {
                let order = OrderKey { order_id: answer.order_id, accepted_at: answer.accepted_at };
                let course = courses.entry((order, answer.attempt)).or_default();
                course.booked.get_or_insert(entry.offset);
            }
            Record::TrackingReported(report) => {
                let order = OrderKey { order_id: report.order_id, accepted_at: report.accepted_at };
                let course = courses.entry((order, report.attempt)).or_default();
                if course.booked.is_some() {
                    course.reported.insert(report.event);
                }
            }
            _ => {}
        }
    }
    courses
}
