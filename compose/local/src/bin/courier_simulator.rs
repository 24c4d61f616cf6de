//! `courier-simulator`: runs `local::courier_simulator` until it is stopped.

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use local::courier_simulator::{Arguments, Simulator};

// One thread carries far more bookings than the stack it serves asks for, and leaves it the cores.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let config = Arguments::parse().config()?;
    let listen = config.listen;
    let simulator = Simulator::bind(config)
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
