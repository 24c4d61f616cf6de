//! Decoding of what clients put into addresses and forms.

/// The pairs of `a=1&b=two%20words`; what can't be decoded stays as it is.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high * 16 + low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The boundary in a `multipart/form-data` content type.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let rest = content_type.strip_prefix("multipart/form-data")?;
    let (_, value) = rest.split_once("boundary=")?;
    Some(value.split(';').next()?.trim().trim_matches('"'))
}

/// The fields of a form; `None` when it is malformed. Files are fields too.
pub(super) fn fields(body: &[u8], boundary: &str) -> Option<Vec<(String, String)>> {
    let mark = format!("--{boundary}");
    let mut rest = &body[find(body, mark.as_bytes())? + mark.len()..];
    let next_mark = format!("\r\n{mark}");
    let mut found = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head_end = find(part, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&part[..head_end]).ok()?;
        let value = &part[head_end + 4..];
        let value_end = find(value, next_mark.as_bytes())?;
        let name = head.split_once("name=\"")?.1.split('"').next()?;
        let text = std::str::from_utf8(&value[..value_end]).ok()?;
        found.push((name.to_owned(), text.to_owned()));
        rest = &value[value_end + next_mark.len()..];
    }
    rest.starts_with(b"--").then_some(found)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_decoded() {
        let found = pairs("query=SELECT+1%2B1%3B&x=%C3%A9&y&z=%zz%");
        let expected = [("query", "SELECT 1+1;"), ("x", "é"), ("y", ""), ("z", "%zz%")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn forms_are_read() {
        let body =
            b"--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT\r\n1\r\n--B\r\n\
            Content-Disposition: form-data; name=\"param_x\"\r\n\r\n\r\n--B--\r\n";
        let found = fields(body, boundary("multipart/form-data; boundary=B").unwrap()).unwrap();
        let expected = [("query", "SELECT\r\n1"), ("param_x", "")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(fields(&body[..40], "B"), None);
        assert_eq!(fields(b"", "B"), None);
    }
}
