//! Time as a port: production reads the system clock, the sandbox jumps.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use jiff::Timestamp;

/// The only source of time and timers of the daemon.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Returns at `deadline`, at once when it has passed.
    async fn sleep_until(&self, deadline: Timestamp);

    /// Marks a call to the outside (git, HTTP, API) as under way until the guard is dropped. A simulated clock stands
    /// still meanwhile; the system clock does not care.
    fn in_flight(&self) -> InFlight {
        InFlight(None)
    }
}

/// Guard of [`Clock::in_flight`]: runs the given function when it is dropped.
#[must_use]
pub struct InFlight(pub Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done();
        }
    }
}

/// The time given to [`timeout`] has passed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no answer within {}", crate::domain::format_duration(*.0))]
pub struct Elapsed(pub Duration);

/// Waits for `work`, but not longer than `limit` by `clock`.
///
/// # Errors
/// [`Elapsed`] when the limit passed first; the work is dropped.
pub async fn timeout<T>(clock: &dyn Clock, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    let deadline = clock.now().checked_add(limit).unwrap_or(Timestamp::MAX);
    match select(pin!(work), clock.sleep_until(deadline)).await {
        Either::Left((value, _)) => Ok(value),
        Either::Right(((), _)) => Err(Elapsed(limit)),
    }
}
