//! Just enough SQL to tell what the engine's C interface needs to be told apart: an INSERT's head
//! from its data, the output format, and what reaches outside the database.

/// A statement as the front sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// An INSERT with data to follow; `head` and `data` are byte positions: `..head` is the
    /// statement without FORMAT or VALUES, `data..` the data that came with it.
    Insert { head: usize, format: String, data: usize },
    /// A query, with its FORMAT clause if it has one.
    Select { format: Option<String> },
    /// Anything else.
    Other,
}

/// What [`read`] found besides.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// `INTO OUTFILE` or `FROM INFILE`: the server's own files.
    pub(super) files: bool,
    /// Lowercase names followed by an opening bracket.
    pub(super) calls: Vec<String>,
}

/// Reads a statement up to an INSERT's data.
pub(super) fn read(sql: &[u8]) -> (Statement, Marks) {
    let mut marks = Marks::default();
    let mut tokens = Tokens { sql, at: 0, depth: 0 };
    let Some(first) = tokens.next() else { return (Statement::Other, marks) };
    let statement = match first.word() {
        Some("insert") => insert(&mut tokens, &mut marks),
        Some("select" | "with" | "from") => select(&mut tokens, &mut marks, &first),
        None if first.kind == Kind::Open => select(&mut tokens, &mut marks, &first),
        _ => {
            scan(&mut tokens, &mut marks, first, |_, _| ());
            Statement::Other
        }
    };
    (statement, marks)
}

fn insert(tokens: &mut Tokens<'_>, marks: &mut Marks) -> Statement {
    let mut name = tokens.next();
    while let Some("into" | "table" | "function") = name.as_ref().and_then(Token::word) {
        name = tokens.next();
    }
    let mut previous = name;
    let mut end = previous.as_ref().map_or(tokens.at, |token| token.end);
    while let Some(token) = tokens.next() {
        if let (Some(before), Kind::Open) = (&previous, token.kind) {
            marks.calls.extend(before.name());
        }
        let opened = previous.as_ref().is_some_and(|before| before.kind == Kind::Open);
        match token.word() {
            Some("select" | "with") if token.depth == 0 || (opened && token.depth == 1) => {
                scan(tokens, marks, token, |_, _| ());
                return Statement::Other;
            }
            Some("infile") => marks.files = true,
            Some("values") if token.depth == 0 => {
                return Statement::Insert { head: end, format: "Values".into(), data: token.end };
            }
            Some("format") if token.depth == 0 => {
                if let Some(format) = tokens.next() {
                    let data = after_format(tokens.sql, format.end);
                    return Statement::Insert { head: end, format: format.text, data };
                }
            }
            _ => {}
        }
        if token.kind == Kind::Semicolon {
            break;
        }
        end = token.end;
        previous = Some(token);
    }
    // ClickHouse takes VALUES as read.
    Statement::Insert { head: end, format: "Values".into(), data: tokens.sql.len() }
}

/// Data starts after the first line break, or else after the blanks.
fn after_format(sql: &[u8], mut at: usize) -> usize {
    while sql.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | 0x0c)) {
        at += 1;
    }
    if sql.get(at) == Some(&b'\r') {
        at += 1;
    }
    if sql.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

fn select(tokens: &mut Tokens<'_>, marks: &mut Marks, first: &Token) -> Statement {
    let mut format: Option<String> = None;
    let mut certain = false;
    scan(tokens, marks, first.clone(), |previous, token| {
        if token.depth != 0 || certain {
            return;
        }
        if format.is_some() {
            certain = token.kind == Kind::Semicolon || token.word() == Some("settings");
            if !certain {
                // Something goes on after it: it was a column called format.
                format = None;
            }
        }
        if previous.depth == 0 && previous.word() == Some("format") {
            format = token.name().map(|_| token.text.clone());
        }
    });
    Statement::Select { format }
}

/// Reads to the end, noting calls and files, and shows each token with the one before it.
fn scan(
    tokens: &mut Tokens<'_>,
    marks: &mut Marks,
    first: Token,
    mut see: impl FnMut(&Token, &Token),
) {
    let mut previous = first;
    while let Some(token) = tokens.next() {
        if token.kind == Kind::Open {
            marks.calls.extend(previous.name());
        }
        if matches!(
            (previous.word(), token.word()),
            (Some("into"), Some("outfile")) | (Some("from"), Some("infile"))
        ) {
            marks.files = true;
        }
        see(&previous, &token);
        previous = token;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An unquoted word.
    Word,
    /// A name in backticks or double quotes.
    Quoted,
    /// A string.
    Text,
    Open,
    Semicolon,
    Other,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    /// A word as written, a quoted name without its quotes, otherwise empty.
    text: String,
    lower: String,
    /// Brackets around it.
    depth: usize,
    end: usize,
}

impl Token {
    /// The lowercase text of an unquoted word.
    fn word(&self) -> Option<&str> {
        (self.kind == Kind::Word).then_some(self.lower.as_str())
    }

    /// The lowercase text of a word or quoted name.
    fn name(&self) -> Option<String> {
        matches!(self.kind, Kind::Word | Kind::Quoted).then(|| self.lower.clone())
    }
}

struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
    depth: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let first = *self.sql.get(start)?;
        let mut depth = self.depth;
        let (kind, text) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
                self.skip_while(word);
                (Kind::Word, start..self.at)
            }
            b'`' | b'"' => {
                self.skip_quoted(first);
                (Kind::Quoted, start + 1..(self.at - 1).max(start + 1))
            }
            b'\'' => {
                self.skip_quoted(first);
                (Kind::Text, 0..0)
            }
            b'$' if self.skip_heredoc() => (Kind::Text, 0..0),
            b'0'..=b'9' => {
                self.skip_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
                (Kind::Other, 0..0)
            }
            b'(' | b'[' | b'{' => {
                self.at += 1;
                self.depth += 1;
                (if first == b'(' { Kind::Open } else { Kind::Other }, 0..0)
            }
            b')' | b']' | b'}' => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                depth = self.depth;
                (Kind::Other, 0..0)
            }
            b';' => {
                self.at += 1;
                (Kind::Semicolon, 0..0)
            }
            _ => {
                self.at += 1;
                (Kind::Other, 0..0)
            }
        };
        let text = String::from_utf8_lossy(&self.sql[text]).into_owned();
        Some(Token { kind, lower: text.to_ascii_lowercase(), text, depth, end: self.at })
    }

    fn skip_while(&mut self, wanted: impl Fn(&u8) -> bool) {
        while self.sql.get(self.at).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.skip_while(|b| b.is_ascii_whitespace() || *b == 0x0b);
            match &self.sql[self.at..] {
                [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => self.skip_while(|b| *b != b'\n'),
                [b'/', b'*', rest @ ..] => {
                    let close = rest.windows(2).position(|pair| pair == b"*/");
                    self.at = close.map_or(self.sql.len(), |close| self.at + 2 + close + 2);
                }
                _ => return,
            }
        }
    }

    /// Past the closing quote: a backslash takes the next byte with it, a doubled quote is one.
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.sql.get(self.at) {
            self.at += 1;
            if *byte == b'\\' {
                self.at = (self.at + 1).min(self.sql.len());
            } else if *byte == quote {
                if self.sql.get(self.at) != Some(&quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    /// Past `$tag$ … $tag$` if one stands here.
    fn skip_heredoc(&mut self) -> bool {
        let rest = &self.sql[self.at + 1..];
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let length = rest.iter().take_while(|b| word(b)).count();
        if rest.get(length) != Some(&b'$') {
            return false;
        }
        let tag = &self.sql[self.at..self.at + length + 2];
        let body = &self.sql[self.at + tag.len()..];
        let Some(close) = body.windows(tag.len()).position(|window| window == tag) else {
            return false;
        };
        self.at += tag.len() + close + tag.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(sql: &str) -> (String, String, String) {
        match read(sql.as_bytes()).0 {
            Statement::Insert { head, format, data } => {
                (sql[..head].to_owned(), format, sql[data..].to_owned())
            }
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn format_of(sql: &str) -> Option<String> {
        match read(sql.as_bytes()).0 {
            Statement::Select { format } => format,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn the_data_of_an_insert_is_found() {
        for (sql, head, format, data) in [
            (
                "INSERT INTO t(`a`, `format`) FORMAT RowBinary",
                "INSERT INTO t(`a`, `format`)",
                "RowBinary",
                "",
            ),
            ("insert into d.t format CSV\n1;\n\n2", "insert into d.t", "CSV", "1;\n\n2"),
            ("INSERT INTO t VALUES (1),(2)", "INSERT INTO t", "Values", " (1),(2)"),
            (
                "/* format x */ INSERT INTO t SETTINGS a='format y' FORMAT  Native  \r\nx",
                "/* format x */ INSERT INTO t SETTINGS a='format y'",
                "Native",
                "x",
            ),
            ("INSERT INTO format (values) ;", "INSERT INTO format (values)", "Values", ""),
            ("INSERT INTO TABLE t", "INSERT INTO TABLE t", "Values", ""),
        ] {
            let expected = (head.to_owned(), format.to_owned(), data.to_owned());
            assert_eq!(inserted(sql), expected, "{sql}");
        }
    }

    #[test]
    fn an_insert_from_a_query_has_no_data() {
        for sql in [
            "INSERT INTO t SELECT * FROM values('a Int8', 1)",
            "INSERT INTO t (a) WITH 1 AS x SELECT x",
            "INSERT INTO t (SELECT 1)",
        ] {
            assert_eq!(read(sql.as_bytes()).0, Statement::Other, "{sql}");
        }
    }

    #[test]
    fn the_format_of_a_query_is_found() {
        for (sql, format) in [
            ("SELECT 1", None),
            ("SELECT 1 FORMAT JSON", Some("JSON")),
            ("select 'a format CSV' as x format TSV;", Some("TSV")),
            ("WITH x AS (SELECT 1 FORMAT CSV) SELECT * FROM x", None),
            ("SELECT 1 FORMAT JSONEachRow SETTINGS max_threads = 1, a = 'b'", Some("JSONEachRow")),
            ("SELECT format FROM t WHERE b", None),
            ("(SELECT 1) -- FORMAT CSV", None),
            ("SELECT $x$ FORMAT CSV $x$ FORMAT RowBinary", Some("RowBinary")),
        ] {
            assert_eq!(format_of(sql).as_deref(), format, "{sql}");
        }
    }

    #[test]
    fn what_reaches_outside_is_marked() {
        assert!(read(b"SELECT 1 INTO OUTFILE 'x'").1.files);
        assert!(read(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV").1.files);
        assert!(!read(b"SELECT 'into outfile'").1.files);
        let calls =
            read(b"EXPLAIN SELECT * FROM `File`('x'), (SELECT count(*)) -- url('')").1.calls;
        assert_eq!(calls, ["file", "count"]);
    }

    #[test]
    fn broken_text_is_read_to_its_end() {
        for sql in
            ["", "'", "`", "/*", "$a$", "SELECT \\", "INSERT", "INSERT INTO t FORMAT", "\"a\\"]
        {
            read(sql.as_bytes());
        }
    }
}
