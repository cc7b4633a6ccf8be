//! Names that a visitor may have meant.

use hearth_core::ToolName;

/// How many names are suggested.
const MOST: usize = 3;

/// The existing names that differ from `wanted` by a slip or two of the finger, the likeliest first.
pub(super) fn suggest<'a>(wanted: &ToolName, names: impl Iterator<Item = &'a ToolName>) -> Vec<ToolName> {
    let wanted = wanted.as_str().as_bytes();
    // In a short name two slips make any other short name.
    let farthest = if wanted.len() <= 4 { 1 } else { 2 };
    let mut near: Vec<(usize, &ToolName)> = names
        .filter(|name| name.as_str().len().abs_diff(wanted.len()) <= farthest)
        .map(|name| (distance(wanted, name.as_str().as_bytes()), name))
        .filter(|(distance, _)| *distance <= farthest)
        .collect();
    near.sort();
    near.into_iter().take(MOST).map(|(_, name)| name.clone()).collect()
}

/// How many insertions, deletions, substitutions and swaps of neighbours make `one` into `two` (optimal string
/// alignment).
fn distance(one: &[u8], two: &[u8]) -> usize {
    let width = two.len() + 1;
    let mut before_last: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    let mut previous = None;
    for (row, a) in one.iter().enumerate() {
        let mut current = Vec::with_capacity(width);
        current.push(row + 1);
        for (column, b) in two.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX - 1);
            let substituted = at(&last, column) + usize::from(a != b);
            let mut least = substituted.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let swapped = column.checked_sub(1).filter(|left| previous == Some(b) && two.get(*left) == Some(a));
            if let Some(left) = swapped {
                least = least.min(at(&before_last, left) + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(a);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, two, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("wikibot", "wikibot", 0),
            ("wikibot", "wikibto", 1),
            ("wikibot", "wikiot", 1),
            ("wikibot", "wikkibot", 1),
            ("wikibot", "wokibat", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one.as_bytes(), two.as_bytes()), expected, "{one} {two}");
            assert_eq!(distance(two.as_bytes(), one.as_bytes()), expected, "{two} {one}");
        }
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names: Vec<ToolName> =
            ["hello", "help", "wikibot", "wikibots", "wikibt", "wikibit"].iter().map(|n| n.parse().unwrap()).collect();
        let suggested = |wanted: &str| {
            let found = suggest(&wanted.parse().unwrap(), names.iter());
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(suggested("wikibto"), "wikibot wikibt wikibit");
        assert_eq!(suggested("hallo"), "hello");
        assert_eq!(suggested("hexx"), "");
        assert_eq!(suggested("unrelated"), "");
    }
}
