//! The pinned versions of `versions.toml`, parsed once.

use std::sync::LazyLock;

use serde::Deserialize;

/// One component: what is downloaded, and the container image of the same version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Version in its package registry (Maven or npm).
    pub version: String,
    /// Image with tag, as compose.yaml must name it.
    pub image: String,
}

/// Kafka needs two more versions than the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedKafka {
    /// Version on Maven.
    pub version: String,
    /// Image with tag, as compose.yaml must name it.
    pub image: String,
    /// Scala version in the artifact's name.
    pub scala: String,
    /// log4j version: Kafka's jars alone have no logger.
    pub log4j: String,
}

/// Versions of build tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedMaven {
    /// Version of `maven-dependency-plugin`.
    pub dependency_plugin: String,
}

/// Everything `versions.toml` pins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Apache Kafka.
    pub kafka: PinnedKafka,
    /// Apicurio registry.
    pub registry: Pinned,
    /// PostgreSQL.
    pub postgres: Pinned,
    /// ClickHouse: the engine as a library (`chdb`), or the server's image.
    pub clickhouse: Pinned,
    /// Maven's plugin.
    pub maven: PinnedMaven,
}

static VERSIONS: LazyLock<Versions> = LazyLock::new(|| {
    toml::from_str(include_str!("../versions.toml")).expect("versions.toml is checked by a test")
});

/// The pinned versions.
pub fn versions() -> &'static Versions {
    &VERSIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tag of an image is the version without what only the package registry adds.
    #[test]
    fn images_have_the_versions_that_are_downloaded() {
        let v = versions();
        let tag = |image: &str| image.split_once(':').expect("image has a tag").1.to_owned();
        assert_eq!(tag(&v.kafka.image), v.kafka.version);
        assert_eq!(tag(&v.registry.image), v.registry.version);
        // zonky's third number is its own build's.
        assert_eq!(tag(&v.postgres.image), v.postgres.version.rsplit_once('.').expect("a.b.c").0);
        assert_eq!(
            tag(&v.clickhouse.image),
            v.clickhouse.version.split_once('-').expect("a.b.c-stable").0
        );
    }
}
