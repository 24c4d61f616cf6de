//! Free ports that stay ours, also while their component is down.
//!
//! Binding port 0 would hand out ports of the ephemeral range. A killed
//! component's port could then be taken by any client's outgoing connection,
//! and a client that retries a closed port of that range can connect to itself.
//! So ports come from below the range, and a lock file per port keeps other
//! stacks on the same machine away for as long as the [`Port`] lives.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;
const REMEMBERED: &str = "ports.json";

/// A reserved TCP port on 127.0.0.1; freed for other stacks when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: File,
}

impl Port {
    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The ports of one stack by purpose. They are remembered in the data folder, so
/// that a stack that comes up again has the same addresses where they are still free.
#[derive(Debug)]
pub struct Ports {
    file: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    remembered: BTreeMap<String, u16>,
    held: BTreeMap<String, Port>,
}

impl Ports {
    /// The ports of the stack in `data`.
    ///
    /// # Errors
    /// If the remembered ports cannot be read.
    pub fn open(data: &Path) -> Result<Self> {
        let file = data.join(REMEMBERED);
        let remembered = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; delete it", file.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self { file, inner: Mutex::new(Inner { remembered, held: BTreeMap::new() }) })
    }

    /// Prefers `port` for `purpose` where it is free and none is remembered.
    pub fn prefer(&self, purpose: &str, port: u16) {
        let mut inner = self.inner.lock().expect("no panic while locked");
        inner.remembered.entry(purpose.to_owned()).or_insert(port);
    }

    /// The port for `purpose` (`kafka-1`, `ingest-2.operator`): the one held
    /// already, the remembered one if it is free, or a new one.
    ///
    /// # Errors
    /// If no port is free, or the lock files or the memory cannot be written.
    pub fn get(&self, purpose: &str) -> Result<u16> {
        let mut inner = self.inner.lock().expect("no panic while locked");
        if let Some(port) = inner.held.get(purpose) {
            return Ok(port.number);
        }
        let wanted = inner.remembered.get(purpose).copied();
        let port = match wanted.map(lease).transpose()?.flatten() {
            Some(port) => port,
            None => reserve()?,
        };
        let number = port.number;
        inner.held.insert(purpose.to_owned(), port);
        if inner.remembered.insert(purpose.to_owned(), number) != Some(number) {
            let text = serde_json::to_vec_pretty(&inner.remembered)?;
            fs::write(&self.file, text)
                .with_context(|| format!("cannot write {}", self.file.display()))?;
        }
        Ok(number)
    }
}

/// Reserves one free port.
///
/// # Errors
/// If none of the range is free, or the lock folder cannot be written.
pub fn reserve() -> Result<Port> {
    // A random start, so that stacks started at once don't walk the same ports.
    let start = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(COUNT))
        .expect("a remainder below COUNT fits");
    for step in 0..COUNT {
        if let Some(port) = lease(FIRST + (start + step) % COUNT)? {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}; stop other stacks", FIRST + COUNT - 1)
}

/// `None` if another stack holds the port or something listens on it.
fn lease(number: u16) -> Result<Option<Port>> {
    let folder = std::env::temp_dir().join("tillroll-ports");
    if !folder.exists() {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // Like /tmp itself: every user may reserve ports here. If someone else
        // made the folder a moment ago, the mode is theirs to set.
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777));
    }
    let path = folder.join(number.to_string());
    // Another user's lock file may be closed to us: that port is theirs.
    let Ok(file) = OpenOptions::new().create(true).append(true).open(&path) else {
        return probe_folder(&folder).map(|()| None);
    };
    if file.try_lock().is_err() {
        return Ok(None);
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
    Ok(free.then_some(Port { number, _lease: file }))
}

fn probe_folder(folder: &Path) -> Result<()> {
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("cannot write lock files in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_is_not_given_twice() {
        let first = reserve().expect("ports are free");
        assert!(lease(first.number()).expect("folder is writable").is_none());
        let number = first.number();
        drop(first);
        assert!(lease(number).expect("folder is writable").is_some());
    }

    #[test]
    fn a_listener_makes_a_port_taken() {
        let port = reserve().expect("ports are free");
        let number = port.number();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).expect("it is free");
        drop(port);
        assert!(lease(number).expect("folder is writable").is_none());
    }

    #[test]
    fn ports_are_remembered_by_purpose() {
        let data = tempfile::tempdir().expect("temp folder");
        let ports = Ports::open(data.path()).expect("new folder");
        let kafka = ports.get("kafka-1").expect("free");
        assert_eq!(ports.get("kafka-1").expect("held"), kafka);
        assert_ne!(ports.get("registry").expect("free"), kafka);
        drop(ports);
        let again = Ports::open(data.path()).expect("remembered");
        assert_eq!(again.get("kafka-1").expect("free"), kafka);
    }
}
