//! The suites: one module each, with a function that lists its tests.

mod audiences;
mod disturbances;
mod fidelity;
mod releases;
mod shop;
mod smoke;
mod switching;

use super::runner::Test;
use super::stories;

/// All tests of all suites.
pub(crate) fn all() -> anyhow::Result<Vec<Test>> {
    let suites = [
        smoke::tests(),
        stories::tests()?,
        releases::tests(),
        audiences::tests(),
        disturbances::tests(),
        switching::tests(),
        fidelity::tests(),
    ];
    Ok(suites.into_iter().flatten().collect())
}
