//! (tests of git)
