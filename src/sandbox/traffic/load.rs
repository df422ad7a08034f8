//! How many requests come in, over time.

use jiff::Timestamp;

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// Requests that come in for one app.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Namespace of the app.
    pub namespace: String,
    /// Name of the Service that users address (the apex), and of the route object in front of it where there is one. A
    /// load tester that addresses the canary's Service directly is a load of its own.
    pub app: String,
    /// Requests per second from a time on, in order of time; none before the first.
    pub steps: Vec<(Timestamp, f64)>,
    /// Factor for each hour of the day (UTC).
    pub day: [f64; 24],
    /// Share of the users, 0 to 1, who match the conditions of an A/B route.
    pub matching: f64,
}

impl Load {
    /// A constant load from `from` on, whose users match no A/B condition.
    pub fn constant(namespace: &str, app: &str, from: Timestamp, requests_per_second: f64) -> Self {
        Self {
            namespace: namespace.to_owned(),
            app: app.to_owned(),
            steps: vec![(from, requests_per_second)],
            day: [1.0; 24],
            matching: 0.0,
        }
    }

    /// Requests per second at a time, in milliseconds since the epoch.
    pub(super) fn rate(&self, at: i64) -> f64 {
        let after = self.steps.partition_point(|(from, _)| from.as_millisecond() <= at);
        let step = after.checked_sub(1).and_then(|index| self.steps.get(index)).map_or(0.0, |(_, rate)| *rate);
        let hour = usize::try_from(at.div_euclid(HOUR).rem_euclid(24)).unwrap_or(0);
        (step * self.day.get(hour).copied().unwrap_or(1.0)).max(0.0)
    }

    /// Requests expected between two times.
    pub(super) fn expected(&self, from: i64, to: i64) -> f64 {
        let mut total = 0.0;
        let mut at = from;
        let first = self.steps.partition_point(|(step, _)| step.as_millisecond() <= from);
        let mut steps = self.steps.iter().skip(first).map(|(step, _)| step.as_millisecond()).peekable();
        let flat = self.day == [1.0; 24];
        while at < to {
            let hour = if flat { i64::MAX } else { (at.div_euclid(HOUR) + 1) * HOUR };
            let step = steps.peek().copied().unwrap_or(i64::MAX);
            let end = to.min(hour).min(step);
            if end == step {
                steps.next();
            }
            total += self.rate(at) * (end - at) as f64 / 1000.0;
            at = end;
        }
        total
    }

    /// Takes over the load of `next`; what was said about earlier times stays.
    pub(super) fn replace(&mut self, next: Self) {
        let from = next.steps.first().map_or(Timestamp::MAX, |(from, _)| *from);
        let mut steps = std::mem::take(&mut self.steps);
        steps.retain(|(step, _)| *step < from);
        steps.extend(next.steps.iter().copied());
        *self = Self { steps, ..next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_number_follows_steps_and_hours() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut load = Load::constant("t", "web", at(100), 10.0);
        load.steps.extend([(at(200), 0.0), (at(300), 5.0)]);
        for (from, to, want) in
            [(0, 100, 0.0), (0, 150, 500.0), (150, 250, 500.0), (200, 300, 0.0), (0, 400, 1500.0), (199, 301, 15.0)]
        {
            assert_eq!(load.expected(from * 1000, to * 1000), want, "{from}..{to}");
        }
        load.day[0] = 0.5;
        assert_eq!(load.expected(3500 * 1000, 3700 * 1000), 250.0 + 500.0);
        load.replace(Load::constant("t", "web", at(250), 7.0));
        assert_eq!(load.expected(150 * 1000, 260 * 1000), 500.0 + 70.0);
    }
}
