//! (tests of hooks)
