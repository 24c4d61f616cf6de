//! `tillroll-local`: the stack without containers, from a shell.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use local::control::{self, Action};
use local::{Service, Stack, fetch, services, tools};
use tokio::signal::unix::{SignalKind, signal};

/// The merchant that a new stack has.
const MERCHANT: &str = "shop";

const EXAMPLES: &str = "\
Examples:
  tillroll-local check                 what is missing on this machine, and how to install it
  tillroll-local fetch                 download the components (once, about 400 MB)
  tillroll-local up                    start everything; ctrl-c stops it
  tillroll-local up --components-only  Kafka, registry, PostgreSQL, ClickHouse, couriers
  tillroll-local kill sinks-1          kill -9, from another shell
  tillroll-local restart sinks-1       start it again and wait until it is ready
  tillroll-local pause kafka           SIGSTOP: it keeps its connections and answers nobody";

/// Starts, stops, kills and pauses the real components without containers.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// The stack's data folder
    #[arg(long, global = true, env = "TILLROLL_DATA", default_value_os_t = default_data())]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, print the addresses and stay until ctrl-c
    Up {
        /// Kafka nodes; 3 replicate everything three times
        #[arg(long, default_value_t = 1)]
        brokers: u32,
        /// Instances of ingest
        #[arg(long, default_value_t = 2)]
        ingest: usize,
        /// Instances of the processors
        #[arg(long, default_value_t = 1)]
        processors: usize,
        /// Instances of the sinks
        #[arg(long, default_value_t = 1)]
        sinks: usize,
        /// Leave out our own services
        #[arg(long)]
        components_only: bool,
    },
    /// Download the components that are missing
    Fetch,
    /// Say which tools, components and binaries are missing
    Check,
    /// What runs where
    Status,
    /// Ask a component to stop
    Stop {
        /// Its name, see `status`
        component: String,
    },
    /// Kill a component (SIGKILL)
    Kill {
        /// Its name, see `status`
        component: String,
    },
    /// Pause a component (SIGSTOP)
    Pause {
        /// Its name, see `status`
        component: String,
    },
    /// Resume a paused component (SIGCONT)
    Resume {
        /// Its name, see `status`
        component: String,
    },
    /// Start a component again and wait until it is ready
    Restart {
        /// Its name, see `status`
        component: String,
    },
}

/// Under /var/tmp, which survives a reboot, and where PostgreSQL can run as
/// another user if we are root.
fn default_data() -> PathBuf {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| "unknown".to_owned());
    PathBuf::from("/var/tmp").join(format!("tillroll-{user}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            fetch::say(&format!("tillroll-local: {failure:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let data = &arguments.data;
    let (action, component) = match arguments.command {
        Command::Up { .. } => return up(arguments).await,
        Command::Fetch => return Stack::prepare().await,
        Command::Check => return check(),
        Command::Status => return status(data),
        Command::Stop { component } => (Action::Stop, component),
        Command::Kill { component } => (Action::Kill, component),
        Command::Pause { component } => (Action::Pause, component),
        Command::Resume { component } => (Action::Resume, component),
        Command::Restart { component } => (Action::Restart, component),
    };
    let answer = control::ask(data, action, &component).await?;
    print(&format!("{answer}\n"))
}

async fn up(arguments: Arguments) -> Result<()> {
    let Command::Up { brokers, ingest, processors, sinks, components_only } = arguments.command
    else {
        unreachable!("main calls this for `up` alone");
    };
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let starting = async {
        let builder = Stack::builder().all_components().kafka(brokers).data(&arguments.data);
        let stack = builder.start().await?;
        if !components_only {
            stack.setup().await?;
            if !stack.keys_file().exists() {
                let key = stack.tillroll(&["keys", "new", "--merchant", MERCHANT]).await?;
                print(&format!("API key of merchant {MERCHANT}, shown only now: {key}"))?;
            }
            tokio::try_join!(
                stack.start_service(Service::Ingest, ingest),
                stack.start_service(Service::Processors, processors),
                stack.start_service(Service::Sinks, sinks),
            )?;
        }
        Ok::<_, anyhow::Error>(stack)
    };
    let stack = tokio::select! {
        stack = starting => stack?,
        _ = interrupted.recv() => bail!("interrupted while starting; everything was stopped"),
        _ = terminated.recv() => bail!("terminated while starting; everything was stopped"),
    };
    describe(&stack)?;
    let served = tokio::select! {
        served = control::serve(&stack) => served,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    fetch::say("stopping");
    stack.shutdown().await?;
    served
}

fn describe(stack: &Stack) -> Result<()> {
    let mut text = String::from("\n");
    for component in stack.components() {
        let (name, url) = (component.name(), component.url());
        text += &format!("{name:<18} {url}  (ready in {:.1} s)\n", component.took().as_secs_f64());
    }
    text += &format!("\nlogs: {}\n", stack.folder().join("logs").display());
    text += "for `tillroll`:\n";
    for (name, value) in stack.operator_environment() {
        text += &format!("  export {name}={value}\n");
    }
    text += "ctrl-c stops everything\n";
    print(&text)
}

fn status(data: &std::path::Path) -> Result<()> {
    let state = control::load(data)?;
    let mut text = String::new();
    for component in state.components {
        let pid = component.pid.map_or_else(|| "down".to_owned(), |pid| pid.to_string());
        text += &format!("{:<18} {pid:>8}  {}\n", component.name, component.url);
    }
    print(&text)
}

fn check() -> Result<()> {
    let mut missing = 0;
    let mut text = String::new();
    for tool in tools::ALL {
        let found = if tool.name == tools::JAVA.name { tools::java() } else { tool.find() };
        text += &match found {
            Ok(path) => format!("ok       {}\n", path.display()),
            Err(failure) => {
                missing += 1;
                format!("MISSING  {failure:#}\n")
            }
        };
    }
    for part in fetch::ALL {
        let path = part.path()?;
        text += &match path.exists() {
            true => format!("ok       {}\n", path.display()),
            false => format!("absent   {}; `tillroll-local fetch` gets it\n", path.display()),
        };
    }
    for name in services::BINARIES {
        text += &match services::binary(name) {
            Ok(path) => format!("ok       {}\n", path.display()),
            Err(failure) => format!("absent   {failure:#}\n"),
        };
    }
    print(&text)?;
    if missing > 0 {
        bail!("{missing} tools are missing");
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")
}
