//! Durations and numbers as Go reads and prints them, because Flagger's manifests and messages use both.
//!
//! Source: Go `time.ParseDuration`, `time.Duration.String` and `strconv.FormatFloat(v, 'g', -1, 64)` as `%v` uses it.

use std::time::Duration;

/// Parses a Go duration such as `1m30s`, `500ms` or `1h`. `None` when Go would refuse it, or when it is negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest.get(..end)?.parse().ok()?;
        rest = rest.get(end..)?;
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match rest.get(..end)? {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = rest.get(end..)?;
        nanos += number * unit;
    }
    (nanos <= i64::MAX as f64).then(|| Duration::from_nanos(nanos as u64))
}

/// Prints a duration as Go does: `1.515s`, `500ms`, `1m30s`, `1h0m0s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |unit: u128, name: &str| format!("{}{name}", format_float(nanos as f64 / unit as f64));
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let seconds = (nanos % 60_000_000_000) as f64 / 1e9;
            let minutes = nanos / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{}s", format_float(seconds)),
                (0, minutes) => format!("{minutes}m{}s", format_float(seconds)),
                (hours, minutes) => format!("{hours}h{minutes}m{}s", format_float(seconds)),
            }
        }
    }
}

/// Prints a float as Go's `%v`: the shortest text that reads back, in exponent form below 1e-4 and from 1e6 on.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

/// Reads a Kubernetes quantity (`1500m`, `2Ki`, `1e3`) as a number.
///
/// Source: `k8s.io/apimachinery/pkg/api/resource`.
pub fn parse_quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 16] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let text = text.trim();
    let digit = |number: &str| number.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number = text.strip_suffix(suffix).filter(|number| digit(number))?;
        number.parse::<f64>().ok().map(|number| number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        for (text, want) in [
            ("1500m", Some(1.5)),
            ("2Ki", Some(2048.0)),
            ("-3", Some(-3.0)),
            ("1e3", Some(1000.0)),
            ("1.5G", Some(1.5e9)),
            ("2E", Some(2e18)),
            ("m", None),
            ("NaN", None),
            ("1x", None),
        ] {
            assert_eq!(parse_quantity(text), want, "{text}");
        }
    }

    #[test]
    fn durations_read_as_go_reads_them() {
        let millis = |text| parse_duration(text).map(|d| d.as_millis());
        for (text, want) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("", None),
            ("10", None),
            ("10mfoo", None),
            ("s", None),
            ("-1s", None),
        ] {
            assert_eq!(millis(text), want, "{text}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (millis, want) in [(1515, "1.515s"), (500, "500ms"), (90_000, "1m30s"), (3_600_000, "1h0m0s"), (0, "0s")] {
            assert_eq!(format_duration(Duration::from_millis(millis)), want);
        }
        assert_eq!(format_duration(Duration::from_nanos(1500)), "1.5µs");
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, want) in [
            (99.0, "99"),
            (99.5, "99.5"),
            (0.00001, "1e-05"),
            (1e6, "1e+06"),
            (123_456.7, "123456.7"),
            (0.0, "0"),
            (123_456_789.0, "1.23456789e+08"),
        ] {
            assert_eq!(format_float(value), want);
        }
    }
}
