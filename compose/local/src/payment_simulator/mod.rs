//! The payment simulator: one HTTP server that stands in for payment providers. `/stripe` speaks the part
//! of Stripe's API that the adapter uses, `/gift` the protocol for balances; both keep a ledger of
//! their own, which tests compare with ours, and send signed webhooks.
//!
//! What it promises, because payments are judged by it:
//! - A request is performed once per idempotency key; the first answer is repeated, a 500 too.
//! - A call goes on when its client hangs up, so a client that times out cannot know what came of it.
//! - A webhook is sent until it is answered 2xx; some come before the response, late, or twice.
//!
//! `settings` and `ledger` answer at once, whatever the providers do.
//!
//! Reading order: `settings` (what can be changed), `ledger` (payments and keys), `protocols` (requests
//! and answers), `webhooks`, `routes`.

mod ledger;
mod protocols;
mod routes;
mod settings;
mod webhooks;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;

pub use settings::Settings;

use crate::serve::serve;
use ledger::Ledger;
use settings::Chance;

/// Tokens that are always refused: Stripe's own for its test mode, and a gift card with nothing on it.
pub const REFUSED_TOKENS: [&str; 2] = ["pm_card_chargeDeclined", "gift_empty"];
/// The secret with which `/stripe` signs its webhooks.
pub const STRIPE_SECRET: &str = "whsec_simulated";
/// The secret with which `/gift` signs its webhooks (Standard Webhooks: base64 after the prefix).
pub const GIFT_SECRET: &str = "whsec_c2ltdWxhdGVkLXNlY3JldC1vZi1naWZ0";

/// What all connections share.
pub(crate) struct State {
    settings: Mutex<Settings>,
    ledger: Mutex<Ledger>,
    chance: Mutex<Chance>,
    http: reqwest::Client,
}

impl State {
    pub(crate) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: &serde_json::Value) -> Result<Settings, String> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *settings = settings.patched(change)?;
        Ok(settings.clone())
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound simulator; it answers once [`Simulator::run`] is polled.
pub struct Simulator {
    listener: TcpListener,
    state: Arc<State>,
}

impl Simulator {
    /// Binds `listen`; port 0 takes a free one. `seed` decides every draw.
    ///
    /// # Errors
    /// When the address is in use.
    pub async fn bind(listen: SocketAddr, seed: u64, settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let state = Arc::new(State {
            settings: Mutex::new(settings),
            ledger: Mutex::default(),
            chance: Mutex::new(Chance::new(seed)),
            http: reqwest::Client::new(),
        });
        Ok(Self { listener, state })
    }

    /// The address it listens on, with the port the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the returned future is dropped. A failing connection ends alone.
    pub async fn run(self) {
        let state = self.state;
        serve(&self.listener, move |request| routes::answer(state.clone(), request)).await;
    }
}
