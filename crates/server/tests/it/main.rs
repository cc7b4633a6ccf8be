//! The roles in process, against fakes of the wire.

mod admission;
