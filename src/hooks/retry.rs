//! How long to wait between attempts.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Longest pause, as go-retryablehttp has it.
const LONGEST: Duration = Duration::from_secs(30);

/// Pause after the given number of attempts: what the receiver asked for, else 1 s, 2 s, 4 s …; never above 30 s, so
/// that a receiver cannot hold up a rollout for a day.
pub(super) fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    let own = Duration::from_secs(1u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX).max(1));
    asked.unwrap_or(own).min(LONGEST)
}

/// Reads `Retry-After`: seconds, or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (1..=7).map(|attempts| pause(attempts, None).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(200, None).as_secs(), 30);
        assert_eq!(pause(1, Some(Duration::from_secs(7))).as_secs(), 7);
        assert_eq!(pause(1, Some(Duration::from_secs(700))).as_secs(), 30);
        assert_eq!(pause(3, Some(Duration::ZERO)).as_secs(), 0);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_second(1_445_412_480).expect("a time"); // Wed, 21 Oct 2015 07:28:00 GMT
        for (value, want) in [
            ("120", Some(120)),
            (" 3 ", Some(3)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now).map(|pause| pause.as_secs()), want, "{value}");
        }
    }
}
