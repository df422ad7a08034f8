//! The suites: one module each, with a function that lists its tests.

mod disturbances;
mod fidelity;
mod releases;
mod shop;
mod smoke;

use super::runner::Test;

/// All tests of all suites.
pub(crate) fn all() -> Vec<Test> {
    [smoke::tests(), releases::tests(), disturbances::tests(), fidelity::tests()].into_iter().flatten().collect()
}
