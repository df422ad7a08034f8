//! Random numbers as a function of what they are about, so that they do not depend on when they are asked for.

use super::super::workloads::Behaviour;

/// Upper bounds of the buckets, in milliseconds: Envoy's own; those of Go's default histogram are among them.
pub(super) const BOUNDS: [f64; 19] =
    [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6];

/// A stream of random numbers (SplitMix64).
pub(super) struct Draw(u64);

impl Draw {
    /// The stream that belongs to a seed and what it is about.
    pub(super) fn about(seed: u64, parts: [u64; 3]) -> Self {
        let mut draw = Self(seed);
        for part in parts {
            let mixed = draw.next();
            draw.0 = mixed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        draw
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly between 0 and 1, never 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// How many requests arrive when `mean` are expected.
    pub(super) fn poisson(&mut self, mean: f64) -> u32 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u32;
        }
        let mut chance = (-mean).exp();
        let mut rest = self.unit();
        let mut count = 0;
        while rest > chance && count < 200 {
            rest -= chance;
            count += 1;
            chance *= mean / f64::from(count);
        }
        count
    }

    /// How many of `n` are hit when each is with probability `p`.
    pub(super) fn binomial(&mut self, n: u32, p: f64) -> u32 {
        if p <= 0.0 || n == 0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let mean = f64::from(n) * p;
        if mean > 30.0 {
            let value = mean + (mean * (1.0 - p)).sqrt() * self.normal();
            return value.round().clamp(0.0, f64::from(n)) as u32;
        }
        let odds = p / (1.0 - p);
        let mut chance = (1.0 - p).powi(i32::try_from(n).unwrap_or(i32::MAX));
        let mut rest = self.unit();
        let mut count = 0;
        while rest > chance && count < n {
            rest -= chance;
            count += 1;
            chance *= odds * f64::from(n - count + 1) / f64::from(count);
        }
        count
    }
}

/// Buckets that a behaviour's response times fall into, each with the probability for those that fell into none before.
pub(super) fn buckets(behaviour: &Behaviour) -> Vec<(u8, f64)> {
    let low = (behaviour.latency - behaviour.spread).max(0.0);
    let high = behaviour.latency + behaviour.spread;
    let below = |bound: f64| {
        if high > low { ((bound - low) / (high - low)).clamp(0.0, 1.0) } else { f64::from(u8::from(bound >= low)) }
    };
    let mut before = 0.0;
    let mut found = Vec::new();
    for (bound, index) in BOUNDS.into_iter().chain([f64::INFINITY]).zip(0u8..) {
        let until = if bound.is_infinite() { 1.0 } else { below(bound) };
        if until > before {
            found.push((index, (until - before) / (1.0 - before)));
        }
        before = until;
        if before >= 1.0 {
            break;
        }
    }
    found
}

/// A number for a text (FNV-1a).
pub(super) fn number_of(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(draw: impl Fn(&mut Draw) -> u32) -> (f64, f64) {
        let values: Vec<f64> = (0..20_000).map(|n| f64::from(draw(&mut Draw::about(7, [1, 2, n])))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn draws_have_the_right_mean_and_variance() {
        for mean in [0.2, 3.0, 29.0, 400.0] {
            let (got, variance) = moments(|draw| draw.poisson(mean));
            assert!(
                (got / mean - 1.0).abs() < 0.03 && (variance / mean - 1.0).abs() < 0.05,
                "{mean}: {got} {variance}"
            );
        }
        for (n, p) in [(10, 0.08), (1000, 0.01), (1000, 0.4), (50, 0.9)] {
            let mean = f64::from(n) * p;
            let (got, variance) = moments(|draw| draw.binomial(n, p));
            let want = mean * (1.0 - p);
            assert!(
                (got / mean - 1.0).abs() < 0.03 && (variance / want - 1.0).abs() < 0.05,
                "{n} {p}: {got} {variance}"
            );
        }
        assert_eq!(Draw::about(1, [0; 3]).poisson(0.0), 0);
        assert_eq!(Draw::about(1, [0; 3]).binomial(9, 1.0), 9);
    }

    #[test]
    fn response_times_fall_into_their_buckets() {
        let of = |text: &str| buckets(&Behaviour::default().with(text).unwrap());
        assert_eq!(of("latency=120ms±40"), [(6, 0.25), (7, 1.0)]);
        assert_eq!(of("latency=20ms±5"), [(4, 1.0)]);
        assert_eq!(of("latency=100ms"), [(6, 1.0)]);
        assert_eq!(of("latency=2h"), [(19, 1.0)]);
    }
}
