//! The simulated clock, and a bed to run the real daemon on: sandbox cluster, bare repository, local forge. A day of a
//! canary takes milliseconds, the same on every run.

pub mod bed;
pub mod clock;
pub mod effects;
pub mod example;
pub mod person;

pub use bed::{Bed, BedError, BedOptions};
pub use clock::{Pace, SimClock};
pub use effects::{Effects, Stop};
