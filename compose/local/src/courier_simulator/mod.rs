//! The courier simulator: one HTTP server that stands in for several courier companies. Each has a
//! price, a latency and ways to fail which can be changed while it runs.
//!
//! What it promises, because the processors' failover is judged by it:
//! - A booking is idempotent by its reference, also when the first answer never arrived.
//! - A voided reference stays voided: a booking that arrives late is refused with 409.
//! - A call goes on when its client hangs up, as a real company's would; it books at a random moment
//!   of its latency, so a client that times out cannot know whether it has a consignment.
//! - The n-th call to a courier draws the same numbers for the same seed.
//!
//! Bookings live in memory only. `settings` and `ledger` answer at once, whatever the couriers do.
//!
//! Reading order: `settings` (what can be changed), `ledger` (what was booked), `courier` (what
//! becomes of a call), `routes` (the paths), `config` (flags and file).

mod config;
mod courier;
mod ledger;
mod routes;
mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::TcpListener;

pub use config::{Arguments, Config};
pub use settings::{Mode, Range, Settings};

use crate::serve::serve;
use courier::Courier;

/// Couriers by name; shared by all connections.
pub(crate) struct Couriers {
    by_name: RwLock<BTreeMap<String, Arc<Courier>>>,
    seed: u64,
    kept: usize,
}

impl Couriers {
    fn new(config: Config) -> Self {
        let couriers =
            Couriers { by_name: RwLock::default(), seed: config.seed, kept: config.keep_bookings };
        for (name, settings) in config.couriers {
            couriers.create(&name, settings);
        }
        couriers
    }

    fn get(&self, name: &str) -> Option<Arc<Courier>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Courier>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The courier of this name, made with these settings unless it exists.
    fn create(&self, name: &str, settings: Settings) -> Arc<Courier> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Courier::new(name, settings, self.seed, self.kept));
        by_name.entry(name.to_owned()).or_insert_with(new).clone()
    }
}

/// A bound simulator; it answers once [`Simulator::run`] is polled.
pub struct Simulator {
    listener: TcpListener,
    couriers: Arc<Couriers>,
}

impl Simulator {
    /// Binds `config.listen`; port 0 takes a free one. Fails when the address is in use.
    pub async fn bind(config: Config) -> std::io::Result<Simulator> {
        let listener = TcpListener::bind(config.listen).await?;
        Ok(Simulator { listener, couriers: Arc::new(Couriers::new(config)) })
    }

    /// The address it listens on, with the port the system chose.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the returned future is dropped. A failing connection ends alone.
    pub async fn run(self) {
        let couriers = self.couriers;
        serve(&self.listener, move |request| routes::answer(couriers.clone(), request)).await;
    }
}
