//! Which warehouses an order is asked of, best first: by what it costs to ship from there, how far it is
//! and how busy they are. Reference data, so a function of the log.

use events::{Merchant, Route, WarehouseCode, WarehouseListed};
use serde::{Deserialize, Serialize};

use super::Fulfilment;
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
    pub(super) fn list_warehouse(&mut self, listed: WarehouseListed) {
        let warehouse = Warehouse {
            online: listed.online,
            routes: listed.routes,
            cost_minor: listed.cost_minor,
            distance_km: listed.distance_km,
            load_permille: listed.load_permille,
        };
        let key: WarehouseKey = (listed.merchant, listed.warehouse);
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
        };
        assert_eq!((warehouse.score("FR"), warehouse.score("DE")), (600, 900));
        warehouse.load_permille = 500;
        assert_eq!((warehouse.score("FR"), warehouse.score("DE")), (900, 1_350));
    }
}
