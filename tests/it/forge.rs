//! (tests of forge)
