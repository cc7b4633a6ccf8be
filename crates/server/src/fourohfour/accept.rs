//! Which form of a page a client wants, by its `Accept` field (RFC 9110 §12.5.1).

/// The forms of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
    Text,
}

/// The form that `accept` likes best. HTML when nothing is said, or nothing that we have is wanted.
pub(super) fn format(accept: Option<&str>) -> Format {
    let ranges: Vec<(&str, f32)> = accept.unwrap_or_default().split(',').map(range).collect();
    // The most exact range that fits gives the weight; of two equal weights the one more exactly asked for wins, so
    // that what names JSON and takes anything gets JSON.
    let liking = |exact: &str, group: &str| {
        let weight =
            |wanted: &str| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(wanted)).map(|(_, q)| *q);
        let fitting = [(exact, 2), (group, 1), ("*/*", 0)];
        let mut found = fitting.iter().filter_map(|(range, exactness)| Some((weight(range)?, *exactness)));
        found.next().filter(|(weight, _)| *weight > 0.0)
    };
    let forms = [
        (Format::Html, liking("text/html", "text/*")),
        (Format::Json, liking("application/json", "application/*")),
        (Format::Text, liking("text/plain", "text/*")),
    ];
    // Of equals the first is taken; nothing is less than anything.
    forms.into_iter().fold((Format::Html, None), |best, form| if form.1 > best.1 { form } else { best }).0
}

/// A media range and its weight.
fn range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
    (range, if (0.0..=1.0).contains(&weight) { weight } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_accept() {
        let cases = [
            (None, Format::Html),
            (Some(""), Format::Html),
            (Some("*/*"), Format::Html),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Format::Html),
            (Some("application/json"), Format::Json),
            (Some("application/json, text/plain, */*"), Format::Json),
            (Some("text/plain"), Format::Text),
            (Some("text/html;q=0.2, text/plain;q=0.8"), Format::Text),
            (Some("text/html; q=0, */*"), Format::Json),
            (Some("image/avif,image/webp"), Format::Html),
            (Some("application/json;q=NaN, text/plain;q=0.1"), Format::Text),
        ];
        for (accept, expected) in cases {
            assert_eq!(format(accept), expected, "{accept:?}");
        }
    }
}
