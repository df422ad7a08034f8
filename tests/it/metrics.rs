//! (tests of metrics)
