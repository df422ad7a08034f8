//! (tests of architecture)
