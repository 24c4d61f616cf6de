//! compose.yaml is understood by a Compose implementation, runs the pinned versions,
//! and holds no secret. No container engine is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use local::payment_simulator::{GIFT_SECRET, STRIPE_SECRET};
use local::versions::versions;

const COMPOSE: &str = "compose.yaml";

/// Each service with the lines of its configuration.
type Services = BTreeMap<String, Vec<String>>;

#[test]
fn a_compose_implementation_understands_it() -> Result<()> {
    let resolved = services(&config(&[COMPOSE], Some(".env.example"))?);
    let names: Vec<&str> = resolved.keys().map(String::as_str).collect();
    let expected = [
        "clickhouse",
        "courier-simulator",
        "ingest",
        "kafka",
        "postgres",
        "processors",
        "registry",
        "setup",
        "sinks",
    ];
    ensure!(names == expected, "services are {names:?}");
    for (name, lines) in &resolved {
        let has = |key: &str| lines.iter().any(|line| line == key);
        // `setup` runs to its end instead.
        ensure!(has("healthcheck:") != (name == "setup"), "{name}: health check");
    }
    for name in ["ingest", "processors", "sinks"] {
        let waits = resolved[name]
            .windows(2)
            .any(|pair| pair == ["setup:", "condition: service_completed_successfully"]);
        ensure!(waits, "{name} must wait for `setup`");
    }
    Ok(())
}

#[test]
fn images_are_the_pinned_ones() -> Result<()> {
    let v = versions();
    let pinned = [
        ("kafka", v.kafka.image.as_str()),
        ("registry", &v.registry.image),
        ("postgres", &v.postgres.image),
        ("clickhouse", &v.clickhouse.image),
    ];
    let resolved = services(&config(&[COMPOSE], Some(".env.example"))?);
    for (name, lines) in &resolved {
        let expected =
            pinned.iter().find(|(n, _)| n == name).map_or("tillroll:local", |(_, image)| image);
        let image = lines.iter().find_map(|line| line.strip_prefix("image: "));
        ensure!(image == Some(expected), "{name} runs {image:?}, versions.toml says {expected}");
    }
    Ok(())
}

#[test]
fn passwords_come_from_outside() -> Result<()> {
    let failure = config(&[COMPOSE], None).err().context("it must not start without passwords")?;
    ensure!(failure.to_string().contains("PASSWORD"), "unclear: {failure:#}");
    let text = std::fs::read_to_string(folder().join("compose.yaml"))?;
    for line in text.lines().filter(|line| line.contains("PASSWORD:")) {
        ensure!(line.contains(": ${"), "a password in compose.yaml: {line}");
    }
    for line in text.lines().filter(|line| line.contains("postgres://")) {
        ensure!(line.contains(":${POSTGRES_PASSWORD}@"), "a password in compose.yaml: {line}");
    }
    Ok(())
}

/// What everybody knows opens nothing unless it is asked for, and is no real provider's by name: both sides know the
/// simulated ones with `demo.yaml`, and none without.
#[test]
fn simulated_payment_providers_are_there_for_the_demo_alone() -> Result<()> {
    let plain = config(&[COMPOSE], Some(".env.example"))?;
    for word in ["PROVIDERS__", "whsec_", "sk_", "payment-simulator"] {
        ensure!(!plain.contains(word), "{word} in compose.yaml");
    }
    let resolved = services(&config(&[COMPOSE, "demo.yaml"], Some(".env.example"))?);
    let expect = |service: &str, setting: String| {
        ensure!(resolved[service].contains(&setting), "{service} lacks {setting}");
        Ok(())
    };
    for (code, kind, secret) in
        [("stripe", "stripe", STRIPE_SECRET), ("gift", "balance", GIFT_SECRET)]
    {
        let upper = format!("SIMULATED_{}", code.to_ascii_uppercase());
        expect("ingest", format!("INGEST_WEBHOOKS__PROVIDERS__{upper}__KIND: {kind}"))?;
        expect("ingest", format!("INGEST_WEBHOOKS__PROVIDERS__{upper}__SECRET: {secret}"))?;
        let called = format!("PROCESSORS_PAYMENTS__PROVIDERS__{upper}");
        expect("processors", format!("{called}__KIND: {kind}"))?;
        expect("processors", format!("{called}__URL: http://payment-simulator:8091/{code}"))?;
    }
    let webhooks = "http://ingest:8080/v1/webhooks/payments/simulated_";
    expect("payment-simulator", format!("- --webhook-url={webhooks}"))?;
    let named = |line: &&String| line.contains("PROVIDERS__") && !line.contains("__SIMULATED_");
    let real: Vec<&String> = resolved.values().flatten().filter(named).collect();
    ensure!(real.is_empty(), "not named simulated: {real:?}");
    Ok(())
}

/// A file that isn't there would be mounted as an empty folder.
#[test]
fn mounted_files_are_there_and_analysts_have_a_user() -> Result<()> {
    let text = std::fs::read_to_string(folder().join("compose.yaml"))?;
    let mounts = text.lines().filter_map(|line| line.trim().strip_prefix("- ./"));
    let files: Vec<&str> = mounts.filter_map(|mount| mount.split(':').next()).collect();
    for file in &files {
        ensure!(folder().join(file).is_file(), "compose.yaml mounts {file}, which isn't there");
    }
    ensure!(files.contains(&"clickhouse/analyst.xml"), "README promises a user for analysts");
    let user = std::fs::read_to_string(folder().join("clickhouse/analyst.xml"))?;
    ensure!(user.contains("from_env=\"CLICKHOUSE_ANALYST_PASSWORD\""), "its password: {user}");
    Ok(())
}

/// What Prometheus scrapes is what services serve, and an alert has somewhere to go.
#[test]
fn alerts_can_be_had_beside_it() -> Result<()> {
    let resolved = services(&config(&[COMPOSE, "alerts.yaml"], Some(".env.example"))?);
    for name in ["prometheus", "alertmanager"] {
        let lines = resolved.get(name).with_context(|| format!("no service {name}"))?;
        let image = lines.iter().find_map(|line| line.strip_prefix("image: ")).unwrap_or_default();
        ensure!(image.contains(":v"), "{name} runs {image}, which is not one version");
        for mount in lines.iter().filter_map(|line| line.strip_prefix("- /")) {
            let path = format!("/{}", mount.split(':').next().unwrap_or_default());
            ensure!(Path::new(&path).exists(), "{name} mounts {path}, which isn't there");
        }
    }
    let scraped = std::fs::read_to_string(folder().join("prometheus/prometheus.yml"))?;
    let targets = scraped.lines().filter_map(|line| line.trim().strip_prefix("- targets: ["));
    let mut services = 0;
    for target in targets {
        let (service, port) = target.trim_end_matches(']').split_once(':').context("host:port")?;
        let lines = resolved.get(service).with_context(|| format!("no service {service}"))?;
        if service != "alertmanager" {
            let listens = format!("LISTEN: 0.0.0.0:{port}");
            ensure!(lines.iter().any(|line| line.ends_with(&listens)), "{service}: no {port}");
            services += 1;
        }
    }
    ensure!(services == 3, "{services} services are scraped");
    let routing = std::fs::read_to_string(folder().join("prometheus/alertmanager.yml"))?;
    let entrypoint = resolved["alertmanager"].join(" ");
    for url in routing.lines().filter_map(|line| line.trim().strip_prefix("- url: ")) {
        ensure!(entrypoint.contains(&format!("s|{url}|")), "{url} is not replaced");
    }
    Ok(())
}

/// The resolved configuration, as `docker-compose config` prints it.
fn config(files: &[&str], env_file: Option<&str>) -> Result<String> {
    // Not the folder of compose.yaml: a developer's own .env there must not count.
    let empty = tempfile::tempdir()?;
    let env = match env_file {
        Some(name) => folder().join(name),
        None => {
            let path = empty.path().join("no.env");
            std::fs::write(&path, "")?;
            path
        }
    };
    let output = compose(files, &env)?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`config` failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Docker's plugin is tried first, then the program of Debian's package.
fn compose(files: &[&str], env: &Path) -> Result<Output> {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    let mut command = match plugin {
        Ok(output) if output.status.success() => {
            let mut docker = Command::new("docker");
            docker.arg("compose");
            docker
        }
        _ => Command::new("docker-compose"),
    };
    for password in ["POSTGRES_PASSWORD", "CLICKHOUSE_PASSWORD", "CLICKHOUSE_ANALYST_PASSWORD"] {
        command.env_remove(password);
    }
    for file in files {
        command.arg("-f").arg(folder().join(file));
    }
    command.arg("--env-file").arg(env).arg("config");
    command.output().context(
        "neither `docker compose` nor `docker-compose` runs; install one with: \
         apt-get install docker-compose",
    )
}

fn services(config: &str) -> Services {
    let mut services = Services::new();
    let mut current = None;
    let body = config.lines().skip_while(|line| *line != "services:").skip(1);
    for line in body.take_while(|line| line.starts_with(' ')) {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) {
            Some(name) => current = Some(name.trim_end_matches(':').to_owned()),
            None => {
                let name = current.clone().unwrap_or_default();
                services.entry(name).or_default().push(line.trim().to_owned());
            }
        }
    }
    services
}

fn folder() -> PathBuf {
    std::path::absolute("..").expect("there is a current folder")
}
