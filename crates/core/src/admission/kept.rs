//! What of an object is looked at, and so has to be kept when it is read.
//!
//! Most of an object may be anything: arguments, variables, probes' commands, its status. Of that it is enough to know
//! that it is there. The tables say which it is, so that reading an object costs little more than finding its end.

use super::fields::{Section, find};
use super::{Field, Node};

/// Fields of metadata that are looked at: by rules, by the sentence that names an object, and for its role.
const METADATA: &[&str] = &["annotations", "finalizers", "generateName", "labels", "name"];

/// Fields that hold a quantity, or a map of them.
const QUANTITIES: &[&str] = &["divisor", "limits", "overhead", "requests", "sizeLimit"];

/// What of a value is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// All of an object of the API but who manages its fields.
    Object,
    /// The same, of its metadata.
    Metadata,
    /// All of it.
    Whole,
    /// All of it, and texts are quantities. The API server sends `01` as it was written, but compares numbers when it
    /// looks whether something changed.
    Quantity,
    /// That it is there, or that it is null.
    Presence,
    /// Of an object, what lies on the way to these sections of it, or in them.
    Toward(Sections),
    /// Of metadata on that way, what is looked at.
    Named,
    /// Of an object, what these fields are judged by, and the field that it is named by.
    Fields(&'static [Field], &'static str),
    /// Of a list, of each object that.
    Each(&'static [Field], &'static str),
}

/// Sections of an object, and how far the way to them has been gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    all: &'static [Section],
    depth: usize,
    /// Which of them lie ahead, or here: one bit for each.
    ahead: u32,
}

impl Kept {
    /// What is kept of an object that is judged by these sections.
    pub(super) fn of_object(sections: &'static [Section]) -> Self {
        Self::Toward(Sections { all: sections, depth: 0, ahead: u32::MAX })
    }

    /// What is kept of a value that is judged by a node.
    fn of(node: &'static Node) -> Self {
        match node {
            Node::Any => Self::Presence,
            Node::Object(fields) | Node::Open(fields) => Self::Fields(fields, ""),
            Node::Each { key, node: Node::Object(fields) | Node::Open(fields), .. } => Self::Each(fields, key),
            _ => Self::Whole,
        }
    }

    /// What is kept of a field of an object.
    pub(super) fn field(self, name: &str) -> Self {
        match self {
            Self::Object if name == "metadata" => Self::Metadata,
            Self::Toward(_) if name == "metadata" => Self::Named,
            Self::Toward(sections) if sections.depth == 0 && name == "kind" => Self::Whole,
            Self::Toward(sections) => sections.field(name),
            Self::Named if METADATA.contains(&name) => Self::Whole,
            Self::Named | Self::Presence => Self::Presence,
            Self::Fields(_, key) if name == key => Self::Whole,
            Self::Fields(fields, _) => of_field(fields, name),
            Self::Quantity => Self::Quantity,
            Self::Object | Self::Metadata | Self::Whole | Self::Each(..) => match QUANTITIES.contains(&name) {
                true => Self::Quantity,
                false => Self::Whole,
            },
        }
    }

    /// A text as it is kept: of a quantity without a sign and zeros that say nothing.
    pub(super) fn text(self, text: &str) -> &str {
        let Self::Quantity = self else { return text };
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let trimmed = unsigned.trim_start_matches('0');
        match trimmed.starts_with(|first: char| first.is_ascii_digit()) {
            true => trimmed,
            // Its last zero is its number.
            false => unsigned.get((unsigned.len() - trimmed.len()).saturating_sub(1)..).unwrap_or(unsigned),
        }
    }

    /// What is kept of an entry of a list.
    pub(super) fn entry(self) -> Self {
        match self {
            Self::Each(fields, key) => Self::Fields(fields, key),
            _ => Self::Whole,
        }
    }
}

impl Sections {
    fn field(self, name: &str) -> Kept {
        let Self { all, depth, ahead } = self;
        let of_these = || (0_u32..).zip(all).filter(|(bit, _)| ahead & 1_u32.wrapping_shl(*bit) != 0);
        let further = of_these().filter(|(_, section)| section.at.get(depth).is_some_and(|step| *step == name));
        match further.fold(0, |bits, (bit, _)| bits | 1_u32.wrapping_shl(bit)) {
            0 => {
                let here = of_these().find(|(_, section)| section.at.len() == depth);
                here.map_or(Kept::Presence, |(_, section)| of_field(section.fields, name))
            }
            ahead => Kept::Toward(Self { all, depth: depth + 1, ahead }),
        }
    }
}

fn of_field(fields: &'static [Field], name: &str) -> Kept {
    find(fields, name).map_or(Kept::Presence, |field| Kept::of(&field.node))
}
