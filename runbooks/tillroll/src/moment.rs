//! Moments and spans as operators write and read them; UTC.

use chrono::{DateTime, NaiveDate, Utc};
use events::Millis;

/// Now.
pub(crate) fn now() -> Millis {
    Millis(Utc::now().timestamp_millis())
}

/// A moment of a flag: `90s`, `30m`, `2h`, `3d` ago, a day, or RFC 3339.
pub(crate) fn since(text: &str) -> Result<Millis, String> {
    parse(text, now())
}

fn parse(text: &str, now: Millis) -> Result<Millis, String> {
    if let Some(span) = span_ms(text) {
        return Ok(Millis(now.0.saturating_sub(span)));
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        && let Some(midnight) = day.and_hms_opt(0, 0, 0)
    {
        return Ok(Millis(midnight.and_utc().timestamp_millis()));
    }
    let moment = DateTime::parse_from_rfc3339(text);
    moment
        .map(|moment| Millis(moment.timestamp_millis()))
        .map_err(|_| "write it as 30m, 2h, 3d, 2026-11-21 or 2026-11-21T08:30:00Z".to_owned())
}

fn span_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let number: i64 = text[..text.len() - unit.len_utf8()].parse().ok().filter(|n| *n >= 0)?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms)
}

/// `2026-11-21T08:30:00.123Z`; the number where no calendar has it.
pub(crate) fn text(at: Millis) -> String {
    let known = DateTime::from_timestamp_millis(at.0);
    known.map_or_else(|| at.to_string(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A moment in JSON: its text.
pub(crate) fn serialize<S: serde::Serializer>(
    at: &Millis,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*at))
}

/// How long ago, in the largest unit that leaves two figures: `45 s`, `12 min`, `30 h`, `9 d`.
pub(crate) fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..360_000 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spans_days_or_rfc_3339() {
        let now = Millis(1_798_707_600_000);
        let table = [
            ("90s", Some(1_798_707_510_000)),
            ("30m", Some(1_798_705_800_000)),
            ("2h", Some(1_798_700_400_000)),
            ("1d", Some(1_798_621_200_000)),
            ("2026-12-31", Some(1_798_675_200_000)),
            ("2026-12-31T09:00:00+01:00", Some(1_798_704_000_000)),
            ("yesterday", None),
            ("-1d", None),
            ("", None),
            ("5é", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, now).ok().map(|at| at.0), expected, "{text}");
        }
        assert_eq!(text(now), "2026-12-31T09:00:00.000Z");
        assert_eq!(text(Millis(i64::MAX)), i64::MAX.to_string());
    }

    #[test]
    fn ages_have_a_unit_that_fits() {
        let table = [(-5, "0 s"), (45_000, "45 s"), (720_000, "12 min"), (7_200_000, "2 h")];
        for (ms, expected) in table {
            assert_eq!(age(ms), expected);
        }
        assert_eq!(age(9 * 86_400_000), "9 d");
    }
}
