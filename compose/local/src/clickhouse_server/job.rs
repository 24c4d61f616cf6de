//! One request on the engine, on a thread that may block.

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};

use super::refusal::Refusal;
use super::request::Session;
use super::statement::{Marks, Statement};
use crate::chdb::{Connection, Engine, QueryStream};

/// Formats whose chunks can be put one after another: they have neither a beginning nor an end.
const SEAMLESS: [&str; 12] = [
    "rowbinary",
    "tabseparated",
    "tabseparatedraw",
    "tsv",
    "tsvraw",
    "csv",
    "jsoneachrow",
    "jsonlines",
    "ndjson",
    "jsoncompacteachrow",
    "lineasstring",
    "native",
];
/// A format whose chunks each begin with the same header, which is cut off after the first.
const HEADED: &str = "rowbinarywithnamesandtypes";

/// Table functions a readonly user may call: those that stay inside the database.
const HARMLESS: [&str; 18] = [
    "numbers",
    "numbers_mt",
    "zeros",
    "zeros_mt",
    "primes",
    "values",
    "sqlstandardvalues",
    "view",
    "viewexplain",
    "merge",
    "generaterandom",
    "generateseries",
    "generate_series",
    "null",
    "input",
    "format",
    "dictionary",
    "loop",
];
/// Ordinary functions that read the server's files.
const FILE_FUNCTIONS: [&str; 2] = ["file", "catboostevaluate"];

/// Where a job's output goes; the first item decides the answer's status.
pub(super) type Output = Sender<Result<Bytes, Refusal>>;

/// A part of an INSERT's data.
pub(super) enum Data {
    Part(Bytes),
    /// All of it was sent; without this nothing is committed.
    End,
}

/// A statement whose data comes through a channel.
pub(super) struct InsertJob {
    pub(super) head: Bytes,
    pub(super) format: String,
    pub(super) session: Session,
}

/// Any other statement.
pub(super) struct QueryJob {
    pub(super) sql: Bytes,
    pub(super) statement: Statement,
    pub(super) marks: Marks,
    pub(super) session: Session,
}

impl InsertJob {
    /// Inserts what comes through `data`; commits only at [`Data::End`]. `Ok` means committed.
    pub(super) fn run(self, engine: &Engine, mut data: Receiver<Data>) -> Result<(), Refusal> {
        let mut connection = prepared(engine, &self.session)?;
        let mut stream = connection.insert(&self.head, &self.format)?;
        loop {
            match data.blocking_recv() {
                Some(Data::Part(bytes)) => stream.append(&bytes)?,
                Some(Data::End) => break,
                // The client is gone: dropping the stream cancels it.
                None => return Err(Refusal::broken_body(&"it ended early")),
            }
        }
        stream.finish()?;
        Ok(())
    }
}

impl QueryJob {
    /// Runs the statement and sends its output, or the error it ends with.
    pub(super) fn run(self, engine: &Engine, output: &Output) {
        if let Err(refusal) = self.outcome(engine, output) {
            // Nobody listens when the client is gone.
            let _ = output.blocking_send(Err(refusal));
        }
    }

    fn outcome(&self, engine: &Engine, output: &Output) -> Result<(), Refusal> {
        if self.marks.files {
            return Err(Refusal::unsupported("INTO OUTFILE and FROM INFILE are not for servers"));
        }
        let mut connection = prepared(engine, &self.session)?;
        let class = connection.classify(&self.sql);
        if class.statements > 1 {
            let what = "Syntax error: Multi-statements are not allowed";
            return Err(Refusal::new(62, "SYNTAX_ERROR", what));
        }
        if self.session.limits.is_some() {
            // What doesn't parse gets its error from the engine.
            if !class.reads_only && class.statements > 0 {
                return Err(Refusal::readonly("Cannot execute query in readonly mode"));
            }
            self.check_calls(engine)?;
        }
        let format = self.format();
        let seam = match format.to_ascii_lowercase() {
            name if SEAMLESS.contains(&name.as_str()) => Some(false),
            name if name == HEADED => Some(true),
            _ => None,
        };
        if let (Statement::Select { .. }, Some(headed)) = (&self.statement, seam) {
            match connection.stream(&self.sql, &self.session.format) {
                Ok(stream) => return Ok(forward(stream, headed, output)?),
                // Not begun, so nothing is done twice.
                Err(error) if error.to_string().contains("Streaming query is not") => {}
                Err(error) => return Err(error.into()),
            }
        }
        let all = connection.query(&self.sql, &self.session.format)?;
        let _ = output.blocking_send(Ok(all.into()));
        Ok(())
    }

    /// The format of the output.
    pub(super) fn format(&self) -> &str {
        match &self.statement {
            Statement::Select { format: Some(format) } => format,
            _ => &self.session.format,
        }
    }

    /// Keeps readonly users inside the database: the engine lets some functions out.
    fn check_calls(&self, engine: &Engine) -> Result<(), Refusal> {
        if self.marks.calls.is_empty() {
            return Ok(());
        }
        let list = "SELECT lower(name) FROM system.table_functions";
        let names = engine.connect()?.query(list.as_bytes(), "TabSeparated")?;
        let names = String::from_utf8_lossy(&names);
        let outside = |call: &str| {
            FILE_FUNCTIONS.contains(&call)
                || (!HARMLESS.contains(&call) && names.lines().any(|name| name == call))
        };
        match self.marks.calls.iter().find(|call| outside(call)) {
            Some(call) => {
                let what = format!("Not enough privileges to use the function {call}");
                Err(Refusal::new(497, "ACCESS_DENIED", &what))
            }
            None => Ok(()),
        }
    }
}

fn prepared(engine: &Engine, session: &Session) -> Result<Connection, Refusal> {
    let mut connection = engine.connect()?;
    for statement in session.preparation() {
        connection.query(statement.as_bytes(), "Null")?;
    }
    Ok(connection)
}

/// Sends a query's chunks; stops, which cancels the query, when nobody takes them.
fn forward(
    mut stream: QueryStream<'_>,
    headed: bool,
    output: &Output,
) -> Result<(), crate::chdb::Error> {
    let mut header: Option<Bytes> = None;
    while let Some(chunk) = stream.next_chunk()? {
        let mut chunk = Bytes::from(chunk);
        if headed {
            match &header {
                Some(header) if chunk.starts_with(header) => chunk = chunk.slice(header.len()..),
                Some(_) => {}
                None => header = header_length(&chunk).map(|length| chunk.slice(..length)),
            }
        }
        if !chunk.is_empty() && output.blocking_send(Ok(chunk)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Length of the names and types a RowBinaryWithNamesAndTypes output begins with.
fn header_length(output: &[u8]) -> Option<usize> {
    let mut at = 0;
    let columns = varint(output, &mut at)?;
    for _ in 0..columns.checked_mul(2)? {
        let length = varint(output, &mut at)?;
        at = at.checked_add(length).filter(|at| *at <= output.len())?;
    }
    Some(at)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_named_rows_is_measured() {
        let mut output = b"\x02\x01a\x01b\x05UInt8\x06String".to_vec();
        let length = output.len();
        output.extend(b"\x07\x01x");
        assert_eq!(header_length(&output), Some(length));
        assert_eq!(header_length(&output[..5]), None);
        assert_eq!(header_length(b""), None);
    }
}
