//! Secrets: read from the environment or a file, never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A text that no `{:?}` shows; to be exposed where it is sent or compared, and nowhere else.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// Where a secret comes from: given (by an environment variable), or the content of a file, without
/// white space around it.
///
/// # Errors
/// When both or neither are given, or the file cannot be read or is empty. Never names the secret.
pub fn resolve(what: &str, given: Option<&Secret>, file: Option<&PathBuf>) -> Result<Secret> {
    match (given, file) {
        // Anybody can sign with an empty key.
        (Some(secret), None) if secret.expose().trim().is_empty() => {
            bail!("{what}: the secret is empty")
        }
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(path)) => read(path).with_context(|| format!("{what}: secret_file")),
        (Some(_), Some(_)) => bail!("{what}: give secret or secret_file, not both"),
        (None, None) => bail!("{what}: give secret (by environment) or secret_file"),
    }
}

fn read(path: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    match text.trim() {
        "" => bail!("{} is empty", path.display()),
        text => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_stays_out_of_debug_and_errors() {
        let secret = Secret::from("canary");
        assert!(!format!("{secret:?}").contains("canary"));
        let path = PathBuf::from("/nowhere");
        let error = resolve("stripe", Some(&secret), Some(&path)).unwrap_err();
        assert!(!format!("{error:#}").contains("canary"));
        assert_eq!(resolve("stripe", Some(&secret), None).unwrap().expose(), "canary");
        assert!(resolve("stripe", None, Some(&path)).is_err());
        assert!(resolve("stripe", None, None).is_err());
        assert!(resolve("stripe", Some(&" ".into()), None).is_err());
    }
}
