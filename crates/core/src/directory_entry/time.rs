//! Generalised time.
