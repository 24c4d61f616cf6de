//! Pure: collects the faults of a JSON body while it is read, each with its JSON pointer.

use compact_str::CompactString;
use serde_json::{Map, Value};

use crate::problem::Fault;

/// A body of garbage doesn't earn a longer answer than this.
const MAX_FAULTS: usize = 100;

/// Where a value stands; its text is only made when there is a fault.
pub(crate) enum Pointer<'a> {
    Root,
    Child(&'a Pointer<'a>, &'a str),
}

impl<'a> Pointer<'a> {
    pub(crate) fn root() -> Self {
        Self::Root
    }

    pub(crate) fn child(&'a self, name: &'a str) -> Self {
        Self::Child(self, name)
    }

    fn text(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Child(parent, name) => {
                format!("{}/{}", parent.text(), name.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) list: Vec<Fault>,
}

impl Faults {
    pub(crate) fn add(&mut self, at: &Pointer<'_>, detail: &str) {
        if self.list.len() < MAX_FAULTS {
            self.list.push(Fault { pointer: at.text(), detail: detail.to_string() });
        }
    }

    /// A missing value is treated as null, which every check refuses.
    pub(crate) fn present<'v>(&self, value: Option<&'v Value>) -> &'v Value {
        value.unwrap_or(&Value::Null)
    }

    pub(crate) fn object<'v>(
        &mut self,
        at: &Pointer<'_>,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Value::Object(object) = value else {
            self.add(at, if value.is_null() { "is missing" } else { "must be an object" });
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            self.add(&at.child(name), "is not a known field");
        }
        Some(object)
    }

    pub(crate) fn string<'v>(
        &mut self,
        at: &Pointer<'_>,
        value: Option<&'v Value>,
    ) -> Option<&'v str> {
        match value {
            Some(Value::String(text)) => Some(text),
            None => {
                self.add(at, "is missing");
                None
            }
            Some(_) => {
                self.add(at, "must be a string");
                None
            }
        }
    }

    pub(crate) fn text(
        &mut self,
        at: &Pointer<'_>,
        value: Option<&Value>,
        least: usize,
        most: usize,
    ) -> Option<CompactString> {
        let text = self.string(at, value)?;
        if text.len() < least || text.len() > most {
            self.add(at, &format!("must have {least} to {most} bytes"));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.add(at, "must not contain control characters");
            return None;
        }
        Some(text.into())
    }

    pub(crate) fn integer(
        &mut self,
        at: &Pointer<'_>,
        value: Option<&Value>,
        least: i64,
        most: i64,
    ) -> Option<i64> {
        let number = match value {
            Some(Value::Number(number)) => number.as_i64(),
            None => {
                self.add(at, "is missing");
                return None;
            }
            Some(_) => None,
        };
        let legal = number.filter(|number| (least..=most).contains(number));
        if legal.is_none() {
            self.add(at, &format!("must be an integer from {least} to {most}"));
        }
        legal
    }

    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        at: &Pointer<'_>,
        parsed: Result<T, E>,
    ) -> Option<T> {
        parsed.map_err(|error| self.add(at, &error.to_string())).ok()
    }
}
