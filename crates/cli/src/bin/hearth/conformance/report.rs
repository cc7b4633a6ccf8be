//! What was found, for people and for programs.

use clap::ValueEnum;
use serde_json::json;

use super::outcome::Outcome;
use crate::listing::{printable, table};

/// In which form the answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned text.
    #[default]
    Table,
    /// One JSON document, whose fields stay as they are.
    Json,
}

/// What became of an attempt.
pub struct Finding {
    /// The chapter.
    pub chapter: &'static str,
    /// The attempt's name.
    pub name: String,
    /// Why a tenant must not be able to.
    pub why: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The whole answer.
pub fn write(output: Output, legal: &[(&'static str, Outcome)], findings: &[Finding]) -> String {
    let count = |name: &str| findings.iter().filter(|finding| finding.outcome.name() == name).count();
    let (possible, refused, unclear) = (count("possible"), count("refused"), count("inconclusive"));
    if output == Output::Json {
        let legal = legal.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.json()));
        let attempts = findings.iter().map(|finding| {
            let Finding { chapter, name, why, outcome } = finding;
            json!({ "chapter": chapter, "name": name, "why": why, "outcome": outcome.json() })
        });
        let document = json!({
            "legal": legal.collect::<serde_json::Map<_, _>>(),
            "attempts": attempts.collect::<Vec<_>>(),
            "possible": possible, "refused": refused, "inconclusive": unclear,
        });
        return format!("{document:#}\n");
    }
    let mut rows = vec![["CHAPTER", "ATTEMPT", "RESULT", "BECAUSE"].map(str::to_owned).to_vec()];
    rows.extend(findings.iter().map(|finding| {
        let outcome = &finding.outcome;
        vec![finding.chapter.to_owned(), finding.name.clone(), outcome.name().to_owned(), outcome.because()]
    }));
    let mut text = table(&rows);
    let lacking: Vec<&str> =
        legal.iter().filter(|(_, legal)| *legal != Outcome::Possible).map(|(name, _)| *name).collect();
    if !lacking.is_empty() {
        text.push_str(&format!("\nNot possible here in its legal form either: {}.\n", lacking.join(", ")));
    }
    text.push_str(&format!("\n{possible} possible, {refused} refused, {unclear} inconclusive\n"));
    let mut open = findings.iter().filter(|finding| finding.outcome == Outcome::Possible).peekable();
    if open.peek().is_some() {
        text.push_str("\nPossible, though it must not be:\n");
        open.for_each(|finding| text.push_str(&format!("  {}: {}\n", finding.name, printable(&finding.why))));
    }
    text
}
