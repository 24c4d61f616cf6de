//! Real invoices, CSV → order requests: read as a stream, sent as they are, good and bad.
//!
//! Consecutive lines of one `InvoiceNo` are an invoice. What ingest must refuse is decided here
//! from the file alone, so that its answers can be compared with something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Datelike as _, NaiveDateTime, SecondsFormat, Utc};
use csv::{ByteRecord, ByteRecordsIntoIter};
use events::Sku;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::countries;

/// Most lines that ingest takes in an order.
pub const MOST_LINES: usize = 1000;

/// Most pieces that ingest takes in a line.
const MOST_PIECES: i64 = 1_000_000;

/// Most faults that ingest lists in an answer.
const MOST_FAULTS: usize = 100;

/// Currency of every price in the file.
pub const CURRENCY: &str = "GBP";

/// One invoice of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The idempotency key: the invoice number, with `/2` where a file uses a number again.
    pub key: String,
    /// The invoice number.
    pub number: String,
    /// The shop's customer; none for a guest.
    pub customer: Option<String>,
    /// Country, by its name in the file.
    pub country: String,
    /// Date of the first line.
    pub ordered_at: Field<DateTime<Utc>>,
    /// Its lines, at least one.
    pub lines: Vec<Line>,
}

/// One line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Stock code, as it stands in the file.
    pub sku: String,
    /// Pieces; below 1 in cancellations.
    pub quantity: Field<i64>,
    /// Price of a piece, minor units.
    pub unit_price_minor: Field<i64>,
}

/// A value of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<T> {
    /// As the column promises.
    Good(T),
    /// Anything else, as it stands there.
    Bad(String),
}

/// Why ingest must refuse an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A line with fewer than 1 piece, or a million.
    Quantity,
    /// A line with a price of 0 or below, or of half pennies.
    Price,
    /// A stock code that no SKU can have.
    Sku,
    /// More lines than an order may have.
    Lines,
    /// No date.
    OrderedAt,
}

impl Fault {
    /// The fault in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::Price => "price",
            Self::Sku => "SKU",
            Self::Lines => "number of lines",
            Self::OrderedAt => "date",
        }
    }
}

/// Every fault of one invoice, in words: `quantity, price`.
pub fn reason(faults: &BTreeSet<Fault>) -> String {
    faults.iter().map(|fault| fault.as_str()).collect::<Vec<_>>().join(" + ")
}

impl Invoice {
    /// Why ingest must refuse it; empty where it must accept.
    ///
    /// Ingest looks into the lines only if their number is right, and lists a hundred faults at
    /// most, line by line.
    pub fn faults(&self) -> BTreeSet<Fault> {
        let mut faults = BTreeSet::new();
        if !matches!(&self.ordered_at, Field::Good(at) if (1970..2200).contains(&at.year())) {
            faults.insert(Fault::OrderedAt);
        }
        if self.lines.len() > MOST_LINES {
            faults.insert(Fault::Lines);
        } else {
            faults.extend(self.lines.iter().flat_map(Line::faults).take(MOST_FAULTS));
        }
        faults
    }

    /// Sum of quantity × price, minor units.
    ///
    /// # Panics
    /// On an invoice with faults, which has no total.
    pub fn total_minor(&self) -> i64 {
        self.lines.iter().map(|line| line.pieces() * line.price_minor()).sum()
    }

    /// The body of `POST /v1/orders`: faults and all, exactly as the file says it.
    pub fn request(&self) -> Value {
        let lines: Vec<Value> = self.lines.iter().map(Line::request).collect();
        let ordered_at = match &self.ordered_at {
            Field::Good(at) => at.to_rfc3339_opts(SecondsFormat::Secs, true),
            Field::Bad(text) => text.clone(),
        };
        let name = match &self.customer {
            Some(customer) => format!("Customer {customer}"),
            None => "Guest".to_owned(),
        };
        json!({
            "customer_id": self.customer,
            "currency": CURRENCY,
            // The file says no more than the country.
            "destination": {
                "name": name,
                "street": "unknown",
                "city": "unknown",
                "postcode": "",
                "country": countries::iso(&self.country),
            },
            "lines": lines,
            "ordered_at": ordered_at,
            "attributes": { "invoice": self.number, "country": self.country },
        })
    }
}

impl Line {
    /// Pieces.
    ///
    /// # Panics
    /// On a line whose quantity is no number.
    pub fn pieces(&self) -> i64 {
        match &self.quantity {
            Field::Good(quantity) => *quantity,
            Field::Bad(text) => panic!("no quantity: {text:?}"),
        }
    }

    fn faults(&self) -> impl Iterator<Item = Fault> {
        let quantity = matches!(self.quantity, Field::Good(q) if (1..=MOST_PIECES).contains(&q));
        let price = matches!(self.unit_price_minor, Field::Good(price) if price > 0);
        let checks = [
            (Sku::parse(&self.sku).is_ok(), Fault::Sku),
            (quantity, Fault::Quantity),
            (price, Fault::Price),
        ];
        checks.into_iter().filter_map(|(right, fault)| (!right).then_some(fault))
    }

    fn price_minor(&self) -> i64 {
        match &self.unit_price_minor {
            Field::Good(price) => *price,
            Field::Bad(text) => panic!("no price: {text:?}"),
        }
    }

    fn request(&self) -> Value {
        let number = |field: &Field<i64>| match field {
            Field::Good(number) => json!(number),
            Field::Bad(text) => json!(text),
        };
        json!({
            "sku": self.sku,
            "quantity": number(&self.quantity),
            "unit_price_minor": number(&self.unit_price_minor),
        })
    }
}

impl<T: fmt::Display> fmt::Display for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(value) => value.fmt(f),
            Self::Bad(text) => text.fmt(f),
        }
    }
}

/// Reads a file's invoices one by one; memory holds one invoice and the numbers seen.
pub struct Invoices {
    records: ByteRecordsIntoIter<Box<dyn Read + Send>>,
    columns: Columns,
    /// First line of the next invoice.
    ahead: Option<Row>,
    seen: BTreeMap<String, u32>,
}

struct Columns {
    invoice: usize,
    sku: usize,
    quantity: usize,
    date: usize,
    price: usize,
    customer: usize,
    country: usize,
}

struct Row {
    number: String,
    customer: String,
    country: String,
    date: String,
    line: Line,
}

impl Invoices {
    /// Opens a `.csv` or `.csv.gz` file.
    ///
    /// # Errors
    /// When it cannot be read, or lacks a column.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let reader: Box<dyn Read + Send> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        Self::read(reader).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Reads CSV with a header.
    ///
    /// # Errors
    /// When the header cannot be read or lacks a column.
    pub fn read(reader: Box<dyn Read + Send>) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
        let headers = reader.byte_headers()?.clone();
        let column = |name: &str| {
            headers
                .iter()
                .position(|header| header.trim_ascii() == name.as_bytes())
                .with_context(|| format!("there is no column {name}"))
        };
        let columns = Columns {
            invoice: column("InvoiceNo")?,
            sku: column("StockCode")?,
            quantity: column("Quantity")?,
            date: column("InvoiceDate")?,
            price: column("UnitPrice")?,
            customer: column("CustomerID")?,
            country: column("Country")?,
        };
        Ok(Self {
            records: reader.into_byte_records(),
            columns,
            ahead: None,
            seen: BTreeMap::new(),
        })
    }

    fn row(&mut self) -> Result<Option<Row>> {
        match self.records.next().transpose()? {
            Some(record) => Ok(Some(self.columns.row(&record))),
            None => Ok(None),
        }
    }

    fn invoice(&mut self) -> Result<Option<Invoice>> {
        let Some(first) = (match self.ahead.take() {
            Some(row) => Some(row),
            None => self.row()?,
        }) else {
            return Ok(None);
        };
        let mut lines = vec![first.line];
        while let Some(row) = self.row()? {
            if row.number != first.number {
                self.ahead = Some(row);
                break;
            }
            lines.push(row.line);
        }
        let times = self.seen.entry(first.number.clone()).or_default();
        *times += 1;
        let key = match *times {
            1 => first.number.clone(),
            n => format!("{}/{n}", first.number),
        };
        // The data set writes a guest as \N, other copies leave the column empty.
        let customer = Some(first.customer).filter(|c| !c.is_empty() && c != r"\N");
        Ok(Some(Invoice {
            key,
            number: first.number,
            customer,
            country: first.country,
            ordered_at: date(first.date),
            lines,
        }))
    }
}

impl Iterator for Invoices {
    type Item = Result<Invoice>;

    fn next(&mut self) -> Option<Self::Item> {
        self.invoice().transpose()
    }
}

impl Columns {
    fn row(&self, record: &ByteRecord) -> Row {
        // Copies of the data set in Latin-1 exist; only descriptions differ, which are not used.
        let text = |column: usize| {
            String::from_utf8_lossy(record.get(column).unwrap_or_default()).trim().to_owned()
        };
        let quantity = text(self.quantity);
        Row {
            number: text(self.invoice),
            customer: text(self.customer),
            country: text(self.country),
            date: text(self.date),
            line: Line {
                sku: text(self.sku),
                quantity: quantity.parse().map_or(Field::Bad(quantity), Field::Good),
                unit_price_minor: minor_units(text(self.price)),
            },
        }
    }
}

/// `2.55` → 255, digit by digit: no float comes near money. Fractions of a penny are bad.
fn minor_units(text: String) -> Field<i64> {
    let parse = || {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.as_str()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 2 || !plain(whole) || !plain(fraction) {
            return None;
        }
        let pence: i64 = format!("{fraction:0<2}").parse().ok()?;
        whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(pence)?.checked_mul(sign)
    };
    match parse() {
        Some(minor) => Field::Good(minor),
        None => Field::Bad(text),
    }
}

/// UTC, as ISO 8601 or as the copies of the data set that never were.
fn date(text: String) -> Field<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
        return Field::Good(at.to_utc());
    }
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%m/%d/%Y %H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(&text, format) {
            return Field::Good(at.and_utc());
        }
    }
    Field::Bad(text)
}

#[cfg(test)]
#[path = "invoices_tests.rs"]
mod tests;
