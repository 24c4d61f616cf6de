//! A supervised child process: started with its output in a log file, stopped,
//! killed, paused, resumed and restarted with the same arguments.
//!
//! No child outlives us. Drop kills it; and if we die without dropping anything,
//! the kernel does (`setpriv --pdeathsig`). The kernel ties that to the life of
//! the *thread* that started the child, so one thread that lives as long as the
//! process starts them all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::tools::SETPRIV;

/// What of our own environment children see; the rest is up to [`Spec::env`].
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "JAVA_HOME", "RUST_LOG", "RUST_BACKTRACE"];
const POLL: Duration = Duration::from_millis(10);

/// Someone else to run a process as: needs root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
}

/// Everything needed to start a process, again and again.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name in messages.
    pub name: String,
    /// The program; an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment, besides PATH, HOME and the like.
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// Where stdout and stderr are appended.
    pub log: PathBuf,
    /// What asks it to stop, normally SIGTERM.
    pub stop_signal: Signal,
    /// How long it may take to stop before it is killed.
    pub stop_within: Duration,
    /// What it gets when we die or are dropped, normally SIGKILL.
    pub death_signal: Signal,
    /// Whom it runs as, if not us.
    pub user: Option<User>,
}

impl Spec {
    /// A process that stops on SIGTERM within 20 s and runs as us.
    pub fn new(name: &str, program: PathBuf, cwd: &Path, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: cwd.to_owned(),
            log,
            stop_signal: Signal::TERM,
            stop_within: Duration::from_secs(20),
            death_signal: Signal::KILL,
            user: None,
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(SETPRIV.find()?);
        command.arg("--pdeathsig").arg(signal_name(self.death_signal));
        if let Some(user) = self.user {
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid))
                .arg("--clear-groups");
        }
        command.arg("--").arg(&self.program).args(&self.args).env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.env).current_dir(&self.cwd).stdin(Stdio::null());
        // Its own group: ctrl-c on a terminal is for us, and we stop it in order.
        command.process_group(0);
        Ok(command)
    }
}

/// A child process that was started at least once.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Mutex<Slot>,
}

#[derive(Debug)]
enum Slot {
    Running(Child),
    Ended(ExitStatus),
}

impl Process {
    /// Starts it. It runs when this returns, which doesn't mean that it is ready.
    ///
    /// # Errors
    /// If the program or the log file cannot be opened.
    pub fn start(spec: Spec) -> Result<Self> {
        let child = spawn(&spec)?;
        Ok(Self { spec, child: Mutex::new(Slot::Running(child)) })
    }

    /// How it was started.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its process id, if it runs (or is paused).
    pub fn pid(&self) -> Option<u32> {
        let mut slot = self.lock();
        settle(&mut slot);
        match &*slot {
            Slot::Running(child) => Some(child.id()),
            Slot::Ended(_) => None,
        }
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut slot = self.lock();
        settle(&mut slot);
        match &*slot {
            Slot::Running(_) => None,
            Slot::Ended(status) => Some(*status),
        }
    }

    /// Waits until it ended by itself or by one of the calls below.
    pub async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks it to stop and waits; kills it after [`Spec::stop_within`]. Returns
    /// whether it stopped by itself. Nothing happens if it doesn't run.
    ///
    /// # Errors
    /// If a signal cannot be sent.
    pub async fn stop(&self) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(true) };
        signal(pid, self.spec.stop_signal)?;
        // A paused process gets the signal only when it goes on.
        signal_tree(pid, Signal::CONT)?;
        match tokio::time::timeout(self.spec.stop_within, self.wait()).await {
            Ok(_) => Ok(true),
            Err(_) => {
                self.kill().await?;
                Ok(false)
            }
        }
    }

    /// Kills it (SIGKILL) with its children and waits until it is gone.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn kill(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            let children = signal_tree(pid, Signal::KILL)?;
            self.wait().await;
            // PostgreSQL refuses to start while a child still holds its shared memory.
            while children.iter().any(|&child| alive(child)) {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Pauses it (SIGSTOP) with its children: it keeps its memory, locks and
    /// connections, and answers nobody.
    ///
    /// # Errors
    /// If it doesn't run or the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        signal_tree(self.running()?, Signal::STOP).map(drop)
    }

    /// Resumes it after [`Self::pause`].
    ///
    /// # Errors
    /// If it doesn't run or the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        signal_tree(self.running()?, Signal::CONT).map(drop)
    }

    /// Starts it again with the same arguments, stopping it first if it runs.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        let child = spawn(&self.spec)?;
        *self.lock() = Slot::Running(child);
        Ok(())
    }

    /// The last `lines` of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.spec.log, lines)
    }

    /// Ends it at once with [`Spec::death_signal`], and reaps it. Blocks for a moment.
    pub(crate) fn end(&self) {
        let Some(pid) = self.pid() else { return };
        if self.spec.death_signal != Signal::KILL {
            // Errors mean that it is gone already.
            let _ = signal(pid, self.spec.death_signal);
            let _ = signal_tree(pid, Signal::CONT);
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                if self.ended().is_some() {
                    return;
                }
                std::thread::sleep(POLL);
            }
        }
        let _ = signal_tree(pid, Signal::KILL);
        if let Slot::Running(child) = &mut *self.lock() {
            let _ = child.wait();
        }
    }

    fn running(&self) -> Result<u32> {
        match self.pid() {
            Some(pid) => Ok(pid),
            None => bail!("{} isn't running; restart it first", self.spec.name),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.child.lock().expect("no panic while locked")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last `lines` of a file, or why it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    const MOST: u64 = 64 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(e) => format!("(cannot read {}: {e})", path.display()),
    }
}

/// Signals one process.
///
/// # Errors
/// If it doesn't exist or isn't ours.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("a process id fits in 31 bits")?;
    let id = Pid::from_raw(raw).context("process id 0 is nobody's")?;
    kill_process(id, signal).with_context(|| format!("cannot signal process {pid}"))
}

/// Signals a process and all its descendants; returns the descendants.
///
/// # Errors
/// If the process itself doesn't exist or isn't ours.
pub fn signal_tree(pid: u32, what: Signal) -> Result<Vec<u32>> {
    if what != Signal::CONT {
        // So that it can't start others unseen while we look for its children.
        signal(pid, Signal::STOP)?;
    }
    let children = descendants(pid);
    signal(pid, what)?;
    for &child in &children {
        // A child may have ended meanwhile.
        let _ = signal(child, what);
    }
    Ok(children)
}

/// Whether the process exists and is no zombie.
fn alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z'))
}

/// The letter the kernel gives a process's state: `S` asleep, `T` stopped, `Z` zombie, …
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            found.push(child);
            todo.push(child);
        }
    }
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent …`; a name may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::QUIT => "QUIT",
        Signal::INT => "INT",
        Signal::TERM => "TERM",
        _ => "KILL",
    }
}

/// Reaps the child if it ended.
fn settle(slot: &mut Slot) {
    if let Slot::Running(child) = slot
        && let Ok(Some(status)) = child.try_wait()
    {
        *slot = Slot::Ended(status);
    }
}

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The thread that starts every child: it never ends before the process.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for (mut command, answer) in receiver {
                // Nobody waits any more: the child is dropped with the answer.
                let _ = answer.send(command.spawn());
            }
        })
        .expect("a thread can be started");
    Mutex::new(sender)
});

fn spawn(spec: &Spec) -> Result<Child> {
    if !spec.program.exists() {
        bail!("{}: there is no {}", spec.name, spec.program.display());
    }
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)
        .with_context(|| format!("cannot write {}", spec.log.display()))?;
    writeln!(log, "--- starting {} ---", spec.name)?;
    let mut command = spec.command()?;
    command.stdout(log.try_clone()?).stderr(log);
    let (sender, receiver) = mpsc::channel();
    SPAWNER
        .lock()
        .expect("no panic while locked")
        .send((command, sender))
        .expect("the spawner never ends");
    receiver
        .recv()
        .expect("the spawner answers every job")
        .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(data: &Path, script: &str) -> Process {
        let mut spec = Spec::new("sleeper", "/bin/sh".into(), data, data.join("log"));
        spec.args = vec!["-c".into(), script.into()];
        spec.stop_within = Duration::from_millis(300);
        Process::start(spec).expect("sh exists")
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..300 {
            if condition() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("not within 3 s: {what}");
    }

    #[tokio::test]
    async fn pause_kill_and_restart_reach_children_too() {
        let data = tempfile::tempdir().expect("temp folder");
        let process = sleeper(data.path(), "sleep 60 & wait");
        let pid = process.pid().expect("running");
        until("child started", || !descendants(pid).is_empty()).await;
        let child = descendants(pid)[0];

        process.pause().expect("running");
        until("child stopped", || state_of(child) == Some('T')).await;
        process.resume().expect("running");
        until("child goes on", || state_of(child) == Some('S')).await;

        process.kill().await.expect("ours");
        assert!(!alive(child), "a killed process takes its children along");
        assert!(process.pause().is_err(), "a dead process can't be paused");

        process.restart().await.expect("same arguments");
        assert_ne!(process.pid().expect("running again"), pid);
    }

    #[tokio::test]
    async fn who_ignores_the_stop_signal_is_killed_after_the_bound() {
        let data = tempfile::tempdir().expect("temp folder");
        let process = sleeper(data.path(), "trap '' TERM; echo armed; while :; do sleep 1; done");
        until("trap set", || process.log_tail(5).contains("armed")).await;
        process.pause().expect("running");
        assert!(!process.stop().await.expect("ours"), "it can't have stopped by itself");
        assert!(process.pid().is_none());
    }

    #[tokio::test]
    async fn drop_kills() {
        let data = tempfile::tempdir().expect("temp folder");
        let process = sleeper(data.path(), "sleep 60");
        let pid = process.pid().expect("running");
        drop(process);
        assert!(state_of(pid).is_none(), "the child must be dead and reaped");
    }

    #[test]
    fn a_child_survives_the_thread_that_asked_for_it() {
        let data = tempfile::tempdir().expect("temp folder");
        let path = data.path().to_owned();
        let process = std::thread::spawn(move || sleeper(&path, "sleep 60")).join().expect("ok");
        std::thread::sleep(Duration::from_millis(100));
        assert!(process.pid().is_some());
    }

    #[test]
    fn tail_gives_the_last_lines() {
        let data = tempfile::tempdir().expect("temp folder");
        let file = data.path().join("x");
        fs::write(&file, "a\nb\nc\n").expect("writable");
        assert_eq!(tail(&file, 2), "b\nc");
        assert!(tail(&data.path().join("y"), 2).contains("cannot read"));
    }
}
