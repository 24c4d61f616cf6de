//! Class archives: a JVM maps them instead of parsing thousands of classes, which
//! halves the start of Kafka and of the registry. Java writes one when it exits, so
//! after a download a throw-away stack is started and stopped once to record them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::fetch::{Part, folder, say};
use crate::process::Spec;
use crate::stack::Stack;
use crate::tools::JAVA;

/// Writing an archive takes as long as starting.
const RECORDED_WITHIN: Duration = Duration::from_secs(60);

/// Whether a JVM uses its archive or writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Classes {
    /// Use it, if it is there.
    #[default]
    Use,
    /// Write it when the JVM stops.
    Record,
}

impl Classes {
    /// Adds the JVM's option for the component in `home`, before what is there.
    pub(crate) fn configure(self, spec: &mut Spec, home: &Path) -> Result<()> {
        let archive = archive(home)?;
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option
        };
        match self {
            Self::Use if archive.exists() => {
                spec.args.insert(0, option("-XX:SharedArchiveFile=", &archive));
            }
            Self::Use => {}
            Self::Record => {
                spec.args.insert(0, option("-XX:ArchiveClassesAtExit=", &unfinished(&archive)));
                spec.stop_within = RECORDED_WITHIN;
            }
        }
        Ok(())
    }
}

/// Records the archives that are missing: of Kafka, and of the registry if it is wanted.
/// They only save time, so a failure is said and forgotten.
pub(crate) async fn ensure(registry: bool) {
    if let Err(failure) = record_missing(registry).await {
        say(&format!("starts will be slow: cannot record class archives: {failure:#}"));
    }
}

async fn record_missing(registry: bool) -> Result<()> {
    let mut homes = vec![Part::Kafka.path()?];
    if registry {
        homes.push(Part::Registry.path()?);
    }
    let archives = homes.iter().map(|home| archive(home)).collect::<Result<Vec<_>>>()?;
    let missing = || archives.iter().any(|archive| !archive.exists());
    if !missing() {
        return Ok(());
    }
    let lock = File::create(folder()?.join(".classes.lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _lock = lock.await.context("waiting for the lock panicked")??;
    if !missing() {
        return Ok(());
    }
    say("recording the classes of Kafka and the registry, to start them faster from now on");
    let stack = Box::pin(Stack::builder().recording(registry).start()).await?;
    if registry {
        stack.stop("registry").await?;
    }
    stack.stop("kafka").await?;
    for archive in &archives {
        fs::rename(unfinished(archive), archive)
            .with_context(|| format!("java has not written {}", archive.display()))?;
    }
    Ok(())
}

/// An archive fits one build of Java: its time is in the name.
fn archive(home: &Path) -> Result<PathBuf> {
    let java = fs::canonicalize(JAVA.find()?)?;
    let built_at = fs::metadata(java)?.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(home.join(format!("classes-{}.jsa", built_at.as_secs())))
}

fn unfinished(archive: &Path) -> PathBuf {
    archive.with_extension("new")
}
