//! Metadata of every kind that tools write.
//!
//! A finalizer that no controller removes keeps its object, and with it the whole namespace, from going for ever. So
//! tools add none but the two that the garbage collector itself handles; pods have one more, in `pod`. The rest of
//! metadata is checked by the API server. What a chapter says of annotations stands in its own file.

use super::super::node::checked;
use super::super::{Field, Node, Rule};
use super::Section;

/// What a propagation policy of a deletion sets, and the garbage collector removes.
const COLLECTED: &[&str] = &["foregroundDeletion", "orphan"];

/// The field of metadata that is checked in every kind.
pub(super) const FINALIZERS: Field = checked("finalizers", Rule::Finalizer, Node::Added(COLLECTED));

/// Metadata of which nothing else is checked.
pub(super) const SECTION: Section = Section { at: &["metadata"], open: true, fields: &[FINALIZERS] };

/// A kind of which only the metadata is judged.
pub(super) const SECTIONS: &[Section] = &[SECTION];
