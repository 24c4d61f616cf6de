//! Samples of one metric in Prometheus' text format.

use std::collections::BTreeMap;

/// A sample: its labels and its value.
pub(super) type Sample = (BTreeMap<String, String>, f64);

/// The samples of a metric, in their order. What is not understood is passed over.
pub(super) fn samples(text: &str, metric: &str) -> Vec<Sample> {
    text.lines().filter_map(|line| sample(line.strip_prefix(metric)?)).collect()
}

fn sample(rest: &str) -> Option<Sample> {
    let Some(mut rest) = rest.strip_prefix('{') else {
        // Another metric, whose name begins like this one's, goes on with a letter.
        return Some((BTreeMap::new(), rest.strip_prefix(' ')?.split(' ').next()?.parse().ok()?));
    };
    let mut labels = BTreeMap::new();
    while let Some((name, more)) = rest.split_once("=\"") {
        let (value, more) = quoted(more)?;
        labels.insert(name.to_owned(), value);
        rest = more.strip_prefix(',').unwrap_or(more);
        if let Some(value) = rest.strip_prefix("} ") {
            return Some((labels, value.split(' ').next()?.parse().ok()?));
        }
    }
    None
}

/// A text up to its closing quote, and what is behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_as_prometheus_writes_them() {
        let text = "# HELP a Of a.\n# TYPE a gauge\na{lane=\"main>GB\",who=\"x\\\"},y\"} 2\na 3 17\n\
                    a_more 9\nab{who=\"z\"} 4\na{who=} 1\n";
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = BTreeMap::from([label("lane", "main>GB"), label("who", "x\"},y")]);
        assert_eq!(samples(text, "a"), [(labels, 2.0), (BTreeMap::new(), 3.0)]);
        assert!(samples(text, "b").is_empty());
    }
}
