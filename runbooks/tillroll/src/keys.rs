//! `tillroll keys`: merchants' API keys. The file holds hashes; a secret is shown once.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use events::Merchant;
use serde_json::json;
use wire::keys;

use crate::output;

const EMPTY: &str = "{\"keys\":[]}\n";

/// `tillroll keys …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Issue a key: the secret goes to stdout, once; running services know it within a second
    #[command(after_help = "\
Examples:
  tillroll keys new --merchant shop --file keys.json
  key=$(tillroll keys new --merchant shop --file keys.json)

A merchant may have several keys, to change them without a gap.")]
    New {
        /// Whose orders and stock the key opens
        #[arg(long, value_parser = merchant)]
        merchant: Merchant,
        #[command(flatten)]
        file: KeyFile,
        /// Print id, merchant and secret as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys: id, merchant, when issued
    #[command(after_help = "\
Example:
  tillroll keys list --file keys.json --json")]
    List {
        #[command(flatten)]
        file: KeyFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; running services refuse it within a second
    #[command(after_help = "\
Example:
  tillroll keys revoke 9f86d081884c --file keys.json")]
    Revoke {
        /// The key's id, see `tillroll keys list`
        id: String,
        #[command(flatten)]
        file: KeyFile,
    },
}

/// Where the keys are.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyFile {
    /// The file of hashed keys that ingest reads [env: TILLROLL_KEYS_FILE]
    #[arg(long)]
    file: Option<PathBuf>,
}

impl KeyFile {
    fn path(&self) -> Result<PathBuf> {
        let set = || std::env::var_os("TILLROLL_KEYS_FILE").filter(|file| !file.is_empty());
        match self.file.clone().or_else(|| set().map(PathBuf::from)) {
            Some(path) => Ok(path),
            None => bail!("no key file: give --file or set TILLROLL_KEYS_FILE"),
        }
    }
}

fn merchant(text: &str) -> Result<Merchant> {
    Merchant::parse(text).map_err(|e| anyhow!("a merchant {e}"))
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be used, or there is no such key.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::New { merchant, file, json } => new(&merchant, &file.path()?, json),
        Command::List { file, json } => list(&file.path()?, json),
        Command::Revoke { id, file } => revoke(&id, &file.path()?),
    }
}

fn new(merchant: &Merchant, path: &Path, as_json: bool) -> Result<()> {
    let _lock = lock(path)?;
    create(path)?;
    let (secret, entry) = keys::issue(merchant);
    let id = entry.id().to_owned();
    keys::add(path, entry)?;
    output::message(&format!("key {id} of {merchant} added to {}", path.display()));
    output::message("the secret is shown only now");
    if as_json {
        let issued = json!({ "id": id, "merchant": merchant, "secret": secret });
        return output::data(&issued.to_string());
    }
    output::data(&secret)
}

fn list(path: &Path, as_json: bool) -> Result<()> {
    let keys = keys::list(path)?;
    if as_json {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({ "id": key.id(), "merchant": key.merchant, "created_at": key.created_at })
            })
            .collect();
        return output::data(&serde_json::to_string(&keys)?);
    }
    for key in keys {
        output::data(&format!("{}  {}  {}", key.id(), key.created_at, key.merchant))?;
    }
    Ok(())
}

fn revoke(id: &str, path: &Path) -> Result<()> {
    let _lock = lock(path)?;
    match keys::revoke(path, id)? {
        Some(entry) => output::message(&format!("key {id} of {} revoked", entry.merchant)),
        None => bail!("there is no key {id}: see `tillroll keys list`"),
    }
    Ok(())
}

/// Two commands at once must not lose each other's key: whoever changes the file holds its folder.
fn lock(path: &Path) -> Result<File> {
    let folder = folder(path);
    let lock = File::open(folder)
        .and_then(|folder| folder.lock().map(|()| folder))
        .with_context(|| format!("cannot lock {}", folder.display()))?;
    Ok(lock)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes an empty key file that only its owner reads; [`keys::add`] keeps a file's mode.
fn create(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let context = || format!("cannot create {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder(path)).with_context(context)?;
    file.write_all(EMPTY.as_bytes()).with_context(context)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600)).with_context(context)?;
    file.persist_noclobber(path).map_err(|e| e.error).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_the_owners_alone_and_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        for n in 1..=2 {
            new(&Merchant::parse("shop").unwrap(), &path, false).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "after {n}");
            assert_eq!(keys::load(&path).unwrap().len(), n);
        }
        let id = keys::list(&path).unwrap()[0].id().to_owned();
        revoke(&id, &path).unwrap();
        assert_eq!(keys::load(&path).unwrap().len(), 1);
        assert!(revoke(&id, &path).is_err(), "it is gone");
    }

    #[test]
    fn keys_issued_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| new(&Merchant::parse("shop").unwrap(), &path, true).unwrap());
            }
        });
        assert_eq!(keys::load(&path).unwrap().len(), 8);
    }
}
