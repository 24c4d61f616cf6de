//! Bytes ⇄ records in Confluent's wire format: 0, schema id (4 bytes big-endian), Avro datum.
//!
//! Encoding and decoding of our own schemas go straight between struct and bytes, without an
//! intermediate `Value`. A record written with another version of its schema is resolved through
//! `Value`, once its writer's schema was handed in by [`Codec::add_foreign`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::record::{Record, RecordType};

const MAGIC: u8 = 0;
const HEADER_LEN: usize = 5;

/// Why bytes are not a record. All but `UnknownSchema` are final: the bytes belong in a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header or not in Confluent's wire format.
    #[error("not in Confluent wire format ({0} bytes)")]
    NotWireFormat(usize),
    /// Fetch this id's schema from the registry, [`Codec::add_foreign`], decode again.
    #[error("schema id {0} is not known here")]
    UnknownSchema(u32),
    /// The datum does not follow its schema.
    #[error("{} does not decode: {detail}", record_type.name())]
    Malformed {
        /// What the schema id promised.
        record_type: RecordType,
        /// What was wrong.
        detail: String,
    },
    /// Bytes are left over after the datum.
    #[error("{} has {extra} bytes too many", record_type.name())]
    TrailingBytes {
        /// What the schema id promised.
        record_type: RecordType,
        /// How many.
        extra: usize,
    },
}

/// Why a schema cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Its record name is none of ours.
    #[error("no record type here is called {0:?}")]
    UnknownType(String),
    /// It is not an Avro schema, or cannot be read as ours.
    #[error("schema unusable: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
}

/// The checked-in schemas, parsed once per process.
static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    // Bounds what a hostile length prefix can make the decoder allocate: above any legal record.
    apache_avro::util::max_allocation_bytes(4 * 1024 * 1024);
    RecordType::ALL
        .iter()
        .map(|t| Schema::parse_str(t.schema_json()).expect("checked-in schemas parse: tested"))
        .collect()
});

static WRITERS: LazyLock<Vec<GenericDatumWriter<'static>>> = LazyLock::new(|| {
    let build = |schema| GenericDatumWriter::builder(schema).human_readable(false).build();
    SCHEMAS.iter().map(|s| build(s).expect("self-contained schemas resolve: tested")).collect()
});

static READERS: LazyLock<Vec<GenericDatumReader<'static>>> = LazyLock::new(|| {
    let build = |schema| GenericDatumReader::builder(schema).human_readable(false).build();
    SCHEMAS.iter().map(|s| build(s).expect("self-contained schemas resolve: tested")).collect()
});

/// How a schema id is read.
#[derive(Clone)]
enum Reader {
    Own(RecordType),
    Foreign(RecordType, Arc<Schema>),
}

/// Encoder and decoder for a given assignment of schema ids. Cheap to clone per thread.
#[derive(Clone)]
pub struct Codec {
    ids: Vec<u32>,
    readers: BTreeMap<u32, Reader>,
}

impl Codec {
    /// A codec for these registry ids, one per entry of [`RecordType::ALL`], in that order.
    ///
    /// # Panics
    /// When the number of ids differs.
    pub fn new(ids: &[u32]) -> Self {
        assert_eq!(ids.len(), RecordType::ALL.len(), "one schema id per record type");
        let own = |(id, t): (&u32, &RecordType)| (*id, Reader::Own(*t));
        Self { ids: ids.to_vec(), readers: ids.iter().zip(RecordType::ALL).map(own).collect() }
    }

    /// A codec with ids counting from 1, for tests and simulations that have no registry.
    pub fn without_registry() -> Self {
        let ids: Vec<u32> = (1..).take(RecordType::ALL.len()).collect();
        Self::new(&ids)
    }

    /// The registry's ids of our own schemas, in the order of [`RecordType::ALL`].
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Teaches the codec to read what was written with another version of a schema.
    ///
    /// # Errors
    /// When the schema is not Avro or names a record type that this version doesn't know.
    pub fn add_foreign(&mut self, id: u32, schema_json: &str) -> Result<(), SchemaError> {
        let schema = Schema::parse_str(schema_json).map_err(Box::new)?;
        let name = schema.name().map(|n| n.name().to_string()).unwrap_or_default();
        let Some(record_type) = RecordType::ALL.iter().find(|t| t.name() == name) else {
            return Err(SchemaError::UnknownType(name));
        };
        self.readers.insert(id, Reader::Foreign(*record_type, Arc::new(schema)));
        Ok(())
    }

    /// Appends the record in wire format to `out`.
    ///
    /// # Panics
    /// Never for a record that came through its type's constructors: schema and type are tested
    /// against each other.
    pub fn encode(&self, record: &Record, out: &mut Vec<u8>) {
        let index = record.record_type().index();
        out.push(MAGIC);
        out.extend_from_slice(&self.ids[index].to_be_bytes());
        record.write(&WRITERS[index], out).expect("record types match their schemas: tested");
    }

    /// The record in wire format.
    pub fn to_bytes(&self, record: &Record) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.encode(record, &mut out);
        out
    }

    /// Reads a record from wire format.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Record, DecodeError> {
        if bytes.len() < HEADER_LEN || bytes[0] != MAGIC {
            return Err(DecodeError::NotWireFormat(bytes.len()));
        }
        let id = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let mut datum = &bytes[HEADER_LEN..];
        let reader = self.readers.get(&id).ok_or(DecodeError::UnknownSchema(id))?;
        let (record_type, record) = match reader {
            Reader::Own(t) => (*t, Record::read(*t, &READERS[t.index()], &mut datum)),
            Reader::Foreign(t, writer) => (*t, read_foreign(*t, writer, &mut datum)),
        };
        let record =
            record.map_err(|e| DecodeError::Malformed { record_type, detail: e.to_string() })?;
        match datum.len() {
            0 => Ok(record),
            extra => Err(DecodeError::TrailingBytes { record_type, extra }),
        }
    }
}

fn read_foreign(
    record_type: RecordType,
    writer: &Schema,
    datum: &mut &[u8],
) -> apache_avro::AvroResult<Record> {
    let value = GenericDatumReader::builder(writer)
        .reader_schema(&SCHEMAS[record_type.index()])
        .human_readable(false)
        .build()?
        .read_value(datum)?;
    Record::from_value(record_type, &value)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
