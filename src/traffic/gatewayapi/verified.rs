//! Whether the implementation of the Gateway API has taken a HTTPRoute over, by `status.parents`.

use serde_json::Value;

use crate::domain::Object;
use crate::ports::Verified;
use crate::traffic::condition;

/// Conditions that a route in force has. `ResolvedRefs` is `False` when a Service is not there, and then its part of the
/// requests is answered with 500.
const CONDITIONS: [&str; 2] = ["Accepted", "ResolvedRefs"];

/// Looks at the entries of the route's own parents. A parent that nobody reports about tells nothing, as the Gateway may
/// not be there yet.
pub(super) fn verified(live: &Object) -> Verified {
    let list = |pointer: &str| live.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut answer = Verified::CannotTell;
    for parent in list("/spec/parentRefs") {
        let wanted = identity(parent, live);
        for entry in list("/status/parents") {
            if entry.get("parentRef").map(|reference| identity(reference, live)) != Some(wanted.clone()) {
                continue;
            }
            match of_entry(entry, live, &wanted.join("/")) {
                Verified::Yes => answer = Verified::Yes,
                Verified::CannotTell => {}
                no @ Verified::No(_) => return no,
            }
        }
    }
    answer
}

/// Kind, namespace, name, section and port of a parent, with the defaults of the API.
fn identity(reference: &Value, route: &Object) -> Vec<String> {
    let text = |field: &str| reference.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut parts = vec![
        text("kind").unwrap_or("Gateway").to_owned(),
        text("namespace").or(route.namespace()).unwrap_or_default().to_owned(),
        text("name").unwrap_or_default().to_owned(),
    ];
    parts.extend(text("sectionName").map(str::to_owned));
    parts.extend(reference.get("port").filter(|port| !port.is_null()).map(ToString::to_string));
    parts
}

fn of_entry(entry: &Value, live: &Object, parent: &str) -> Verified {
    let conditions = entry.get("conditions");
    let [accepted, resolved] = CONDITIONS.map(|name| condition::listed(live, parent, conditions, name));
    if matches!(resolved, Verified::No(_)) && !matches!(accepted, Verified::No(_)) { resolved } else { accepted }
}
