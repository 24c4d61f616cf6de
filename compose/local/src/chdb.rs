//! The ClickHouse engine as a library in this process: safe handles over chDB's C functions.
//!
//! This is the one file of the repository with `unsafe` in it. What the C side asks, and where it
//! is kept:
//! - One storage path per process, and one connection open as long as the process uses the engine
//!   (closing the last one shuts it down): [`Engine`] holds it.
//! - A connection runs one statement at a time: its methods that open a stream borrow it mutably,
//!   and it is `Send` but not `Sync`.
//! - Every result and insert stream is destroyed exactly once: their owners do it on drop.
//! - The library is never unloaded: its threads live as long as the process.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use libloading::Library;

/// Why the engine could not be had, or what it says about a statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is missing, damaged or too old.
    #[error("the ClickHouse library can't be loaded: give its path, 26.7.3 or newer")]
    Library(#[from] libloading::Error),
    /// The data folder can't be used: no path to it, no rights, or another process holds it.
    #[error("the ClickHouse engine can't open its data folder; is it in use by another process?")]
    Open,
    /// A path with a NUL byte in it.
    #[error("a path holds a NUL byte")]
    Path(#[from] std::ffi::NulError),
    /// The engine refuses or fails a statement; ClickHouse's code and message, code 0 if unknown.
    #[error("{message}")]
    Statement {
        /// ClickHouse's error code, such as 60 for an unknown table.
        code: i32,
        /// `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`.
        message: String,
    },
}

impl Error {
    fn statement(message: String) -> Self {
        let digits = message.strip_prefix("Code: ").unwrap_or("");
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        Error::Statement { code: digits[..end].parse().unwrap_or(0), message }
    }
}

type RawConnection = *mut c_void;
type RawResult = *mut c_void;
type RawInsert = *mut c_void;

/// `chdb_query_analysis_v1`.
#[repr(C)]
struct Analysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// What a statement would do; [`Connection::classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Statements in the text; 0 when it doesn't parse.
    pub statements: u32,
    /// Reads only: SELECT, SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK.
    pub reads_only: bool,
}

type QueryFn =
    unsafe extern "C" fn(RawConnection, *const c_char, usize, *const c_char, usize) -> RawResult;

/// The functions used, copied out of a library that is never unloaded.
struct Functions {
    version: unsafe extern "C" fn() -> *const c_char,
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection,
    close: unsafe extern "C" fn(*mut RawConnection),
    query: QueryFn,
    stream_query: QueryFn,
    stream_fetch: unsafe extern "C" fn(RawConnection, RawResult) -> RawResult,
    stream_cancel: unsafe extern "C" fn(RawConnection, RawResult),
    result_buffer: unsafe extern "C" fn(RawResult) -> *const u8,
    result_length: unsafe extern "C" fn(RawResult) -> usize,
    result_error: unsafe extern "C" fn(RawResult) -> *const c_char,
    result_rows_written: unsafe extern "C" fn(RawResult) -> u64,
    result_destroy: unsafe extern "C" fn(RawResult),
    insert: unsafe extern "C" fn(
        RawConnection,
        *const c_char,
        usize,
        *const c_char,
        usize,
    ) -> RawInsert,
    insert_append: unsafe extern "C" fn(RawInsert, *const c_void, usize) -> c_int,
    insert_done: unsafe extern "C" fn(RawInsert) -> RawResult,
    insert_error: unsafe extern "C" fn(RawInsert) -> *const c_char,
    insert_destroy: unsafe extern "C" fn(RawInsert),
    classify: unsafe extern "C" fn(
        RawConnection,
        *const c_char,
        usize,
        *const c_char,
        usize,
        *mut Analysis,
    ) -> c_int,
}

impl Functions {
    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: loading runs the library's constructors; it is the pinned component that the
        // operator chose. Each type below is the one of its function in chdb.h of 26.7.3, and the
        // pointers stay valid because the library is leaked.
        unsafe {
            let library: &'static Library = Box::leak(Box::new(Library::new(path)?));
            Ok(Functions {
                version: *library.get(b"chdb_version\0")?,
                set_signal_handlers_enabled: *library.get(b"chdb_set_signal_handlers_enabled\0")?,
                connect: *library.get(b"chdb_connect\0")?,
                close: *library.get(b"chdb_close_conn\0")?,
                query: *library.get(b"chdb_query_n\0")?,
                stream_query: *library.get(b"chdb_stream_query_n\0")?,
                stream_fetch: *library.get(b"chdb_stream_fetch_result\0")?,
                stream_cancel: *library.get(b"chdb_stream_cancel_query\0")?,
                result_buffer: *library.get(b"chdb_result_buffer\0")?,
                result_length: *library.get(b"chdb_result_length\0")?,
                result_error: *library.get(b"chdb_result_error\0")?,
                result_rows_written: *library.get(b"chdb_result_rows_written\0")?,
                result_destroy: *library.get(b"chdb_destroy_query_result\0")?,
                insert: *library.get(b"chdb_stream_insert_n\0")?,
                insert_append: *library.get(b"chdb_stream_append\0")?,
                insert_done: *library.get(b"chdb_stream_done\0")?,
                insert_error: *library.get(b"chdb_stream_insert_error\0")?,
                insert_destroy: *library.get(b"chdb_destroy_insert_stream\0")?,
                classify: *library.get(b"chdb_classify_query_n\0")?,
            })
        }
    }
}

/// The engine, open on one data folder. Cheap to clone; at most one per process.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    functions: Functions,
    path_argument: CString,
    /// Held open so that the engine stays up between requests.
    keeper: NonNull<RawConnection>,
}

// SAFETY: `functions` and `path_argument` are plain data; `keeper` runs no statement and is closed
// once, by the last owner; chdb_connect and chdb_close_conn may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Inner {}

impl Engine {
    /// Loads the library and opens `data`, an existing folder. `arguments` are server settings such
    /// as `--max_server_memory_usage=1000000000`. Takes about half a second.
    pub fn open(library: &Path, data: &Path, arguments: &[String]) -> Result<Engine, Error> {
        let functions = Functions::load(library)?;
        let mut path = b"--path=".to_vec();
        path.extend_from_slice(data.as_os_str().as_bytes());
        let path_argument = CString::new(path)?;
        let mut all = vec![path_argument.clone()];
        for argument in arguments {
            all.push(CString::new(argument.as_str())?);
        }
        // SAFETY: called before the first connection, as asked; signals stay the front's.
        unsafe { (functions.set_signal_handlers_enabled)(0) };
        let keeper = connect(&functions, &all)?;
        Ok(Engine { inner: Arc::new(Inner { functions, path_argument, keeper }) })
    }

    /// The library's version, such as `26.7.3`.
    pub fn version(&self) -> String {
        // SAFETY: a static string of the library.
        unsafe { text((self.inner.functions.version)()) }.unwrap_or_default()
    }

    /// A new connection with default settings; about 0.3 ms.
    pub fn connect(&self) -> Result<Connection, Error> {
        let handle =
            connect(&self.inner.functions, std::slice::from_ref(&self.inner.path_argument))?;
        Ok(Connection { handle, inner: self.inner.clone() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: an open handle that is closed here only.
        unsafe { (self.functions.close)(self.keeper.as_ptr()) };
    }
}

fn connect(functions: &Functions, arguments: &[CString]) -> Result<NonNull<RawConnection>, Error> {
    let mut pointers: Vec<*mut c_char> = std::iter::once(c"clickhouse")
        .chain(arguments.iter().map(CString::as_c_str))
        .map(|argument| argument.as_ptr().cast_mut())
        .collect();
    let count = c_int::try_from(pointers.len()).expect("a handful of arguments");
    // SAFETY: `count` NUL-terminated strings that live through the call; the engine copies them.
    let handle = unsafe { (functions.connect)(count, pointers.as_mut_ptr()) };
    NonNull::new(handle).ok_or(Error::Open)
}

/// # Safety
/// `pointer` is null or a NUL-terminated string that lives through the call.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// A session: its settings and current database are its own. Every call blocks.
pub struct Connection {
    handle: NonNull<RawConnection>,
    inner: Arc<Inner>,
}

// SAFETY: the engine binds a connection to no thread; it only asks for one statement at a time,
// which the missing `Sync` and the `&mut` of the streams see to.
unsafe impl Send for Connection {}

impl Connection {
    fn raw(&self) -> RawConnection {
        // SAFETY: chdb_connect returns a pointer to the handle, valid until it is closed.
        unsafe { *self.handle.as_ptr() }
    }

    /// Runs a statement to its end and returns all of its output, in `format` unless the statement
    /// has a FORMAT clause. Not for data inside an INSERT: see [`Connection::insert`].
    pub fn query(&mut self, sql: &[u8], format: &str) -> Result<Vec<u8>, Error> {
        let functions = &self.inner.functions;
        // SAFETY: both strings live through the call and are given with their lengths.
        let raw = unsafe {
            (functions.query)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
            )
        };
        ResultHandle::new(functions, raw)?.output()
    }

    /// Starts a SELECT whose output is fetched in chunks. Formats with a beginning or an end repeat
    /// them in every chunk.
    pub fn stream(&mut self, sql: &[u8], format: &str) -> Result<QueryStream<'_>, Error> {
        let functions = &self.inner.functions;
        // SAFETY: as in `query`.
        let raw = unsafe {
            (functions.stream_query)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
            )
        };
        let result = ResultHandle::new(functions, raw)?;
        match result.error() {
            Some(message) => Err(Error::statement(message)),
            None => Ok(QueryStream { result, connection: self.raw(), finished: false }),
        }
    }

    /// Starts an INSERT; `sql` has neither FORMAT nor data, which follow through
    /// [`InsertStream::append`].
    pub fn insert(&mut self, sql: &[u8], format: &str) -> Result<InsertStream<'_>, Error> {
        let functions = &self.inner.functions;
        // SAFETY: as in `query`.
        let raw = unsafe {
            (functions.insert)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
            )
        };
        if raw.is_null() {
            return Err(Error::statement("the engine gave no insert stream".to_owned()));
        }
        let stream = InsertStream { raw, functions, borrowed: PhantomData };
        match stream.error() {
            Some(message) => Err(Error::statement(message)),
            None => Ok(stream),
        }
    }

    /// What the text would do, by the engine's own parser; nothing is run.
    pub fn classify(&mut self, sql: &[u8]) -> Class {
        let size = u32::try_from(size_of::<Analysis>()).expect("sixteen bytes");
        let mut found =
            Analysis { struct_size: size, statement_count: 0, flags: 0, query_class: 4 };
        // SAFETY: `sql` lives through the call; no target database is named; `found` says its size.
        unsafe {
            (self.inner.functions.classify)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                ptr::null(),
                0,
                &raw mut found,
            );
        }
        Class { statements: found.statement_count, reads_only: found.query_class == 0 }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: an open handle that is closed here only; its streams borrow the connection.
        unsafe { (self.inner.functions.close)(self.handle.as_ptr()) };
    }
}

/// Owns one result of the engine.
struct ResultHandle<'a> {
    raw: RawResult,
    functions: &'a Functions,
}

impl<'a> ResultHandle<'a> {
    fn new(functions: &'a Functions, raw: RawResult) -> Result<Self, Error> {
        if raw.is_null() {
            return Err(Error::statement("the engine gave no result".to_owned()));
        }
        Ok(ResultHandle { raw, functions })
    }

    fn error(&self) -> Option<String> {
        // SAFETY: a live result; its message lives as long.
        unsafe { text((self.functions.result_error)(self.raw)) }
    }

    fn output(&self) -> Result<Vec<u8>, Error> {
        if let Some(message) = self.error() {
            return Err(Error::statement(message));
        }
        // SAFETY: a live result; its buffer has that many bytes and is copied before it goes.
        unsafe {
            let length = (self.functions.result_length)(self.raw);
            let buffer = (self.functions.result_buffer)(self.raw);
            if buffer.is_null() || length == 0 {
                return Ok(Vec::new());
            }
            Ok(std::slice::from_raw_parts(buffer, length).to_vec())
        }
    }
}

impl Drop for ResultHandle<'_> {
    fn drop(&mut self) {
        // SAFETY: a live result that is destroyed here only.
        unsafe { (self.functions.result_destroy)(self.raw) };
    }
}

/// The output of a running SELECT; dropping it cancels the query.
pub struct QueryStream<'a> {
    result: ResultHandle<'a>,
    connection: RawConnection,
    finished: bool,
}

impl QueryStream<'_> {
    /// The next chunk of about 65,000 rows; `None` at the end. After an error the stream is over.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.finished {
            return Ok(None);
        }
        let functions = self.result.functions;
        // SAFETY: the connection outlives the stream, which borrows it; the result is live.
        let raw = unsafe { (functions.stream_fetch)(self.connection, self.result.raw) };
        let output = ResultHandle::new(functions, raw).and_then(|chunk| chunk.output());
        self.finished = !matches!(&output, Ok(bytes) if !bytes.is_empty());
        output.map(|bytes| (!bytes.is_empty()).then_some(bytes))
    }
}

impl Drop for QueryStream<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // SAFETY: as in `next_chunk`; the handle itself is destroyed by its owner afterwards.
            unsafe { (self.result.functions.stream_cancel)(self.connection, self.result.raw) };
        }
    }
}

/// A running INSERT; dropped before [`InsertStream::finish`] it is cancelled, and what was not yet
/// flushed as a whole block (about a million rows) is not inserted.
pub struct InsertStream<'a> {
    raw: RawInsert,
    functions: &'a Functions,
    borrowed: PhantomData<&'a mut Connection>,
}

impl InsertStream<'_> {
    fn error(&self) -> Option<String> {
        // SAFETY: a live stream; its message lives as long.
        unsafe { text((self.functions.insert_error)(self.raw)) }
    }

    /// Hands over the next bytes, cut anywhere; blocks while the engine is behind.
    pub fn append(&mut self, data: &[u8]) -> Result<(), Error> {
        // SAFETY: a live stream; the data is copied within the call.
        let state =
            unsafe { (self.functions.insert_append)(self.raw, data.as_ptr().cast(), data.len()) };
        if state == 0 {
            return Ok(());
        }
        let message = self.error().unwrap_or_else(|| "the insert failed".to_owned());
        Err(Error::statement(message))
    }

    /// Commits; the number of rows written, those of materialized views included.
    pub fn finish(self) -> Result<u64, Error> {
        // SAFETY: a live stream, finished once because `self` goes.
        let raw = unsafe { (self.functions.insert_done)(self.raw) };
        let result = ResultHandle::new(self.functions, raw)?;
        match result.error() {
            Some(message) => Err(Error::statement(message)),
            // SAFETY: a live result.
            None => Ok(unsafe { (self.functions.result_rows_written)(result.raw) }),
        }
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: a live stream that is destroyed here only; the engine cancels an unfinished one.
        unsafe { (self.functions.insert_destroy)(self.raw) };
    }
}

/// Ends the process at once, without the exit handlers that would race the engine's threads. What was
/// answered as done is with the operating system already.
pub fn leave(code: i32) -> ! {
    // SAFETY: takes no memory of ours; nothing runs afterwards.
    unsafe { libc::_exit(code) }
}
