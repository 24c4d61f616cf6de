//! Progress: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Writes a message to stderr, a line. A closed stderr stops nothing.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// How far a phase is.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A phase of `total` steps.
    pub fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{msg:<22} {wide_bar:.green} {human_pos}/{human_len}  {elapsed}";
            bar.set_style(ProgressStyle::with_template(style).expect("the template is legal"));
            bar.set_message(what);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { what, total, done: AtomicU64::new(0), bar }
    }

    /// One step further.
    pub fn step(&self) {
        self.move_to(|done| done + 1);
    }

    /// This many steps are done.
    pub fn set(&self, done: u64) {
        self.move_to(|_| done);
    }

    fn move_to(&self, to: impl Fn(u64) -> u64) {
        let update = |done| Some(to(done));
        let before = self
            .done
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
            .expect("the update never declines");
        let after = to(before);
        if let Some(bar) = &self.bar {
            bar.set_position(after);
            return;
        }
        let fifth = |done: u64| done * 5 / self.total.max(1);
        if fifth(after) > fifth(before) {
            say(&format!("{}: {after} of {}", self.what, self.total));
        }
    }

    /// Ends the phase.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}
