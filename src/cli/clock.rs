#![expect(clippy::disallowed_methods, reason = "shell: the one place that reads the system clock")]
//! The system clock as a port.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::ports::Clock;

/// Longest sleep before the wall clock is looked at again: it may have been set, or the machine may have slept.
const SLICE: Duration = Duration::from_secs(30);

/// Real time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        loop {
            let left = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(SLICE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_is_waited_for_and_a_past_one_is_not() {
        let clock = SystemClock;
        let soon = clock.now().checked_add(Duration::from_millis(5)).expect("a time");
        clock.sleep_until(soon).await;
        assert!(clock.now() >= soon);
        clock.sleep_until(Timestamp::UNIX_EPOCH).await;
        assert!(clock.now() < soon.checked_add(Duration::from_secs(20)).expect("a time"));
    }
}
