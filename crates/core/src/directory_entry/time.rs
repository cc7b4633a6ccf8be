//! Generalised time (RFC 4517 §3.3.13): how the directory writes a moment, such as `20261122180000Z`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Why a text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a time such as 20261122180000Z")]
pub struct TimeError(pub String);

/// Reads a generalised time. Minutes, seconds and a fraction may be missing; a zone may not.
/// The fraction is dropped: nothing here counts in less than seconds.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    read(text).ok_or_else(|| TimeError(text.to_owned()))
}

/// Writes a moment as the directory keeps it, in UTC and whole seconds.
pub fn format(moment: Timestamp) -> String {
    moment.strftime("%Y%m%d%H%M%SZ").to_string()
}

fn read(text: &str) -> Option<Timestamp> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at_checked(digits_end)?;
    let field = |from: usize, to: usize| digits.get(from..to)?.parse::<i8>().ok();
    if !matches!(digits.len(), 10 | 12 | 14) {
        return None;
    }
    let year: i16 = digits.get(..4)?.parse().ok()?;
    let minute = if digits.len() > 10 { field(10, 12)? } else { 0 };
    // A leap second is written as 60; the second before it is near enough.
    let second = if digits.len() > 12 { field(12, 14).filter(|s| *s <= 60)?.min(59) } else { 0 };
    let civil = DateTime::new(year, field(4, 6)?, field(6, 8)?, field(8, 10)?, minute, second, 0).ok()?;
    let zone = match rest.strip_prefix(['.', ',']) {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            // At least one digit belongs to the fraction, and a fraction of an hour or minute is not used by anybody.
            if zone.len() == fraction.len() || digits.len() != 14 {
                return None;
            }
            zone
        }
        None => rest,
    };
    offset(zone)?.to_timestamp(civil).ok()
}

fn offset(zone: &str) -> Option<Offset> {
    if zone == "Z" {
        return Some(Offset::UTC);
    }
    let sign = match zone.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let digits = zone.get(1..)?;
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits.get(..2)?.parse().ok().filter(|h| *h < 24)?;
    let minutes: i32 = digits.get(2..4).map_or(Some(0), |m| m.parse().ok().filter(|m| *m < 60))?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, expected) in [
            ("20261122180005Z", "2026-11-22T18:00:05Z"),
            ("202611221800Z", "2026-11-22T18:00:00Z"),
            ("2026112218Z", "2026-11-22T18:00:00Z"),
            ("20261122180005.123456Z", "2026-11-22T18:00:05Z"),
            ("20261122180005,5+0130", "2026-11-22T16:30:05Z"),
            ("20261122180005-05", "2026-11-22T23:00:05Z"),
            ("20161231235960Z", "2016-12-31T23:59:59Z"),
            ("000001010000Z", "0000-01-01T00:00:00Z"),
        ] {
            let moment = parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(moment, expected.parse().unwrap(), "{text}");
            assert_eq!(parse(&format(moment)), Ok(moment), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_moment() {
        for text in [
            "",
            "2026",
            "20261122180005",
            "20261322180005Z",
            "20260230180005Z",
            "20261122180061Z",
            "20261122180005.Z",
            "2026112218.5Z",
            "20261122180005+1",
            "20261122180005+01é",
            "20261122180005z",
            "+20261122180005Z",
            "20261122180005Zjunk",
        ] {
            assert_eq!(parse(text), Err(TimeError(text.to_owned())));
        }
    }
}
