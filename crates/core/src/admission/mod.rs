//! The rulebook: what tools may do in the cluster.
