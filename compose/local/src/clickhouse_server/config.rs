//! Flags and environment → configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;

use super::users::{Limits, User};

/// Everything the server starts with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data folder; made when it is missing. One process at a time may use it.
    pub data: PathBuf,
    /// `libchdb.so`, 26.7.3 or newer.
    pub library: PathBuf,
    /// Who may ask, with which rights.
    pub users: Vec<User>,
    /// Requests on the engine at once; more wait up to ten seconds.
    pub max_queries: usize,
    /// Memory of all queries together, bytes.
    pub max_memory_bytes: u64,
}

/// The command line of `clickhouse-server-local`.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "clickhouse-server-local", about = "ClickHouse over HTTP, without containers")]
pub struct Arguments {
    /// Address to listen on; port 0 takes a free one, told on stdout
    #[arg(long, default_value = "127.0.0.1:8123")]
    listen: SocketAddr,
    /// Data folder
    #[arg(long)]
    data: PathBuf,
    /// Path of libchdb.so, 26.7.3 or newer
    #[arg(long)]
    library: PathBuf,
    /// name:password or name:password:readonly; repeat it, or separate by commas
    /// [default: tillroll:tillroll, on a loopback address only]
    #[arg(long = "user", env = "CLICKHOUSE_USERS", value_delimiter = ',', hide_env_values = true)]
    users: Vec<String>,
    /// Requests on the engine at once
    #[arg(long, default_value_t = 64)]
    max_queries: usize,
    /// Memory of all queries together, bytes
    #[arg(long, default_value_t = 4_000_000_000)]
    max_memory_bytes: u64,
    /// Memory of one query of a readonly user, bytes
    #[arg(long, default_value_t = 1_000_000_000)]
    readonly_max_memory_bytes: u64,
    /// Threads of one query of a readonly user
    #[arg(long, default_value_t = 2)]
    readonly_max_threads: u64,
    /// Nice value of the threads of a readonly user's queries
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u8).range(..=19))]
    readonly_nice: u8,
    /// Run time of one query of a readonly user, seconds
    #[arg(long, default_value_t = 30)]
    readonly_max_execution_s: u64,
}

impl Arguments {
    /// The configuration these flags describe; says what is wrong with a user without showing it.
    pub fn config(self) -> anyhow::Result<Config> {
        let limits = Limits {
            max_memory_bytes: self.readonly_max_memory_bytes,
            max_threads: self.readonly_max_threads,
            max_execution_s: self.readonly_max_execution_s,
            nice: self.readonly_nice,
        };
        let mut users = Vec::new();
        for (index, text) in self.users.iter().enumerate() {
            let mut parts = text.split(':');
            let user = match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(password), None, None) => User::new(name, password, None),
                (Some(name), Some(password), Some("readonly"), None) => {
                    User::new(name, password, Some(limits))
                }
                _ => bail!("user {}: write name:password or name:password:readonly", index + 1),
            };
            if user.name.is_empty() {
                bail!("user {} has no name: write name:password", index + 1);
            }
            users.push(user);
        }
        if users.is_empty() {
            if !self.listen.ip().is_loopback() {
                bail!("without --user it only listens on a loopback address: add --user");
            }
            users.push(User::new("tillroll", "tillroll", None));
        }
        if self.max_queries == 0 {
            bail!("--max-queries is 0: give 1 or more");
        }
        Ok(Config {
            listen: self.listen,
            data: self.data,
            library: self.library,
            users,
            max_queries: self.max_queries,
            max_memory_bytes: self.max_memory_bytes,
        })
    }
}
