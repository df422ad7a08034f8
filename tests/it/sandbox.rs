//! (tests of sandbox)
