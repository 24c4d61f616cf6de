//! Who runs a command: what an audit trail is signed with.

use std::fs;

use anyhow::{Context, Result};

/// The name given, or `user@host`.
///
/// # Errors
/// When neither is known: a change is not made by nobody.
pub(crate) fn name(given: Option<&str>) -> Result<String> {
    let given = given.map(str::trim).filter(|name| !name.is_empty());
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // Behind sudo it is still the person who asks.
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(set);
    let user = user.or_else(account).context("cannot tell who you are: give --by")?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    Ok(format!("{user}@{}", host.as_deref().unwrap_or("localhost")))
}

/// The account that this process runs under, where no variable says so, as in a container.
fn account() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let user = user.split_whitespace().next()?;
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|f| f.get(2) == Some(&user)).map(|f| f[0].to_owned());
    Some(found.unwrap_or_else(|| format!("user {user}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_signs() {
        assert_eq!(name(Some(" ada@ops ")).unwrap(), "ada@ops");
        let own = name(Some("")).unwrap();
        assert!(
            own.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        );
        assert!(account().is_some());
    }
}
