//! `payment-simulator`: runs `local::payment_simulator` until it is stopped.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use local::payment_simulator::{Settings, Simulator};

/// Payment providers behind one HTTP server: `/stripe`, `/gift`, `/settings`, `/ledger`.
#[derive(Parser)]
#[command(name = "payment-simulator")]
struct Arguments {
    /// Address to listen on; port 0 takes a free one, told on stdout
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Decides every draw
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where webhooks go: stripe or gift is appended, so end with a slash; without it none are sent
    #[arg(long, default_value = "")]
    webhook_url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, seed, webhook_url } = Arguments::parse();
    let settings = Settings { webhook_url, ..Settings::default() };
    let simulator = Simulator::bind(listen, seed, settings)
        .await
        .with_context(|| format!("listening on {listen}: is it in use? try --listen"))?;
    writeln!(std::io::stdout(), "listening on http://{}", simulator.address()?)?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = simulator.run() => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}
