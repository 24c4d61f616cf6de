//! ClickHouse: the engine as a library behind our own HTTP front, `clickhouse-server-local`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::component::Plan;
use crate::health::Check;
use crate::ports::Ports;
use crate::process::Spec;
use crate::services::binary;

/// May do everything, as the sinks do. It listens on 127.0.0.1 alone.
pub const USER: &str = "tillroll";
/// The password of [`USER`].
pub const PASSWORD: &str = "tillroll";
/// May read, within limits.
pub const READER: &str = "analyst";
/// The password of [`READER`].
pub const READER_PASSWORD: &str = "analyst";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The server, with `home` holding the library.
pub(crate) fn plan(home: &Path, data: &Path, ports: &Ports) -> Result<Plan> {
    let port = ports.get("clickhouse")?;
    let folder = data.join("clickhouse");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = crate::stack::log_file(data, "clickhouse");
    let mut spec = Spec::new("clickhouse", binary("clickhouse-server-local")?, &folder, log);
    spec.args = vec!["--listen".into(), format!("127.0.0.1:{port}").into()];
    spec.args.extend(["--data".into(), folder.into()]);
    spec.args.extend(["--library".into(), home.join("libchdb.so").into()]);
    let users = format!("{USER}:{PASSWORD},{READER}:{READER_PASSWORD}:readonly");
    spec.env.insert("CLICKHOUSE_USERS".to_owned(), users);
    let url = format!("http://127.0.0.1:{port}");
    Ok(Plan { spec, check: Check::Http(format!("{url}/ping")), url, ready_within: READY_WITHIN })
}
