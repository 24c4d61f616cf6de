//! The schema registry: ids are looked up at start; nothing on the hot path calls it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::codec::SchemaError;
use events::{Codec, RecordType, topics};
use reqwest::StatusCode;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_subject};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    SchemaType, SubjectNameStrategy, SuppliedSchema,
};

use crate::config::Registry;

/// Compatibility of every subject: old and new readers and writers all understand each other.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The subject of a record type, by `TopicRecordNameStrategy`: `<topic>-tillroll.<type>`.
pub fn subject(record_type: RecordType) -> String {
    format!("{}-{}", topic_of(record_type), record_type.full_name())
}

fn topic_of(record_type: RecordType) -> &'static str {
    topics::ALL
        .iter()
        .find(|topic| topic.record_types.contains(&record_type))
        .map(|topic| topic.name)
        .expect("every record type has a topic: tested in events")
}

/// Sets the registry's compatibility to [`COMPATIBILITY`], registers every checked-in schema, and
/// pins the compatibility of each subject. Safe to repeat.
///
/// # Errors
/// When the registry cannot be reached, or refuses a schema because it would break older readers.
pub async fn set_up(registry: &Registry) -> Result<Codec> {
    require_compatibility(registry).await?;
    let codec = codec(registry).await?;
    let http = http()?;
    for record_type in RecordType::ALL {
        let url = format!("{}/config/{}", registry.url, subject(*record_type));
        set_compatibility(&http, &url).await?;
    }
    Ok(codec)
}

/// Sets the registry's compatibility, which holds for every subject without one of its own, to
/// [`COMPATIBILITY`].
///
/// # Errors
/// When the registry cannot be reached or refuses.
pub async fn require_compatibility(registry: &Registry) -> Result<()> {
    set_compatibility(&http()?, &format!("{}/config", registry.url)).await
}

fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(CALL_TIMEOUT).build()
}

async fn set_compatibility(http: &reqwest::Client, url: &str) -> Result<()> {
    let body = serde_json::json!({ "compatibility": COMPATIBILITY });
    let answer = http.put(url).json(&body).send().await;
    let answer = answer.with_context(|| format!("schema registry does not answer at {url}"))?;
    if !answer.status().is_success() {
        let status = answer.status();
        bail!("schema registry answered {status} to PUT {url}: {}", answer.text().await?);
    }
    Ok(())
}

/// Looks up the id of every checked-in schema (a version that the registry hasn't seen is
/// registered, if it is compatible) and makes the codec for them.
///
/// # Errors
/// When the registry cannot be reached or refuses a schema.
pub async fn codec(registry: &Registry) -> Result<Codec> {
    let mut ids = Vec::with_capacity(RecordType::ALL.len());
    for record_type in RecordType::ALL {
        ids.push(register(registry, *record_type, record_type.schema_json()).await?);
    }
    Ok(Codec::new(&ids))
}

/// The id of a version of a record type's schema; registers it if it is new.
///
/// # Errors
/// When the registry cannot be reached, or refuses the schema because a version that is registered
/// could not be read with it, or it with that.
pub async fn register(
    registry: &Registry,
    record_type: RecordType,
    schema_json: &str,
) -> Result<u32> {
    let schema = SuppliedSchema::new(
        Some(record_type.full_name()),
        SchemaType::Avro,
        schema_json.to_string(),
    );
    let strategy = SubjectNameStrategy::TopicRecordNameStrategyWithSchema(
        topic_of(record_type).to_string(),
        schema,
    );
    let registered = get_schema_by_subject(&settings(registry)?, &strategy).await;
    let refused = |error: &SRCError| error.error.contains(&StatusCode::CONFLICT.to_string());
    let registered = registered.map_err(|error| {
        let (name, url) = (record_type.name(), &registry.url);
        let told = if refused(&error) {
            format!(
                "schema of {name} is refused by {url}: it and a version that is registered do not \
                 read each other ({COMPATIBILITY}); give a new field a default, keep fields that \
                 have none, or make a new record type"
            )
        } else {
            format!("schema of {name} cannot be looked up at {url}: check that the registry is up")
        };
        anyhow::Error::new(error).context(told)
    })?;
    Ok(registered.id)
}

/// Why a schema id was not learnt; each asks for something else to be done.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The registry knows our own schemas but never gave this id out: the bytes are no record, reject
    /// them to the dead letters.
    #[error("schema id {0} was never registered: these bytes are no record")]
    NeverRegistered(u32),
    /// Its record type is unknown here: stop. A newer service writes what this one cannot read.
    #[error(
        "schema id {id} cannot be used, deploy this service before the one that wrote it: {why}"
    )]
    Unusable {
        /// The id.
        id: u32,
        /// What is wrong with its schema.
        why: SchemaError,
    },
    /// The registry does not answer, or does not know our own schemas either (it is starting): try
    /// again later.
    #[error("schema id {id} cannot be fetched from {url}, will be tried again: {why}")]
    Unavailable {
        /// The id.
        id: u32,
        /// Where it was asked for.
        url: String,
        /// What went wrong.
        why: String,
    },
}

/// Teaches the codec a schema id that it met in a record. Waits at most about 20 s.
///
/// # Errors
/// See [`LearnError`]; the codec is as it was.
pub async fn learn(codec: &mut Codec, registry: &Registry, id: u32) -> Result<(), LearnError> {
    let unavailable = |why: String| LearnError::Unavailable { id, url: registry.url.clone(), why };
    if let Some(schema) = fetch(registry, id).await.map_err(unavailable)? {
        return codec.add_foreign(id, &schema).map_err(|why| LearnError::Unusable { id, why });
    }
    // A registry that has not read its journal yet knows nothing: no reason to reject records.
    let own = codec.ids().iter().copied().max().unwrap_or_default();
    match fetch(registry, own).await.map_err(unavailable)? {
        Some(_) => Err(LearnError::NeverRegistered(id)),
        None => Err(unavailable(format!("it does not know our own schema {own} either"))),
    }
}

/// The schema with this id, JSON; `None` if the registry knows none. Asked directly: the client
/// library tells a missing id from an outage by text alone.
async fn fetch(registry: &Registry, id: u32) -> Result<Option<String>, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        schema: String,
    }
    let url = format!("{}/schemas/ids/{id}", registry.url);
    let asked = async { http()?.get(url).send().await };
    let answer = asked.await.map_err(|error| error.to_string())?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.error_for_status().map_err(|error| error.to_string())?;
    let answer: Answer = answer.json().await.map_err(|error| error.to_string())?;
    Ok(Some(answer.schema))
}

fn settings(registry: &Registry) -> Result<SrSettings> {
    let mut builder = SrSettings::new_builder(registry.url.clone());
    builder.set_timeout(CALL_TIMEOUT);
    Ok(builder.build()?)
}
