//! One running component: a process, its address and its health check.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Mutex;

use crate::health::Check;
use crate::process::{Process, Spec};

/// A component of a stack. Calls that start or end it wait for each other.
#[derive(Debug)]
pub struct Component {
    process: Process,
    url: String,
    check: Check,
    ready_within: Duration,
    took: Duration,
    lifecycle: Mutex<()>,
}

/// What a component is made of.
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    /// What clients are given.
    pub(crate) url: String,
    pub(crate) check: Check,
    pub(crate) ready_within: Duration,
}

impl Component {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(plan: Plan) -> Result<Arc<Self>> {
        let Plan { spec, url, check, ready_within } = plan;
        let process = Process::start(spec)?;
        let took = check.wait(&process, ready_within).await?;
        let lifecycle = Mutex::new(());
        Ok(Arc::new(Self { process, url, check, ready_within, took, lifecycle }))
    }

    /// Its name within the stack: `kafka`, `sinks-1`, …
    pub fn name(&self) -> &str {
        &self.process.spec().name
    }

    /// Its address, as clients need it; it stays the same over restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// The file its output goes to.
    pub fn log(&self) -> &Path {
        &self.process.spec().log
    }

    /// The last `lines` of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    /// How long it took from its first start until it was ready.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Asks it to stop and waits; after a bound it is killed. Returns whether it
    /// stopped by itself.
    ///
    /// # Errors
    /// If a signal cannot be sent.
    pub async fn stop(&self) -> Result<bool> {
        let _guard = self.lifecycle.lock().await;
        self.process.stop().await
    }

    /// kill -9, of its children too; waits until they are gone.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn kill(&self) -> Result<()> {
        let _guard = self.lifecycle.lock().await;
        self.process.kill().await
    }

    /// SIGSTOP: it keeps its locks and connections and answers nobody.
    ///
    /// # Errors
    /// If it doesn't run or the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT: ends [`Self::pause`].
    ///
    /// # Errors
    /// If it doesn't run or the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again at the same address with the same data, stopping it first
    /// if it runs, and waits until it is ready. Returns how long that took.
    ///
    /// # Errors
    /// If it doesn't start, ends, or isn't ready in time; the end of its log is quoted.
    pub async fn restart(&self) -> Result<Duration> {
        let started = Instant::now();
        self.relaunch().await?;
        self.wait_ready().await?;
        Ok(started.elapsed())
    }

    /// As [`Self::restart`], but doesn't wait until it is ready.
    ///
    /// # Errors
    /// If it doesn't stop or start.
    pub async fn relaunch(&self) -> Result<()> {
        let _guard = self.lifecycle.lock().await;
        self.process.restart().await
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it ends or isn't ready in time; the end of its log is quoted.
    pub async fn wait_ready(&self) -> Result<()> {
        self.check.wait(&self.process, self.ready_within).await.map(drop)
    }

    /// Ends it at once, blocking for a moment.
    pub(crate) fn end(&self) {
        self.process.end();
    }

    /// Looks once whether it is ready.
    ///
    /// # Errors
    /// Why it isn't.
    pub async fn check(&self) -> Result<()> {
        self.check.attempt().await
    }
}
