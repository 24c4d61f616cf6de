//! The API keys of a running service: read from their file, and again whenever it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use events::Merchant;
use wire::keys::{KeyHash, Keys, KeysError, load};

const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// The keys of a running service, reloaded when their file changes.
#[derive(Debug)]
pub struct KeyRing {
    path: PathBuf,
    current: RwLock<Arc<Keys>>,
}

impl KeyRing {
    /// Reads the file; one that isn't there yet means that nobody can call yet.
    ///
    /// # Errors
    /// When the file is there and unusable.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let keys = match load(path) {
            Err(KeysError::Io(_, e)) if e.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "no API keys yet: run `tillroll keys new`");
                Keys::default()
            }
            other => other?,
        };
        Ok(Self { path: path.to_owned(), current: RwLock::new(Arc::new(keys)) })
    }

    /// See [`Keys::owner`].
    pub fn owner(&self, key: KeyHash) -> Option<Arc<Merchant>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).owner(key)
    }

    /// Looks at the file every second, for good. A file that becomes unusable or disappears changes
    /// nothing but the log: half a deployment must not lock every merchant out.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = None;
        loop {
            let ring = Arc::clone(&self);
            let last = seen;
            let look = tokio::task::spawn_blocking(move || ring.reload_if_changed(last));
            if let Ok(now) = look.await {
                seen = now;
            }
            tokio::time::sleep(RELOAD_EVERY).await;
        }
    }

    fn reload_if_changed(&self, seen: Option<Stamp>) -> Option<Stamp> {
        let stamp = stamp(&self.path);
        if stamp == seen {
            return seen;
        }
        match load(&self.path) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "API keys loaded");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) if seen.is_some() => {
                tracing::error!(%error, "API keys not reloaded: the previous ones stay valid");
            }
            Err(_) => {}
        }
        stamp
    }
}

/// Tells one version of a file from another: a replaced file has another inode.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::keys::{add, issue, revoke};

    fn merchant(name: &str) -> Merchant {
        Merchant::parse(name).unwrap()
    }

    #[test]
    fn a_revoked_key_is_refused_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let ring = KeyRing::open(&path).unwrap();
        let (secret, entry) = issue(&merchant("shop"));
        assert!(ring.owner(KeyHash::of(&secret)).is_none());
        add(&path, entry.clone()).unwrap();
        let seen = ring.reload_if_changed(None);
        assert!(ring.owner(KeyHash::of(&secret)).is_some());
        assert_eq!(revoke(&path, "unknown").unwrap(), None);
        assert_eq!(revoke(&path, entry.id()).unwrap(), Some(entry));
        let seen = ring.reload_if_changed(seen);
        assert!(ring.owner(KeyHash::of(&secret)).is_none());
        // A broken file keeps what was valid.
        let (secret, entry) = issue(&merchant("shop"));
        add(&path, entry).unwrap();
        let seen = ring.reload_if_changed(seen);
        fs::write(&path, "{").unwrap();
        ring.reload_if_changed(seen);
        assert!(ring.owner(KeyHash::of(&secret)).is_some());
    }
}
