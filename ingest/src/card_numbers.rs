//! Pure: what looks like a card number (ISO/IEC 7812-1), so that none is ever recorded.

/// Whether the text is one: 12 to 19 digits, perhaps grouped by dashes, with a right check digit.
pub(crate) fn is_one(text: &str) -> bool {
    let plain = text.bytes().filter(|b| *b != b'-');
    if !plain.clone().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let digits: Vec<u8> = plain.map(|b| b - b'0').collect();
    (12..=19).contains(&digits.len()) && has_check_digit(&digits)
}

/// Whether a free text holds one, of an issuer and its length, with a right check digit, perhaps grouped by
/// spaces or dashes. Other long numbers are barcodes, references, times.
pub(crate) fn holds_one(text: &str) -> bool {
    let separated = |c: char| !c.is_ascii_digit() && c != ' ' && c != '-';
    text.split(separated).any(|run| {
        let groups: Vec<&str> = run.split([' ', '-']).filter(|group| !group.is_empty()).collect();
        (0..groups.len()).any(|first| begins_with_one(&groups[first..]))
    })
}

fn begins_with_one(groups: &[&str]) -> bool {
    let (mut digits, mut length) = ([0; LONGEST], 0);
    for group in groups {
        if length + group.len() > LONGEST {
            return false;
        }
        for digit in group.bytes() {
            digits[length] = digit - b'0';
            length += 1;
        }
        let number = &digits[..length];
        if is_issued(number) && has_check_digit(number) {
            return true;
        }
    }
    false
}

const LONGEST: usize = 19;

/// Whether numbers of this length and beginning are cards: Visa, Mastercard, American Express, Diners
/// Club, Discover, JCB, UnionPay, Maestro (the issuers' published ranges).
fn is_issued(digits: &[u8]) -> bool {
    let Some(head) = digits.get(..4) else { return false };
    let head = head.iter().fold(0, |number, digit| number * 10 + u32::from(*digit));
    match digits.len() {
        14 => matches!(head, 3000..=3059 | 3600..=3699 | 3800..=3999),
        15 => matches!(head, 3400..=3499 | 3700..=3799),
        16 => matches!(head, 2221..=2720 | 3528..=3589 | 4000..=6999),
        17 | 18 => matches!(head, 5000..=6999),
        LONGEST => matches!(head, 4000..=6999),
        _ => false,
    }
}

/// Luhn.
fn has_check_digit(digits: &[u8]) -> bool {
    let value = |(position, digit): (usize, &u8)| match (position % 2, u32::from(*digit)) {
        (0, digit) => digit,
        (_, digit) if digit > 4 => 2 * digit - 9,
        (_, digit) => 2 * digit,
    };
    let sum: u32 = digits.iter().rev().enumerate().map(value).sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_none_and_a_number_is() {
        for number in ["4242424242424242", "4242-4242-4242-4242", "378282246310005"] {
            assert!(is_one(number));
        }
        // Not the right check digit; too short; a token.
        for token in ["4242424242424241", "4242", "pm_4242424242424242"] {
            assert!(!is_one(token));
        }
    }

    #[test]
    fn numbers_are_found_in_free_text() {
        for text in [
            "4242424242424242",
            "card:4242 4242 4242 4242 12/27",
            "10 378282246310005",
            "(5555-5555-5555-4444)",
        ] {
            assert!(holds_one(text), "{text}");
        }
        for text in [
            "",
            "4242424242424241",
            // A barcode, a GTIN with its packaging digit, a telephone number, a long number.
            "4006381333931",
            "14006381333938",
            // A time whose digits happen to check.
            "20261122120003",
            "+44 20 7946 0000",
            "42424242424242424242424242424242",
        ] {
            assert!(!holds_one(text), "{text}");
        }
    }
}
