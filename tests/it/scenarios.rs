//! (tests of scenarios)
