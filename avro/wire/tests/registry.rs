//! A real registry takes every checked-in schema behind its released versions, and refuses one that
//! would break their readers or writers.

#[path = "../../events/tests/released/mod.rs"]
mod released;

use anyhow::Result;
use events::{Codec, RecordType};
use local::Stack;
use serde_json::{Value, json};
use wire::config::Registry;
use wire::registry::{self, LearnError};

/// A change of a record's fields.
type Change = fn(&mut Vec<Value>);

/// An id far beyond those that the registry gives out.
const NEVER: u32 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn compatible_schemas_are_registered_and_breaking_ones_refused() -> Result<()> {
    let stack = Stack::builder().registry().start().await?;
    let registry = Registry { url: stack.registry_url() };
    // It has no schema yet, as while it starts: nobody knows whether an id was ever given out.
    let mut codec = Codec::without_registry();
    let starting = registry::learn(&mut codec, &registry, NEVER).await;
    assert!(matches!(starting, Err(LearnError::Unavailable { .. })), "{starting:?}");

    registry::require_compatibility(&registry).await?;
    let mut newest = Vec::new();
    for record_type in RecordType::ALL {
        for version in released::versions(*record_type) {
            newest.push(registry::register(&registry, *record_type, &version).await?);
        }
    }
    assert!(newest.len() >= RecordType::ALL.len());
    registry::set_up(&registry).await?;
    // Asked again, as at every start, the answers are the same.
    let mut codec = registry::set_up(&registry).await?;
    learning(&stack, &registry, &mut codec).await?;

    let breaking: [(&str, Change); 4] = [
        ("a field without a default", |f| f.push(json!({"name": "wave", "type": "int"}))),
        ("a field renamed", |f| f[3]["name"] = "try".into()),
        ("another type", |f| f[3]["type"] = "string".into()),
        ("a field removed that has no default", |f| drop(f.remove(3))),
    ];
    let changed = |change: Change| {
        let mut schema: Value =
            serde_json::from_str(RecordType::LinesRefused.schema_json()).expect("JSON");
        change(schema["fields"].as_array_mut().expect("a record has fields"));
        schema.to_string()
    };
    for (what, change) in breaking {
        let schema = changed(change);
        let refused = registry::register(&registry, RecordType::LinesRefused, &schema).await;
        let message = format!("{:#}", refused.expect_err(what));
        assert!(message.contains("LinesRefused is refused"), "{what}: {message}");
        assert!(message.contains("give a new field a default"), "{what}: {message}");
    }
    let compatible: [(&str, Change); 2] = [
        ("a field with a default", |f| {
            f.push(json!({"name": "wave", "type": "int", "default": 0}));
        }),
        ("a symbol of an enum that has a default", |f| {
            let symbols = &mut f[4]["type"]["items"]["fields"][4]["type"]["symbols"];
            symbols.as_array_mut().expect("an enum").push("recalled".into());
        }),
    ];
    for (what, change) in compatible {
        let schema = changed(change);
        let id = registry::register(&registry, RecordType::LinesRefused, &schema).await;
        assert!(id.is_ok(), "{what}: {id:?}");
    }
    stack.shutdown().await
}

/// Three ways not to learn an id, each with another consequence.
async fn learning(stack: &Stack, registry: &Registry, codec: &mut Codec) -> Result<()> {
    let never = registry::learn(codec, registry, NEVER).await;
    assert!(matches!(never, Err(LearnError::NeverRegistered(NEVER))), "{never:?}");

    let newer = json!({"type": "record", "name": "OrderTeleported", "fields": []});
    let url = format!("{}/subjects/orders-tillroll.OrderTeleported/versions", registry.url);
    let http = reqwest::Client::new();
    let body = json!({ "schema": newer.to_string() });
    let answer: Value = http.post(url).json(&body).send().await?.error_for_status()?.json().await?;
    let id = u32::try_from(answer["id"].as_u64().expect("an id"))?;
    let unusable = registry::learn(codec, registry, id).await;
    let message = unusable.as_ref().map_err(ToString::to_string);
    assert!(matches!(unusable, Err(LearnError::Unusable { .. })), "{message:?}");
    assert!(message.is_err_and(|text| text.contains("OrderTeleported")), "names the type");

    stack.stop("registry").await?;
    let away = registry::learn(codec, registry, NEVER).await;
    assert!(matches!(away, Err(LearnError::Unavailable { .. })), "{away:?}");
    stack.restart("registry").await?;
    Ok(())
}
