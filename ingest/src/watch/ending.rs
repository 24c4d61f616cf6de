//! Pure: whether anything can still happen to an order, by what has.
//!
//! | last status | more can follow |
//! |---|---|
//! | on its way, or `undeliverable` | yes |
//! | ended, with money authorized or taken that has to go back | until it is told that it did, a day at most |
//! | `declined`, or ended otherwise between `reserved` and `routed` | for a minute: part of the money may have been authorized |
//! | ended otherwise | no |

use crate::database::Event;

/// How long the way back of money is waited for, milliseconds.
const MONEY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long it is waited for where nobody can tell whether there is any, milliseconds.
const PERHAPS_MS: i64 = 60 * 1000;

/// What an order's history says about its end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Of the last event; 0 before the first.
    pub(super) version: i32,
    status: String,
    at: String,
    /// Money was authorized or taken, and is not back.
    money: bool,
    /// A payment may have begun.
    perhaps: bool,
    /// The courier gave it up.
    given_up: bool,
    /// The history's beginning was not there.
    blind: bool,
}

impl Ending {
    /// Takes the history's next event.
    pub(super) fn note(&mut self, event: &Event) {
        self.blind |= event.version != self.version + 1;
        self.version = event.version;
        self.status.clone_from(&event.status);
        self.at.clone_from(&event.occurred_at);
        match event.status.as_str() {
            "reserved" | "declined" => self.perhaps = true,
            "authorized" | "paid" => self.money = true,
            // It would have been paid before.
            "routed" => self.perhaps = false,
            "undeliverable" => self.given_up = true,
            _ => {}
        }
        let back = ["refunded", "payment_voided", "payment_declined"];
        if event.reason.as_deref().is_some_and(|reason| back.contains(&reason)) {
            (self.money, self.perhaps) = (false, false);
        }
    }

    /// Whether the last status has been told, at this time in UTC milliseconds.
    pub(super) fn over(&self, now: i64) -> bool {
        let wait = match self.status.as_str() {
            "delivered" if !self.given_up => 0,
            "rejected" | "declined" | "expired" | "cancelled" | "delivered" | "returned" => {
                match (self.money, self.perhaps || self.blind) {
                    (true, _) => MONEY_MS,
                    (false, true) => PERHAPS_MS,
                    (false, false) => 0,
                }
            }
            _ => return false,
        };
        let at = chrono::DateTime::parse_from_rfc3339(&self.at);
        wait == 0 || at.is_ok_and(|at| now >= at.timestamp_millis() + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statuses and reasons.
    type Told<'a> = &'a [(&'a str, &'a str)];

    /// How long after its last event an order of this history is over; `None`: not by time.
    fn over_after(history: Told<'_>) -> Option<i64> {
        let mut ending = Ending::default();
        let mut at = 0;
        for (version, (status, reason)) in (1..).zip(history) {
            let event = Event::sample(version, status, reason);
            at = chrono::DateTime::parse_from_rfc3339(&event.occurred_at)
                .unwrap()
                .timestamp_millis();
            ending.note(&event);
        }
        let waits = [0, PERHAPS_MS, MONEY_MS];
        waits.into_iter().find(|wait| ending.over(at + wait))
    }

    const RECEIVED: (&str, &str) = ("received", "");
    const RESERVED: (&str, &str) = ("reserved", "");
    const PAID: (&str, &str) = ("paid", "");
    const ROUTED: (&str, &str) = ("routed", "");

    #[test]
    fn an_order_is_over_when_its_last_status_and_its_money_are_told() {
        let table: &[(Told<'_>, Option<i64>)] = &[
            (&[], None),
            (&[RECEIVED], None),
            (&[RECEIVED, RESERVED, ROUTED, ("routed", "overdue")], None),
            (&[RECEIVED, ("rejected", "sold_out")], Some(0)),
            (&[RECEIVED, ("cancelled", "requested")], Some(0)),
            (&[RECEIVED, RESERVED, ("cancelled", "requested")], Some(PERHAPS_MS)),
            (&[RECEIVED, RESERVED, ("declined", "card_declined")], Some(PERHAPS_MS)),
            (&[RECEIVED, RESERVED, ("declined", "x"), ("declined", "payment_voided")], Some(0)),
            (&[RECEIVED, RESERVED, ROUTED, ("cancelled", "requested")], Some(0)),
            (&[RECEIVED, RESERVED, ROUTED, ("shipped", ""), ("delivered", "")], Some(0)),
            (&[RECEIVED, RESERVED, PAID, ROUTED, ("delivered", "")], Some(0)),
            (&[RECEIVED, RESERVED, PAID, ("rejected", "no_courier")], Some(MONEY_MS)),
            // What was reserved is given up: a warehouse went offline, a count found less.
            (&[RECEIVED, RESERVED, ("rejected", "warehouse_offline")], Some(PERHAPS_MS)),
            (&[RECEIVED, RESERVED, ROUTED, ("rejected", "sold_out")], Some(0)),
            (&[RECEIVED, RESERVED, PAID, ROUTED, ("rejected", "sold_out")], Some(MONEY_MS)),
            (&[RECEIVED, RESERVED, PAID, ("cancelled", ""), ("cancelled", "refunded")], Some(0)),
            (&[RECEIVED, RESERVED, PAID, ROUTED, ("undeliverable", "")], None),
            (
                &[RECEIVED, RESERVED, PAID, ROUTED, ("undeliverable", ""), ("returned", "")],
                Some(MONEY_MS),
            ),
            (
                &[
                    RECEIVED,
                    RESERVED,
                    PAID,
                    ROUTED,
                    ("undeliverable", ""),
                    ("undeliverable", "refunded"),
                    ("delivered", ""),
                ],
                Some(0),
            ),
            (
                &[RECEIVED, RESERVED, PAID, ROUTED, ("undeliverable", ""), ("delivered", "")],
                Some(MONEY_MS),
            ),
        ];
        for (history, expected) in table {
            assert_eq!(over_after(history), *expected, "{history:?}");
        }
    }

    #[test]
    fn without_the_beginning_nobody_can_tell() {
        let mut ending = Ending::default();
        let event = Event::sample(4, "cancelled", "");
        ending.note(&event);
        let at =
            chrono::DateTime::parse_from_rfc3339(&event.occurred_at).unwrap().timestamp_millis();
        assert!(!ending.over(at) && ending.over(at + PERHAPS_MS));
    }
}
