//! (tests of plan)
