//! The decoder of records: it reads what was encoded, refuses the rest, and neither panics nor takes
//! memory that its input is not worth.

use std::cell::Cell;

use events::{Codec, Origin, RecordType};
use fuzz::{Entropy, Schema, damage, framed, mutations, run, schema_id};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What the decoder may take for a record of a few hundred bytes: one text of the longest length that
/// `events` lets a prefix claim (4 MiB), and serde's 1 MiB for each list under way.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Registry ids of the versions that this one must resolve.
const FOREIGN: u32 = 1_000;

/// A newer version of a schema: one more field, with a default.
fn newer(json: &str) -> String {
    let mut schema: serde_json::Value = serde_json::from_str(json).unwrap();
    let field = serde_json::json!({ "name": "note", "type": "string", "default": "" });
    schema["fields"].as_array_mut().unwrap().push(field);
    schema.to_string()
}

/// A codec that knows every schema in two versions, and both, own version first.
fn codec() -> (Codec, Vec<(u32, Schema)>) {
    let mut codec = Codec::without_registry();
    let mut schemas = Vec::new();
    for (index, record_type) in RecordType::ALL.iter().enumerate() {
        let (own, newer) = (record_type.schema_json(), newer(record_type.schema_json()));
        codec.add_foreign(FOREIGN + schema_id(index), &newer).unwrap();
        schemas.push((schema_id(index), Schema::parse(own)));
        schemas.push((FOREIGN + schema_id(index), Schema::parse(&newer)));
    }
    (codec, schemas)
}

/// Decodes within bounds; what was read survives being written.
fn decode(codec: &Codec, bytes: &[u8]) -> Result<bool, TestCaseError> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let decoded = codec.decode(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    prop_assert!(taken < MOST_BYTES, "{taken} bytes for a record of {}", bytes.len());
    let Ok(record) = decoded else { return Ok(false) };
    let again = codec.decode(&codec.to_bytes(&record));
    prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(record));
    Ok(true)
}

/// One test, so that nobody else allocates meanwhile.
#[test]
fn the_decoder_takes_anything() {
    let (codec, schemas) = codec();
    let whole = Cell::new((0, 0));
    let damaged = (0..schemas.len(), prop::collection::vec(any::<u8>(), 0..160), mutations());
    run(&damaged, |(schema, entropy, mutations)| {
        let (id, schema) = &schemas[schema];
        let mut bytes = framed(*id, &schema.datum(&mut Entropy::new(&entropy)));
        damage(&mut bytes, &mutations);
        let read = decode(&codec, &bytes)?;
        if mutations.is_empty() {
            whole.set((whole.get().0 + u32::from(read), whole.get().1 + 1));
        }
        Ok(())
    });
    // The rest holds codes that are none.
    let (read, made) = whole.get();
    assert!(read * 2 > made, "only {read} of {made} undamaged records were read");
    run(&(0..40u8, prop::collection::vec(any::<u8>(), 0..200)), |(id, rest)| {
        decode(&codec, &framed(u32::from(id), &rest))?;
        decode(&codec, &rest)?;
        Ok(())
    });
}

#[test]
fn an_origin_header_may_be_any_text() {
    run(&"[a-z0-9/+-]{0,40}|\\PC{0,20}", |text| {
        if let Ok(origin) = text.parse::<Origin>() {
            prop_assert_eq!(origin.to_string().parse::<Origin>().ok(), Some(origin));
        }
        Ok(())
    });
}
