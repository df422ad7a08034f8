//! A route object as a list of rules, some of them a user's: which are divided, which are left alone, and what is given
//! back.
//!
//! In an object of ours the rules that we made stand where they stood, and every other rule is kept. In an object of a
//! user's the rules that lead to the apex Service are divided in place, and kept aside as they were. Order is kept
//! throughout, because the first rule that matches wins.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::routed::Refusal;
use crate::domain::{Object, Weights};

/// What the rules of one kind of route object look like.
pub(super) trait Rules {
    /// What a rule matches, as text.
    fn id(&self, rule: &Value) -> String;

    /// Whether a rule leads to the primary or the canary, as only ours do.
    fn is_ours(&self, rule: &Value) -> bool;

    /// Whether a rule leads to the apex Service alone.
    fn is_apex(&self, rule: &Value) -> bool;

    /// The rule that the canary asks for, without destinations.
    fn base(&self) -> Value;

    /// The rules that divide the requests of one rule; the first that matches wins.
    fn divide(&self, rule: &Value, weights: Weights) -> Vec<Value>;

    /// Where a rule leads, for people.
    fn leads_to(&self, rule: &Value) -> String;
}

/// A user's rules as they were, by what they match.
pub(super) type Originals = BTreeMap<String, Value>;

/// The originals that an object carries under an annotation.
pub(super) fn originals(rules: &impl Rules, live: &Object, annotation: &str) -> Originals {
    let list: Option<Vec<Value>> = live.annotation(annotation).and_then(|text| serde_json::from_str(text).ok());
    // Anybody may write an annotation.
    list.unwrap_or_default().into_iter().filter(Value::is_object).map(|rule| (rules.id(&rule), rule)).collect()
}

/// The rules of an object of ours.
pub(super) fn own(rules: &impl Rules, live: &[Value], weights: Weights) -> Vec<Value> {
    let place = live.iter().position(|rule| rules.is_ours(rule)).unwrap_or(0);
    let others = |part: &[Value]| part.iter().filter(|rule| !rules.is_ours(rule)).cloned().collect::<Vec<_>>();
    let (before, after) = live.split_at_checked(place).unwrap_or((live, &[]));
    [others(before), rules.divide(&rules.base(), weights), others(after)].concat()
}

/// The rules of a user's object, and those that are kept aside from now on.
///
/// # Errors
/// `Unusable` when no rule leads to the apex Service and one has the matches that ours needs.
pub(super) fn taken_over(
    rules: &impl Rules,
    live: &[Value],
    mut known: Originals,
    weights: Weights,
) -> Result<(Vec<Value>, Originals), Refusal> {
    let mut kept = Originals::new();
    let mut out = Vec::new();
    for rule in live {
        let id = rules.id(rule);
        if rules.is_apex(rule) {
            known.insert(id.clone(), rule.clone());
        } else if !rules.is_ours(rule) {
            out.push(rule.clone());
            continue;
        }
        // Rules that we made for some of the requests are made anew.
        if let Some((id, original)) = known.remove_entry(&id) {
            out.extend(rules.divide(&original, weights));
            kept.insert(id, original);
        }
    }
    if kept.is_empty() {
        let base = rules.base();
        if let Some(taken) = out.iter().find(|taken| rules.id(taken) == rules.id(&base)) {
            return Err(Refusal::Unusable(rules.leads_to(taken)));
        }
        out.splice(0..0, rules.divide(&base, weights));
    }
    Ok((out, kept))
}

/// A user's rules as they were; `None` when nothing of ours is among them. Those that the user added or changed meanwhile
/// stay as they are.
pub(super) fn given_back(rules: &impl Rules, live: &[Value], mut known: Originals) -> Option<Vec<Value>> {
    let mut changed = false;
    let mut out = Vec::new();
    for rule in live {
        if rules.is_ours(rule) {
            changed = true;
            out.extend(known.remove(&rules.id(rule)));
        } else {
            out.push(rule.clone());
        }
    }
    changed.then_some(out)
}

/// The canary's percent of two weights, however large somebody made them; `None` when both are 0.
pub(super) fn percent(primary: u64, canary: u64) -> Option<u8> {
    let (canary, total) = (u128::from(canary), u128::from(primary) + u128::from(canary));
    let percent = (100 * canary + total / 2).checked_div(total)?;
    Some(u8::try_from(percent).unwrap_or(100))
}

/// The array at a field; empty when there is none.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Writes a value below an object; what is in the way and is no object is replaced.
pub(super) fn put(mut place: &mut Value, path: &[&str], value: Value) {
    for field in path {
        if !place.is_object() {
            *place = json!({});
        }
        let Some(map) = place.as_object_mut() else { return };
        place = map.entry((*field).to_owned()).or_insert(Value::Null);
    }
    *place = value;
}

/// Every condition of an A/B test with every condition of the rule, both of which must hold.
pub(super) fn narrowed(wanted: &[Value], base: &[Value]) -> Vec<Value> {
    let everything = [json!({})];
    let base = if base.is_empty() { &everything } else { base };
    let pairs = wanted.iter().flat_map(|wanted| base.iter().map(move |base| (wanted, base)));
    pairs.map(|(wanted, base)| both(base, wanted)).collect()
}

/// Two conditions in one; what both say about the same thing, `more` decides.
fn both(base: &Value, more: &Value) -> Value {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            let mut made = base.clone();
            for (key, value) in more {
                let value = match (base.get(key), value) {
                    // Headers, query parameters and labels are maps from a name to its condition.
                    (Some(present @ Value::Object(_)), Value::Object(_)) => {
                        let mut present = present.clone();
                        if let (Some(map), Some(more)) = (present.as_object_mut(), value.as_object()) {
                            map.extend(more.clone());
                        }
                        present
                    }
                    _ => value.clone(),
                };
                made.insert(key.clone(), value);
            }
            Value::Object(made)
        }
        _ => more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percent_is_rounded_and_withstands_any_weight() {
        for (primary, canary, want) in [
            (0, 0, None),
            (2, 1, Some(33)),
            (1, 2, Some(67)),
            (0, 7, Some(100)),
            (u64::MAX, 0, Some(0)),
            (0, u64::MAX, Some(100)),
            (u64::MAX, u64::MAX, Some(50)),
        ] {
            assert_eq!(percent(primary, canary), want, "{primary}/{canary}");
        }
    }
}
