//! What a condition of a status says about the object as it is now.

use serde_json::Value;

use crate::domain::Object;
use crate::ports::Verified;

/// Reads the condition `name` of an object.
pub(super) fn verified(live: &Object, name: &str) -> Verified {
    listed(live, &format!("{} {}", live.gvk().kind, live.name()), live.at("/status/conditions"), name)
}

/// Reads the condition `name` of a list, in words that name it and `subject`. One that is about an older generation says
/// no; where it does not tell which one it is about (Kubernetes API conventions, "Typical status properties"), the status
/// as a whole may.
pub(super) fn listed(live: &Object, subject: &str, conditions: Option<&Value>, name: &str) -> Verified {
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let Some(condition) = conditions.find(|condition| text(condition, "type") == name) else {
        return Verified::CannotTell;
    };
    let observed = condition.get("observedGeneration").or_else(|| live.at("/status/observedGeneration"));
    // A number, or a string as protocol buffers write 64 bits.
    let observed = observed.and_then(|seen| seen.as_i64().or_else(|| seen.as_str()?.parse().ok()));
    if observed.is_some_and(|observed| observed < live.generation()) {
        let generation = live.generation();
        return Verified::No(format!("{subject}: condition {name} is not about generation {generation} yet"));
    }
    match text(condition, "status") {
        "True" => Verified::Yes,
        status => Verified::No(format!("{subject}: condition {name} is {status}{}", words(condition))),
    }
}

/// Reason and message, those of the single errors where there are some (Contour, `DetailedCondition`).
fn words(condition: &Value) -> String {
    let of = |value: &Value| {
        let words = ["reason", "message"].map(|field| text(value, field).to_owned());
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": ")
    };
    let errors = condition.get("errors").and_then(Value::as_array).filter(|errors| !errors.is_empty());
    let words = errors.map_or_else(|| of(condition), |errors| errors.iter().map(of).collect::<Vec<_>>().join("; "));
    if words.is_empty() { words } else { format!(": {words}") }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_counts_for_the_generation_that_it_is_about() {
        let read = |condition: Value, whole: Value| {
            let live = Object(
                json!({"kind": "Route", "metadata": {"name": "web", "generation": 3}, "status": {"observedGeneration": whole, "conditions": [
                {"type": "Other", "status": "False"}, condition]}}),
            );
            verified(&live, "Ready")
        };
        let no = |words: &str| Verified::No(format!("Route web: condition Ready is {words}"));
        let ready = |status: &str, observed: Value| json!({"type": "Ready", "status": status, "observedGeneration": observed, "reason": "Why", "message": "so"});
        for (condition, whole, want) in [
            (json!({}), Value::Null, Verified::CannotTell),
            (json!({"type": "Ready", "status": "True"}), Value::Null, Verified::Yes),
            (ready("True", json!(3)), json!(2), Verified::Yes),
            (ready("True", json!(2)), json!(3), no("not about generation 3 yet")),
            (json!({"type": "Ready", "status": "True"}), json!("2"), no("not about generation 3 yet")),
            (json!({"type": "Ready", "status": "True"}), json!("3"), Verified::Yes),
            (ready("False", json!(3)), Value::Null, no("False: Why: so")),
            (json!({"type": "Ready", "status": "Unknown"}), Value::Null, no("Unknown")),
            (
                json!({"type": "Ready", "status": "False", "message": "all", "errors": []}),
                Value::Null,
                no("False: all"),
            ),
            (
                json!({"type": "Ready", "status": "False", "message": "all", "errors": [
                    {"reason": "A", "message": "a"}, {"message": "b"}]}),
                Value::Null,
                no("False: A: a; b"),
            ),
        ] {
            assert_eq!(read(condition.clone(), whole), want, "{condition}");
        }
    }
}
