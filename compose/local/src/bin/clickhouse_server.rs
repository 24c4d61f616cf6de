//! `clickhouse-server-local`: runs `local::clickhouse_server` until it is stopped.

use std::io::Write;

use clap::Parser;
use local::chdb;
use local::clickhouse_server::{Arguments, Server};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let code = match run().await {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "clickhouse-server-local: {error:#}");
            1
        }
    };
    chdb::leave(code);
}

async fn run() -> anyhow::Result<()> {
    let server = Server::bind(Arguments::parse().config()?).await?;
    let (address, version) = (server.address()?, server.version());
    writeln!(std::io::stdout(), "listening on http://{address}, engine {version}")?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    server.run(stop).await;
    Ok(())
}
