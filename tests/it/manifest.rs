//! (tests of manifest)
