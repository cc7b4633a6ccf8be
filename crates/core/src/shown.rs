//! What somebody else wrote, as a sentence repeats it.

/// Longest part of a text that is repeated, in characters.
const LONGEST: usize = 100;

/// A text on one line, with what is invisible made visible, and no longer than is needed to find it.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(LONGEST) {
        match character {
            '\'' | '"' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_is_shown_is_one_line_and_not_long() {
        assert_eq!(shown("it's \"é\" \\ a"), "it's \"é\" \\ a");
        assert_eq!(shown("a\nb\0\u{202e}"), "a\\nb\\0\\u{202e}");
        assert_eq!(shown(&"a".repeat(101)), "a".repeat(100) + "…");
    }
}
