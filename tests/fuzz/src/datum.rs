//! Avro data of any schema from a string of bytes: the same bytes, the same datum; fewer bytes, a
//! simpler one.

use std::collections::BTreeMap;

use serde_json::Value;

/// A string of bytes that decides. At its end it is all zeros.
#[derive(Debug, Clone)]
pub struct Entropy<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Entropy<'a> {
    /// Decisions from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn word(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }
}

/// A schema with its named types at hand.
#[derive(Debug, Clone)]
pub struct Schema {
    root: Value,
    named: BTreeMap<String, Value>,
}

/// Texts that mean something somewhere: ids that meet again, codes that parse.
const TEXTS: [&str; 12] = [
    "shop",
    "A",
    "main",
    "GBP",
    "GB",
    "swift",
    "main>GB",
    "k1",
    "",
    "EUR",
    "85123A",
    "a/b\u{e9}\0",
];

impl Schema {
    /// Reads a schema.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn parse(json: &str) -> Self {
        let root: Value = serde_json::from_str(json).expect("a schema is JSON");
        let mut named = BTreeMap::new();
        collect(&root, &mut named);
        Self { root, named }
    }

    /// A datum of this schema.
    pub fn datum(&self, entropy: &mut Entropy<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&self.root, "", entropy, &mut out);
        out
    }

    /// `field` is the name of the field that the datum is for.
    fn write(&self, schema: &Value, field: &str, entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
        match schema {
            Value::String(name) => self.primitive(name, field, entropy, out),
            Value::Array(branches) => {
                let branch = entropy.below(branches.len());
                varint(branch as i64, out);
                self.write(&branches[branch], field, entropy, out);
            }
            Value::Object(object) => self.complex(object, field, entropy, out),
            other => panic!("{other} is no schema"),
        }
    }

    fn complex(
        &self,
        object: &serde_json::Map<String, Value>,
        field: &str,
        entropy: &mut Entropy<'_>,
        out: &mut Vec<u8>,
    ) {
        let list = |name: &str| object[name].as_array().expect("a list");
        match object["type"].as_str() {
            Some("record") => {
                for field in list("fields") {
                    let name = field["name"].as_str().expect("a name");
                    self.write(&field["type"], name, entropy, out);
                }
            }
            Some("enum") => varint(entropy.below(list("symbols").len()) as i64, out),
            Some("fixed") => {
                let size = object["size"].as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.expect("a size");
                // Few different ones, so that records speak of the same orders.
                out.extend(std::iter::repeat_n(entropy.byte() % 3, size));
            }
            Some(kind @ ("array" | "map")) => {
                let count = entropy.below(4);
                if count > 0 {
                    varint(count as i64, out);
                }
                for _ in 0..count {
                    match kind {
                        "map" => {
                            text("", entropy, out);
                            self.write(&object["values"], field, entropy, out);
                        }
                        _ => self.write(&object["items"], field, entropy, out),
                    }
                }
                out.push(0);
            }
            _ => self.write(&object["type"], field, entropy, out),
        }
    }

    fn primitive(&self, name: &str, field: &str, entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
        match name {
            "null" => {}
            "boolean" => out.push(entropy.byte() % 2),
            "int" => {
                let extremes = [i64::from(i32::MAX), i64::from(i32::MIN), -1, 0];
                varint(number(entropy, extremes, |word| word >> 32), out);
            }
            "long" => {
                let extremes = [i64::MAX, i64::MIN, -1, 1_800_000_000_000];
                varint(number(entropy, extremes, |word| word), out);
            }
            "double" => out.extend(entropy.word().to_le_bytes()),
            "float" => out.extend(&entropy.word().to_le_bytes()[..4]),
            "bytes" | "string" => text(field, entropy, out),
            other => {
                let found = self.named.get(other).or_else(|| self.named.get(short(other)));
                let found = found.expect("a named type is declared before it is used");
                self.write(found, field, entropy, out);
            }
        }
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn collect(schema: &Value, named: &mut BTreeMap<String, Value>) {
    match schema {
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str);
            if let (Some("record" | "enum" | "fixed"), Some(Value::String(name))) =
                (kind, object.get("name"))
            {
                named.insert(short(name).to_string(), schema.clone());
            }
            object.values().for_each(|value| collect(value, named));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, named)),
        _ => {}
    }
}

/// Mostly small and positive; sometimes as large as it gets.
fn number(entropy: &mut Entropy<'_>, extremes: [i64; 4], narrow: fn(i64) -> i64) -> i64 {
    match entropy.byte() {
        byte @ 0..160 => i64::from(byte % 8) + 1,
        byte @ 160..232 => extremes[usize::from(byte % 4)],
        _ => narrow(entropy.word()),
    }
}

/// Mostly what the field can hold, so that records get past the decoder; sometimes anything.
fn text(field: &str, entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
    let choices: &[&str] = match field {
        "currency" => &["GBP", "EUR"],
        "lane" => &["main>GB", "main>FR"],
        "country" => &["GB", "FR"],
        "merchant" => &["shop"],
        "warehouse" | "warehouses" => &["main"],
        _ => &["A", "swift", "k1"],
    };
    let bytes = match entropy.byte() {
        byte @ 0..230 => choices[usize::from(byte) % choices.len()].as_bytes().to_vec(),
        byte @ 230..248 => TEXTS[usize::from(byte) % TEXTS.len()].as_bytes().to_vec(),
        byte => vec![b'x'; usize::from(byte - 247) * 41],
    };
    varint(bytes.len() as i64, out);
    out.extend(bytes);
}

/// Avro's variable-length zigzag.
pub(crate) fn varint(value: i64, out: &mut Vec<u8>) {
    let mut bits = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while bits >= 0x80 {
        out.push(bits.to_le_bytes()[0] | 0x80);
        bits >>= 7;
    }
    out.push(bits.to_le_bytes()[0]);
}
