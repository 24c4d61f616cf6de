//! Every checked-in schema and every released version of it read each other's records. Fails without
//! servers and within seconds; `wire`'s registry test asks a real registry the same.

mod released;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use events::RecordType;
use serde_json::{Value, json};

/// Why two versions of a schema cannot live side by side.
fn fault(released: &str, checked_in: &str) -> Option<String> {
    let parsed = |json: &str| Schema::parse_str(json).expect("schemas parse");
    match SchemaCompatibility::mutual_read(&parsed(released), &parsed(checked_in)) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some("some values cannot be read".into()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn checked_in_schemas_and_released_ones_read_each_other() {
    for record_type in RecordType::ALL {
        for (released, n) in released::versions(*record_type).iter().zip(1..) {
            let fault = fault(released, record_type.schema_json());
            assert_eq!(
                fault,
                None,
                "{name}.avsc and its released version {n} do not read each other: give a new field a \
                 default, keep fields without one, or make a new record type (CONTRIBUTING.md, \
                 \"Changing a schema\")",
                name = record_type.name()
            );
        }
    }
}

#[test]
fn only_known_record_types_have_released_versions() {
    let folders = std::fs::read_dir(released::folder()).expect("there are released schemas");
    for folder in folders {
        let name = folder.expect("readable").file_name();
        let known = RecordType::ALL.iter().any(|t| name == t.name());
        assert!(known, "released/{} belongs to no record type", name.display());
    }
}

/// What the first test is there for: each of these would break old and new processes side by side.
#[test]
fn breaking_changes_are_told_from_compatible_ones() {
    let original: Value = serde_json::from_str(RecordType::LinesRefused.schema_json()).unwrap();
    let changed = |change: fn(&mut Vec<Value>)| {
        let mut schema = original.clone();
        change(schema["fields"].as_array_mut().unwrap());
        fault(&original.to_string(), &schema.to_string()).is_some()
    };
    assert!(changed(|fields| fields.push(json!({"name": "wave", "type": "int"}))), "no default");
    assert!(changed(|fields| fields[3]["name"] = "try".into()), "renamed");
    assert!(changed(|fields| fields[3]["type"] = "string".into()), "another type");
    assert!(changed(|fields| drop(fields.remove(3))), "removed, although it has no default");
    assert!(!changed(|fields| fields.push(json!({"name": "wave", "type": "int", "default": 0}))));
    assert!(!changed(|fields| {
        let symbols = &mut fields[4]["type"]["items"]["fields"][4]["type"]["symbols"];
        symbols.as_array_mut().unwrap().push("recalled".into());
    }));
}
