//! Which warehouses an order is asked of, best first: by what it costs to ship from there, how far it is
//! and how busy they are. Reference data, so a function of the log.

use events::{Merchant, Millis, ReceiptId, RequestId, Route, WarehouseCode, WarehouseListed};
use serde::{Deserialize, Serialize};

use super::Fulfilment;
use crate::dedupe;
use crate::machine::Context;
use crate::stock::Receipt;
use crate::table::{Row, WarehouseKey};

/// What 100 km more count for, minor units of the shipping cost's currency.
const PER_100_KM_MINOR: i64 = 10;

/// A warehouse as it was listed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warehouse {
    /// Whether its free stock is offered.
    pub online: bool,
    /// What is known for single countries.
    pub routes: Vec<Route>,
    /// Shipping cost to any other country, minor units.
    pub cost_minor: i64,
    /// Distance to any other country, km.
    pub distance_km: i32,
    /// How busy it is: 1000 is as much as it can do.
    pub load_permille: i32,
    /// When it was listed, and by which request: a listing of before that counts nothing.
    pub as_of: (Millis, RequestId),
}

impl Row for Warehouse {}

impl Warehouse {
    /// What serving a country from here counts for: cost and distance, each made dearer by the load, up
    /// to twice at the limit.
    fn score(&self, country: &str) -> i64 {
        let route = self.routes.iter().find(|route| route.country == country);
        let (cost, distance) = match route {
            Some(route) => (route.cost_minor, route.distance_km),
            None => (self.cost_minor, self.distance_km),
        };
        let way = cost.saturating_add(i64::from(distance) * PER_100_KM_MINOR / 100);
        way.saturating_mul(1000 + i64::from(self.load_permille)) / 1000
    }
}

impl Fulfilment {
    /// A request counts once, as long as its idempotency key lives: a repeat would be the latest. That its body is
    /// another one is told by stock.
    pub(super) fn list_warehouse(&mut self, listed: WarehouseListed, context: &Context) {
        let id = ReceiptId(listed.request_id.0);
        if self.listings.get(&id).is_some() {
            return;
        }
        let forget_at = context.now.plus(dedupe::KEY_LIFETIME_MS);
        self.listings.put(id, Receipt { fingerprint: listed.fingerprint, forget_at });
        let as_of = listed.as_of();
        let warehouse = Warehouse {
            online: listed.online,
            routes: listed.routes,
            cost_minor: listed.cost_minor,
            distance_km: listed.distance_km,
            load_permille: listed.load_permille,
            as_of,
        };
        let key: WarehouseKey = (listed.merchant, listed.warehouse);
        if self.warehouses_listed().get(&key).is_some_and(|before| before.as_of > as_of) {
            return;
        }
        self.warehouses_listed().insert(key.clone(), warehouse.clone());
        self.warehouses.put(key, warehouse);
    }

    /// The merchant's warehouses for this country, best first; those that are offline behind them, since
    /// stock knows that too and can say so. `main` is everybody's: it comes last until it is listed itself,
    /// so that listing another one takes nothing off sale.
    pub(super) fn ranking(&mut self, merchant: &Merchant, country: &str) -> Vec<WarehouseCode> {
        let mine = self.warehouses_listed().iter().filter(|((owner, _), _)| owner == merchant);
        let mut ranked: Vec<(bool, i64, WarehouseCode)> =
            mine.map(|((_, code), w)| (!w.online, w.score(country), code.clone())).collect();
        ranked.sort();
        let mut codes: Vec<WarehouseCode> = ranked.into_iter().map(|(.., code)| code).collect();
        if !codes.contains(&WarehouseCode::MAIN) {
            codes.push(WarehouseCode::MAIN);
        }
        codes
    }

    fn warehouses_listed(&mut self) -> &mut std::collections::BTreeMap<WarehouseKey, Warehouse> {
        self.all_warehouses.get_or_insert_with(|| self.warehouses.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_distance_and_load_count() {
        let route = Route { country: "FR".into(), cost_minor: 500, distance_km: 1_000 };
        let mut warehouse = Warehouse {
            online: true,
            routes: vec![route],
            cost_minor: 900,
            distance_km: 0,
            load_permille: 0,
            as_of: (Millis(0), RequestId(uuid::Uuid::nil())),
        };
        assert_eq!((warehouse.score("FR"), warehouse.score("DE")), (600, 900));
        warehouse.load_permille = 500;
        assert_eq!((warehouse.score("FR"), warehouse.score("DE")), (900, 1_350));
    }

    #[test]
    fn the_later_of_two_listings_counts_and_a_repeat_is_none() {
        let merchant = Merchant::parse("shop").unwrap();
        let context = Context { now: Millis(50), partition: 0, partitions: 1 };
        let listed = |key: &str, listed_at: i64, online: bool| WarehouseListed {
            merchant: merchant.clone(),
            warehouse: WarehouseCode::MAIN,
            online,
            routes: vec![],
            cost_minor: 0,
            distance_km: 0,
            load_permille: 0,
            requested_by: "k1".into(),
            request_id: RequestId::derive("warehouse", &merchant, key),
            fingerprint: events::Fingerprint(uuid::Uuid::nil()),
            listed_at: Millis(listed_at),
        };
        let (first, second) = (listed("w1", 10, true), listed("w2", 20, false));
        let again = listed("w1", 30, true);
        for order in [[&first, &second, &again], [&second, &first, &again]] {
            let backing: std::rc::Rc<dyn crate::table::Backing> =
                std::rc::Rc::new(crate::table::memory::Memory::default());
            let mut saga = Fulfilment::new(&backing);
            for listed in order {
                saga.list_warehouse(listed.clone(), &context);
            }
            let key = (merchant.clone(), WarehouseCode::MAIN);
            assert!(!saga.warehouses_listed()[&key].online);
        }
    }
}
