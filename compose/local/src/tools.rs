//! The programs of the machine that the local stack needs, and how to install them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program looked for in PATH, with the command that installs it on Debian.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The program's name.
    pub name: &'static str,
    /// The command that installs it.
    pub install: &'static str,
}

/// Runs Kafka and the registry.
pub const JAVA: Tool = Tool { name: "java", install: "apt-get install openjdk-17-jre-headless" };
/// Fetches Kafka, the registry and PostgreSQL.
pub const MAVEN: Tool = Tool { name: "mvn", install: "apt-get install maven" };
/// Fetches the ClickHouse engine.
pub const NPM: Tool = Tool { name: "npm", install: "apt-get install npm" };
/// Unpacks archives.
pub const TAR: Tool = Tool { name: "tar", install: "apt-get install tar" };
/// Unpacks PostgreSQL's archive, through tar.
pub const XZ: Tool = Tool { name: "xz", install: "apt-get install xz-utils" };
/// Unpacks the jar PostgreSQL's archive is in.
pub const UNZIP: Tool = Tool { name: "unzip", install: "apt-get install unzip" };
/// Ties a child's life to ours, and starts PostgreSQL as a user who isn't root.
pub const SETPRIV: Tool = Tool { name: "setpriv", install: "apt-get install util-linux" };

/// Every tool, for `tillroll-local check`.
pub const ALL: [Tool; 7] = [JAVA, MAVEN, NPM, TAR, XZ, UNZIP, SETPRIV];

impl Tool {
    /// Where the tool is.
    ///
    /// # Errors
    /// If it isn't in PATH: the message names the command that installs it.
    pub fn find(self) -> Result<PathBuf> {
        match std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .map(|folder| folder.join(self.name))
            .find(|path| is_executable(path))
        {
            Some(path) => Ok(path),
            None => bail!("`{}` is missing; install it with: {}", self.name, self.install),
        }
    }
}

/// The path of Java, if it is version 17 or newer.
///
/// # Errors
/// If Java is missing, too old, or doesn't say its version.
pub fn java() -> Result<PathBuf> {
    let path = JAVA.find()?;
    let output = Command::new(&path)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_major(&text) {
        Some(major) if major >= 17 => Ok(path),
        Some(major) => {
            bail!("java is version {major}, but 17 or newer is needed; {}", JAVA.install)
        }
        None => bail!("cannot read java's version from `java -version`; {}", JAVA.install),
    }
}

/// `openjdk version "17.0.15" 2025-04-15` → 17; `java version "1.8.0_202"` → 1.
fn java_major(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_cure() {
        let tool = Tool { name: "tillroll-no-such-tool", install: "apt-get install nothing" };
        let message = tool.find().expect_err("no such tool").to_string();
        assert!(message.contains("tillroll-no-such-tool"), "{message}");
        assert!(message.contains("apt-get install nothing"), "{message}");
    }

    #[test]
    fn java_versions_are_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_202\""), Some(1));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("nonsense"), None);
    }
}
