//! What payments wait for, by provider: kept up with each change, so that nobody has to search for it. It is not
//! state: a takeover counts anew.

use std::collections::{BTreeMap, BTreeSet};

use events::{Millis, OrderKey, PaymentStep, ProviderCode};

use super::Payment;
use crate::machine::{Effects, Notice};

/// Open steps of the payments of a partition.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when each order waits, and for what of whom.
    orders: BTreeMap<OrderKey, (Millis, Vec<(ProviderCode, PaymentStep)>)>,
    providers: BTreeMap<ProviderCode, Provider>,
    /// Providers of which something has changed since it was told.
    changed: BTreeSet<ProviderCode>,
}

#[derive(Debug, Default)]
struct Provider {
    steps: BTreeMap<PaymentStep, i64>,
    /// By age.
    orders: BTreeSet<(Millis, OrderKey)>,
}

impl Waiting {
    /// Takes note of a payment as it stands now; `None`: it is over.
    pub(super) fn note(&mut self, order: OrderKey, payment: Option<&Payment>) {
        if let Some((since, steps)) = self.orders.remove(&order) {
            for (code, step) in steps {
                let provider = self.providers.entry(code.clone()).or_default();
                *provider.steps.entry(step).or_default() -= 1;
                provider.orders.remove(&(since, order));
                self.changed.insert(code);
            }
        }
        let Some(payment) = payment else { return };
        let (since, mut steps) = (payment.waits_since(), Vec::new());
        for method in &payment.methods {
            let Some(open) = &method.open else { continue };
            let code = method.provider.clone();
            let provider = self.providers.entry(code.clone()).or_default();
            *provider.steps.entry(open.step).or_default() += 1;
            provider.orders.insert((since, order));
            self.changed.insert(code.clone());
            steps.push((code, open.step));
        }
        if !steps.is_empty() {
            self.orders.insert(order, (since, steps));
        }
    }

    /// Tells of each provider of which something has changed.
    pub(super) fn tell(&mut self, fx: &mut Effects) {
        for code in std::mem::take(&mut self.changed) {
            let Some(provider) = self.providers.get(&code) else { continue };
            let oldest = provider.orders.first().map(|(since, _)| *since);
            let steps = provider.steps.iter().map(|(step, open)| (*step, *open)).collect();
            fx.notices.push(Notice::PaymentsWait { provider: code, steps, oldest });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use events::{
        Currency, Merchant, OrderId, PaymentAnswered, PaymentMethod, PaymentOutcome, PaymentState,
    };

    use super::*;
    use crate::machine::Context;
    use crate::payments::Payments;
    use crate::table::Backing;
    use crate::table::memory::Memory;

    const GIFT: &str = "gift";
    const CARD: &str = "card";

    type Told = (String, Vec<(&'static str, i64)>, Option<i64>);

    fn order(key: &str) -> OrderKey {
        let order_id = OrderId::derive(&Merchant::parse("shop").unwrap(), key);
        OrderKey { order_id, accepted_at: Millis(1) }
    }

    fn code(text: &str) -> ProviderCode {
        ProviderCode::parse(text).unwrap()
    }

    fn context(now: i64) -> Context {
        Context { now: Millis(now), partition: 0, partitions: 1 }
    }

    struct World {
        payments: Payments,
        memory: Rc<Memory>,
    }

    impl World {
        fn begin(&mut self, key: &str, now: i64) {
            let method = |provider: &str| PaymentMethod {
                provider: code(provider),
                token: "t".into(),
                amount_minor: 5,
            };
            let (methods, currency) =
                ([method(GIFT), method(CARD)], Currency::parse("GBP").unwrap());
            let mut fx = Effects::default();
            self.payments.begin(order(key), &methods, &currency, &context(now), &mut fx);
        }

        fn answer(&mut self, key: &str, method: i32, step: PaymentStep, outcome: PaymentOutcome) {
            let OrderKey { order_id, accepted_at } = order(key);
            let answer = PaymentAnswered {
                order_id,
                accepted_at,
                method,
                generation: 1,
                attempt: 1,
                provider: code(if method == 1 { GIFT } else { CARD }),
                step,
                outcome,
                state: PaymentState::Unknown,
                reference: "p".into(),
                amount_minor: 0,
                reason: "".into(),
                latency_ms: 1,
            };
            self.payments.answered(&answer, &context(50), &mut Effects::default());
        }

        /// What a batch's end tells: provider, waiting by step (zeros left out), oldest.
        fn told(&mut self) -> Vec<Told> {
            let mut fx = Effects::default();
            self.payments.end_batch(&mut fx);
            let mut writes = vec![];
            for table in self.payments.tables() {
                table.seal(&mut writes);
                table.committed();
            }
            self.memory.apply(&writes, &[]);
            let told = fx.notices.into_iter().map(|notice| match notice {
                Notice::PaymentsWait { provider, steps, oldest } => {
                    let steps = steps.into_iter().filter(|(_, waiting)| *waiting != 0);
                    let steps = steps.map(|(step, waiting)| (step.as_str(), waiting)).collect();
                    (provider.to_string(), steps, oldest.map(|since| since.0))
                }
                other => panic!("{other:?}"),
            });
            told.collect()
        }
    }

    fn world() -> World {
        let memory = Rc::new(Memory::default());
        let backing: Rc<dyn Backing> = memory.clone();
        World { payments: Payments::new((0, 1), &backing), memory }
    }

    fn of(provider: &str, steps: &[(&'static str, i64)], oldest: Option<i64>) -> Told {
        (provider.into(), steps.to_vec(), oldest)
    }

    #[test]
    fn steps_are_counted_by_provider_until_they_are_over() {
        let mut world = world();
        world.begin("a", 10);
        world.begin("b", 20);
        let both = [("authorize", 2)];
        assert_eq!(world.told(), [of(CARD, &both, Some(10)), of(GIFT, &both, Some(10))]);
        world.answer("a", 1, PaymentStep::Authorize, PaymentOutcome::Succeeded);
        let told = world.told();
        assert!(told.contains(&of(GIFT, &[("authorize", 1)], Some(20))), "{told:?}");
        // Nobody knows: it goes on waiting, since it began.
        world.answer("a", 2, PaymentStep::Authorize, PaymentOutcome::Unknown);
        let told = world.told();
        assert!(told.contains(&of(CARD, &both, Some(10))), "{told:?}");
        assert_eq!(world.told(), [], "nothing has changed");
    }

    #[test]
    fn an_unwinding_waits_since_it_began_and_a_takeover_counts_anew() {
        let mut world = world();
        world.begin("a", 10);
        assert_eq!(world.told().len(), 2);
        world.answer("a", 1, PaymentStep::Authorize, PaymentOutcome::Succeeded);
        world.answer("a", 2, PaymentStep::Authorize, PaymentOutcome::Declined);
        world.payments.unwind(order("a"), &context(60), &mut Effects::default());
        let expected = [of(CARD, &[], None), of(GIFT, &[("void", 1)], Some(60))];
        assert_eq!(world.told(), expected);

        let backing: Rc<dyn Backing> = world.memory.clone();
        world.payments = Payments::new((0, 1), &backing);
        world.payments.resume(&mut Effects::default());
        assert_eq!(world.told(), expected[1..]);
        world.answer("a", 1, PaymentStep::Void, PaymentOutcome::Succeeded);
        assert_eq!(world.told(), [of(GIFT, &[], None)]);
    }

    #[test]
    fn a_row_from_before_times_were_kept_waits_since_its_step_was_decided() {
        let mut world = world();
        world.begin("a", 10);
        let payment = world.payments.moving.get(&order("a")).unwrap();
        world.payments.moving.put(order("a"), Payment { since: Millis(0), ..payment });
        let one = [("authorize", 1)];
        assert_eq!(world.told(), [of(CARD, &one, Some(10)), of(GIFT, &one, Some(10))]);
    }
}
