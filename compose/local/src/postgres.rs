//! PostgreSQL. It refuses to run as root: then it runs as `nobody`, with its
//! programs and data where that user can reach them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::{Spec, User};
use crate::tools::SETPRIV;

/// User, password and database. It listens on 127.0.0.1 alone, and holds test data.
const NAME: &str = "tillroll";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// For programs that `nobody` must reach, when our own download folder is closed to it.
const SHARED_COMPONENTS: &str = "/var/tmp/tillroll-components";

/// The database server, initialised if its data folder is new. Blocks for that: a second or two.
pub(crate) fn plan(home: &Path, data: &Path, ports: &Ports) -> Result<Plan> {
    let port = ports.get("postgres")?;
    let user = unprivileged()?;
    let folder = data.join("postgres");
    if user.is_some()
        && let Some(closed) = closed_to_others(data)?
    {
        bail!(
            "PostgreSQL runs as `nobody`, who can't enter {}; use a data folder elsewhere \
             (for instance under /var/tmp) or run: chmod o+x {}",
            closed.display(),
            closed.display()
        );
    }
    let log = crate::stack::log_file(data, "postgres");
    if !folder.join("PG_VERSION").exists() {
        initialise(home, &folder, &log, user)?;
    }
    let mut spec = Spec::new("postgres", home.join("bin/postgres"), &folder, log);
    spec.args = vec!["-D".into(), folder.into(), "-p".into(), port.to_string().into()];
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        // Files in the data folder, not in /dev/shm, where a killed server would leave them.
        "dynamic_shared_memory_type=mmap",
    ] {
        spec.args.extend(["-c".into(), setting.into()]);
    }
    // "Fast": clients are cut off. The default would wait until they leave.
    spec.stop_signal = Signal::INT;
    // "Immediate": as abrupt as a kill, but its shared memory is freed.
    spec.death_signal = Signal::QUIT;
    spec.user = user;
    let url = format!("postgres://{NAME}:{NAME}@127.0.0.1:{port}/{NAME}");
    Ok(Plan { spec, check: Check::Postgres(url.clone()), url, ready_within: READY_WITHIN })
}

/// Where PostgreSQL's programs go: `normal`, unless we are root and `nobody` can't enter it.
pub(crate) fn components_folder(normal: PathBuf) -> PathBuf {
    let root = rustix::process::geteuid().is_root();
    if root && !matches!(closed_to_others(&normal), Ok(None)) {
        PathBuf::from(SHARED_COMPONENTS)
    } else {
        normal
    }
}

fn initialise(home: &Path, folder: &Path, log: &Path, user: Option<User>) -> Result<()> {
    trusted(home)?;
    // A half-made folder of an earlier start that was interrupted.
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot clear {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let password = folder.with_extension("password");
    fs::write(&password, NAME)?;
    if let Some(user) = user {
        for path in [folder, &password] {
            chown(path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("cannot give {} to `nobody`", path.display()))?;
        }
    }
    let mut initdb = command(&home.join("bin/initdb"), folder, user)?;
    initdb.args(["--username", NAME, "--auth=scram-sha-256", "--encoding=UTF8"]);
    // --no-sync: a folder lost to a power cut this early is made anew.
    initdb.args(["--locale=C.UTF-8", "--no-sync", "--no-instructions", "-D"]);
    initdb.arg(folder).arg("--pwfile").arg(&password);
    run(initdb, log, "")?;
    fs::remove_file(&password)?;
    let mut single = command(&home.join("bin/postgres"), folder, user)?;
    single.args(["--single", "-D"]).arg(folder).arg("postgres");
    run(single, log, &format!("create database {NAME}\n"))
}

fn command(program: &Path, folder: &Path, user: Option<User>) -> Result<Command> {
    let mut command = match user {
        Some(user) => {
            let mut setpriv = Command::new(SETPRIV.find()?);
            setpriv
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid))
                .args(["--clear-groups", "--"])
                .arg(program);
            setpriv
        }
        None => Command::new(program),
    };
    command.current_dir(folder);
    Ok(command)
}

fn run(mut command: Command, log: &Path, input: &str) -> Result<()> {
    let output = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot run PostgreSQL's programs")?;
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        let text = crate::process::tail(log, 20);
        bail!("PostgreSQL's data folder can't be made ({status}):\n{text}");
    }
    Ok(())
}

/// `None` if we aren't root and PostgreSQL can run as us.
fn unprivileged() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    match nobody(&users) {
        Some(user) => Ok(Some(user)),
        None => bail!("there is no user `nobody` for PostgreSQL, which refuses to run as root"),
    }
}

fn nobody(users: &str) -> Option<User> {
    let line = users.lines().find(|line| line.starts_with("nobody:"))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    Some(User { uid, gid: fields.next()?.parse().ok()? })
}

/// The first folder on the way to `path` that others can't enter. What doesn't exist yet is open.
fn closed_to_others(path: &Path) -> Result<Option<PathBuf>> {
    let path = std::path::absolute(path)?;
    let folders: Vec<&Path> = path.ancestors().collect();
    for folder in folders.into_iter().rev() {
        match fs::metadata(folder) {
            Ok(m) if m.permissions().mode() & 0o001 == 0 => return Ok(Some(folder.to_owned())),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(e).with_context(|| format!("cannot look at {}", folder.display()));
            }
        }
    }
    Ok(None)
}

/// Programs from a world-writable place must be ours: someone else could have been there first.
fn trusted(home: &Path) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    for path in [home, home.parent().unwrap_or(home)] {
        let owner =
            fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.uid();
        if owner != us && owner != 0 {
            bail!("{} belongs to user {owner}, not to us; remove it", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_found_by_name() {
        let users = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533:n:/:/usr/sbin/nologin\n";
        assert_eq!(nobody(users), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(nobody("root:x:0:0::/root:/bin/sh\n"), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_is_found() {
        let temp = tempfile::tempdir().expect("temp folder");
        let inner = temp.path().join("inner");
        fs::create_dir(&inner).expect("writable");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(temp.path(), mode(0o700)).expect("ours");
        let found = closed_to_others(&inner.join("not-yet")).expect("readable");
        assert_eq!(found.as_deref(), Some(temp.path()));
        fs::set_permissions(temp.path(), mode(0o755)).expect("ours");
        fs::set_permissions(&inner, mode(0o755)).expect("ours");
        assert_eq!(closed_to_others(&inner).expect("readable"), None);
    }
}
