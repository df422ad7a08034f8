//! The suites: one module each, with a function that lists its tests.

mod disturbances;
mod fidelity;
mod releases;
mod shop;
mod smoke;
mod switching;

use super::runner::Test;

/// All tests of all suites.
pub(crate) fn all() -> Vec<Test> {
    let suites = [smoke::tests(), releases::tests(), disturbances::tests(), switching::tests(), fidelity::tests()];
    suites.into_iter().flatten().collect()
}
