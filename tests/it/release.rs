//! (tests of release)
