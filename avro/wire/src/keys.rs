//! API keys: one file (JSON), one entry per key, no secret in it. `tillroll keys` writes it, ingest
//! reads it.
//!
//! A secret is `tr_` and 32 random bytes in base64url, shown once. The file keeps its SHA-256: with
//! 256 random bits nothing slower is needed, and a look-up by hash tells a guesser nothing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{SecondsFormat, Utc};
use events::Merchant;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const PREFIX: &str = "tr_";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read or written.
    #[error("key file {0} cannot be used: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It is not what [`add`] writes.
    #[error("key file {0} is malformed: {1}")]
    Malformed(PathBuf, String),
}

/// One API key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose key; a merchant may have several, to change them without a gap.
    pub merchant: Merchant,
    /// SHA-256 of the secret, hexadecimal.
    pub sha256: String,
    /// When it was issued, RFC 3339.
    pub created_at: String,
}

impl Entry {
    /// A short name for lists and for [`revoke`]: the start of the hash.
    pub fn id(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<Entry>,
}

/// A secret's hash: who keeps it can ask whether the key still counts, and cannot call with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of the token without the word `Bearer`.
    pub fn of(bearer: &str) -> Self {
        Self(hash(bearer))
    }
}

/// The keys of a file, ready to authenticate.
#[derive(Debug, Default)]
pub struct Keys {
    merchants: HashMap<KeyHash, Arc<Merchant>>,
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read or an entry is malformed.
pub fn load(path: &Path) -> Result<Keys, KeysError> {
    let mut merchants = HashMap::new();
    for entry in list(path)? {
        let hash = parse_hash(&entry.sha256)
            .ok_or_else(|| malformed(path, &format!("{} is no SHA-256", entry.sha256)))?;
        merchants.insert(KeyHash(hash), Arc::new(entry.merchant));
    }
    Ok(Keys { merchants })
}

impl Keys {
    /// The merchant whose key this is, as long as it is not revoked.
    pub fn owner(&self, key: KeyHash) -> Option<Arc<Merchant>> {
        self.merchants.get(&key).cloned()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.merchants.len()
    }

    /// Whether nobody can call.
    pub fn is_empty(&self) -> bool {
        self.merchants.is_empty()
    }
}

/// The id of the key with this secret, as [`Entry::id`] tells it: safe to be shown and logged.
pub fn id(bearer: &str) -> String {
    hash(bearer).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a key: the secret, to be shown once, and the entry for [`add`].
pub fn issue(merchant: &Merchant) -> (String, Entry) {
    let mut random = [0; 32];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let entry = Entry {
        merchant: merchant.clone(),
        sha256: hash(&secret).iter().map(|byte| format!("{byte:02x}")).collect(),
        created_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    (secret, entry)
}

/// The entries of a key file, in the order they were issued.
///
/// # Errors
/// When it cannot be read or is malformed.
pub fn list(path: &Path) -> Result<Vec<Entry>, KeysError> {
    let text = fs::read(path).map_err(|e| KeysError::Io(path.to_owned(), e))?;
    let file: File = serde_json::from_slice(&text).map_err(|e| malformed(path, &e.to_string()))?;
    for entry in &file.keys {
        // Deserialising doesn't check a merchant's form.
        Merchant::parse(entry.merchant.as_str())
            .map_err(|e| malformed(path, &format!("merchant {:?} {e}", entry.merchant.as_str())))?;
    }
    Ok(file.keys)
}

/// Adds an entry; makes the file if there is none. Running services take it up within a second.
///
/// # Errors
/// When the file cannot be read or written, or is malformed.
pub fn add(path: &Path, entry: Entry) -> Result<(), KeysError> {
    let mut keys = match list(path) {
        Err(KeysError::Io(_, e)) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    keys.push(entry);
    replace(path, &File { keys })
}

/// Removes the entry with this [`Entry::id`]; `None` if there is none. Running services refuse the
/// key within a second.
///
/// # Errors
/// When the file cannot be read or written, or is malformed.
pub fn revoke(path: &Path, id: &str) -> Result<Option<Entry>, KeysError> {
    let mut keys = list(path)?;
    let Some(index) = keys.iter().position(|entry| entry.id() == id) else { return Ok(None) };
    let entry = keys.remove(index);
    replace(path, &File { keys })?;
    Ok(Some(entry))
}

/// Writes beside the file and renames, so that a reader sees the old or the new one.
fn replace(path: &Path, file: &File) -> Result<(), KeysError> {
    let io = |e| KeysError::Io(path.to_owned(), e);
    let mut text = serde_json::to_string_pretty(file).expect("entries are strings");
    text.push('\n');
    let beside = path.with_extension("new");
    fs::write(&beside, text).map_err(io)?;
    if let Ok(old) = fs::metadata(path) {
        fs::set_permissions(&beside, old.permissions()).map_err(io)?;
    }
    fs::rename(&beside, path).map_err(io)
}

fn malformed(path: &Path, reason: &str) -> KeysError {
    KeysError::Malformed(path.to_owned(), reason.to_string())
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn parse_hash(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merchant(name: &str) -> Merchant {
        Merchant::parse(name).unwrap()
    }

    #[test]
    fn an_issued_key_authenticates_its_merchant_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let (shop, shop_entry) = issue(&merchant("shop"));
        let (other, other_entry) = issue(&merchant("other"));
        add(&path, shop_entry.clone()).unwrap();
        add(&path, other_entry).unwrap();
        let keys = load(&path).unwrap();
        assert_eq!(keys.owner(KeyHash::of(&shop)).unwrap().as_str(), "shop");
        assert_eq!(keys.owner(KeyHash::of(&other)).unwrap().as_str(), "other");
        assert!(keys.owner(KeyHash::of("")).is_none());
        assert!(keys.owner(KeyHash::of(&shop_entry.sha256)).is_none(), "the file is no key");
        assert!(!fs::read_to_string(&path).unwrap().contains(&shop));
        assert!(shop.starts_with("tr_") && shop.len() == 3 + 43, "{shop}");
    }

    #[test]
    fn a_revoked_key_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let (secret, entry) = issue(&merchant("shop"));
        add(&path, entry.clone()).unwrap();
        assert_eq!(revoke(&path, "unknown").unwrap(), None);
        assert!(load(&path).unwrap().owner(KeyHash::of(&secret)).is_some());
        assert_eq!(revoke(&path, entry.id()).unwrap(), Some(entry));
        assert!(load(&path).unwrap().owner(KeyHash::of(&secret)).is_none());
    }

    #[test]
    fn a_malformed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        for text in [
            "",
            "[]",
            r#"{"keys":[{"merchant":"a/b","sha256":"00","created_at":""}]}"#,
            r#"{"keys":[{"merchant":"a","sha256":"00","created_at":""}]}"#,
            r#"{"keys":[],"extra":1}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(load(&path), Err(KeysError::Malformed(..))), "{text}");
        }
    }
}
