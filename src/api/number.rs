//! Numbers as users write them: the CRD says `number` where the program means an integer.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// 2^53: every whole number up to here is exact in a float.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// Reads an optional integer from any JSON number with a whole value (`5`, `5.0`).
///
/// # Errors
/// A fraction, or a value outside `i64`, is refused with a message that names the value.
pub fn optional_int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<f64>::deserialize(deserializer)?.map(whole).transpose()
}

/// Reads an integer as [`optional_int`] does.
///
/// # Errors
/// As [`optional_int`].
pub fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    whole(f64::deserialize(deserializer)?)
}

/// Reads a list of integers as [`optional_int`] does.
///
/// # Errors
/// As [`optional_int`].
pub fn ints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    Option::<Vec<f64>>::deserialize(deserializer)?.unwrap_or_default().into_iter().map(whole).collect()
}

fn whole<E: de::Error>(value: f64) -> Result<i64, E> {
    if value.fract() == 0.0 && value.abs() <= LARGEST {
        Ok(value as i64)
    } else {
        Err(E::custom(format!("{value} is not a whole number")))
    }
}

/// Cuts the fractions off in a part of a Canary that holds whole numbers alone, and notes each as `PATH 5.5 (taken for 5)`:
/// the API server admits them, and a run must not stop for one. Less is the careful side of a weight and of a threshold.
pub(super) fn cut(part: &mut Value, path: &str, noted: &mut Vec<String>) {
    match part {
        Value::Object(map) => map.iter_mut().for_each(|(key, part)| match key.as_str() {
            // Ranges of metrics are fractions, and matches belong to the providers.
            "metrics" | "match" => {}
            _ => cut(part, &format!("{path}.{key}"), noted),
        }),
        Value::Array(items) => {
            items.iter_mut().enumerate().for_each(|(index, item)| cut(item, &format!("{path}[{index}]"), noted));
        }
        Value::Number(number) => {
            let Some(value) = number.as_f64() else { return };
            if value.fract() != 0.0 || value.abs() > LARGEST {
                let whole = value.trunc().clamp(-LARGEST, LARGEST) as i64;
                noted.push(format!("{path} {value} (taken for {whole})"));
                *part = whole.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::canary::CanaryView;
    use crate::domain::Object;

    #[test]
    fn what_the_crd_takes_for_a_number_is_read_and_told() {
        let object = Object(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "progressDeadlineSeconds": 60.9,
                "service": {"port": 80.0},
                "analysis": {
                    "threshold": 5.5, "stepWeights": [10, 20.5], "maxWeight": 1e300,
                    "metrics": [{"name": "errors", "thresholdRange": {"max": 0.5}}],
                    "webhooks": [{"name": "gate", "url": "http://x", "retries": 1.5}],
                    "sessionAffinity": {"cookieName": "c", "maxAge": 0.5},
                },
            },
            "status": {"phase": "Progressing", "canaryWeight": 50.5},
        }));
        let refused = CanaryView::exact(&object).unwrap_err();
        assert!(refused.ends_with("is not a whole number"), "{refused}");
        let canary = CanaryView::from_object(&object).unwrap();
        let analysis = canary.spec.analysis().unwrap();
        assert_eq!((analysis.threshold, analysis.step_weights.as_slice()), (5, [10, 20].as_slice()));
        assert_eq!(analysis.max_weight, 9_007_199_254_740_992);
        assert_eq!(analysis.metrics[0].threshold_range.as_ref().unwrap().max, Some(0.5), "a range may be a fraction");
        assert_eq!((canary.spec.progress_deadline_seconds, canary.status.canary_weight), (Some(60), 50));
        assert_eq!(canary.cut.len(), 7, "{:?}", canary.cut);
        assert!(
            canary.cut.contains(&"spec.analysis.stepWeights[1] 20.5 (taken for 20)".to_owned()),
            "{:?}",
            canary.cut
        );
    }
}
