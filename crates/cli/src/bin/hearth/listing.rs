//! How the commands that show things write them: aligned text for people, JSON for programs.
//!
//! What comes from the directory may have been written by anybody, so characters that a terminal would act on
//! are never printed.

use std::io::{ErrorKind, Write};

use anyhow::Result;
use clap::ValueEnum;
use hearth_core::directory_entry::Refused;

/// In which form a command shows what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned text.
    #[default]
    Text,
    /// One JSON document, whose fields stay as they are.
    Json,
}

/// Writes text to the standard output. A reader that went away is no mistake of ours.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes a JSON document to the standard output.
pub(crate) fn print_json(document: &serde_json::Value) -> Result<()> {
    print(&format!("{document:#}\n"))
}

/// Rows as columns of equal width, two spaces apart. The first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, at: usize| row.get(at).map(|text| printable(text)).unwrap_or_default();
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().map(|row| cell(row, at).chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, width) in widths.iter().enumerate() {
            line.push_str(&format!("{:width$}  ", cell(row, at)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Indented lines, each a label and what it stands for.
pub(crate) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    rows.iter().map(|(label, value)| format!("  {label:width$}  {}\n", printable(value))).collect()
}

/// The text without the characters that a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Entries that could not be used, as text to stand below a list; empty when there are none.
pub(crate) fn refusals(refused: &[Refused]) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let lines = refused.iter().map(|r| format!("  {}\n    {}\n", printable(&r.dn), printable(&r.reason.to_string())));
    format!("\nThese entries of the directory cannot be used:\n{}", lines.collect::<String>())
}

/// The same for programs.
pub(crate) fn refusals_json(refused: &[Refused]) -> Vec<serde_json::Value> {
    let one = |r: &Refused| serde_json::json!({"dn": r.dn, "tool": r.tool, "reason": r.reason.to_string()});
    refused.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["NAME", "STATE"]), row(["wikibot", ""]), row(["é", "a\u{1b}[2J"])]);
        assert_eq!(text, "NAME     STATE\nwikibot\né        a\u{fffd}[2J\n");
        assert_eq!(fields(&[("a", "1".into()), ("bcd", "2".into())]), "  a    1\n  bcd  2\n");
    }
}
