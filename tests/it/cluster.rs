//! (tests of cluster)
