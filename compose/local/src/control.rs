//! A running stack seen from another shell: `stack.json` in its data folder says
//! what runs where, and a socket takes orders. Only the process that started the
//! components can start them again, so orders go to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::component::Component;
use crate::stack::Stack;

/// A socket's path has room for about a hundred bytes.
const LONGEST_SOCKET_PATH: usize = 100;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// SIGTERM, and SIGKILL if that doesn't help.
    Stop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// Start again and wait until it is ready.
    Restart,
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    action: Action,
    component: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    done: bool,
    message: String,
}

/// The contents of `stack.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The process that runs the stack.
    pub pid: u32,
    /// The socket that takes orders.
    pub socket: PathBuf,
    /// Its components.
    pub components: Vec<ComponentState>,
}

/// A component in `stack.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ComponentState {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Its process id when the file was written; none if it didn't run.
    pub pid: Option<u32>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// Where a stack's state is.
pub fn state_file(folder: &Path) -> PathBuf {
    folder.join("stack.json")
}

/// Writes `stack.json`, in one piece.
pub(crate) fn save(folder: &Path, components: &[Arc<Component>]) -> Result<()> {
    let components = components
        .iter()
        .map(|component| ComponentState {
            name: component.name().to_owned(),
            url: component.url().to_owned(),
            pid: component.pid(),
            log: component.log().to_owned(),
        })
        .collect();
    let state = State { pid: std::process::id(), socket: socket_path(folder), components };
    let file = state_file(folder);
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(&state)?)
        .and_then(|()| fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The state of the stack in `folder`.
///
/// # Errors
/// If none runs there.
pub fn load(folder: &Path) -> Result<State> {
    let file = state_file(folder);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(_) => bail!("no stack runs in {}; start one with: tillroll-local up", folder.display()),
    };
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))
}

/// Takes orders until the future is dropped.
///
/// # Errors
/// If the socket cannot be opened.
pub async fn serve(stack: &Stack) -> Result<()> {
    let path = socket_path(stack.folder());
    // Left over from a stack that was killed: the folder's lock says that it is ours.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    loop {
        let (stream, _) = listener.accept().await?;
        // One order after the other; a shell that breaks off harms only itself.
        if let Err(failure) = answer(stack, stream).await {
            tracing::warn!(error = %failure, "an order was not answered");
        }
    }
}

/// Asks the stack in `folder`; returns its answer.
///
/// # Errors
/// If no stack runs there, or it couldn't do it.
pub async fn ask(folder: &Path, action: Action, component: &str) -> Result<String> {
    let state = load(folder)?;
    let mut stream = UnixStream::connect(&state.socket).await.with_context(|| {
        format!(
            "the stack in {} takes no orders; is process {} alive?",
            folder.display(),
            state.pid
        )
    })?;
    let mut order = serde_json::to_vec(&Order { action, component: component.to_owned() })?;
    order.push(b'\n');
    stream.write_all(&order).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let answer: Answer = serde_json::from_str(&line).context("the stack broke off")?;
    if !answer.done {
        bail!("{}", answer.message);
    }
    Ok(answer.message)
}

async fn answer(stack: &Stack, stream: UnixStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let order: Order = serde_json::from_str(&line).context("not an order")?;
    let answer = match obey(stack, &order).await {
        Ok(message) => Answer { done: true, message },
        Err(failure) => Answer { done: false, message: format!("{failure:#}") },
    };
    save(stack.folder(), &stack.components())?;
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    stream.write_all(&bytes).await?;
    Ok(())
}

async fn obey(stack: &Stack, order: &Order) -> Result<String> {
    let name = &order.component;
    let component = stack.component(name)?;
    Ok(match order.action {
        Action::Stop => match component.stop().await? {
            true => format!("{name} stopped"),
            false => format!("{name} didn't stop in time and was killed"),
        },
        Action::Kill => {
            component.kill().await?;
            format!("{name} killed")
        }
        Action::Pause => {
            component.pause()?;
            format!("{name} paused")
        }
        Action::Resume => {
            component.resume()?;
            format!("{name} resumed")
        }
        Action::Restart => {
            let took = component.restart().await?;
            format!("{name} ready after {:.1} s", took.as_secs_f64())
        }
    })
}

fn socket_path(folder: &Path) -> PathBuf {
    let beside = folder.join("control.sock");
    if beside.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return beside;
    }
    std::env::temp_dir().join(format!("tillroll-{}.sock", std::process::id()))
}
