//! Checks of what stands in the query: `CreateOptions`, `PatchOptions`, `ListOptions` and their like.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::{ApiError, Problem};

/// Refuses options that mean nothing.
///
/// # Errors
/// 422 with a cause per option, or 400.
pub(crate) fn check(verb: &str, query: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let param = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let kind = match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" | "apply" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        "list" | "watch" => "ListOptions",
        _ => return Ok(()),
    };
    let mut problems = vec![];
    let mut one_of = |name: &str, shown: Value, known: &[&str]| {
        if !param(name).is_empty() && !known.contains(&param(name)) {
            let known: Vec<Value> = known.iter().map(|k| Value::from(*k)).collect();
            problems.push(Problem::unsupported(name, &shown, &known));
        }
    };
    one_of("dryRun", Value::from(vec![param("dryRun")]), &["All"]);
    match kind {
        "ListOptions" => {
            problems.extend(list(verb == "watch", &param));
        }
        "DeleteOptions" => {
            one_of(
                "propagationPolicy",
                param("propagationPolicy").into(),
                &["Foreground", "Background", "Orphan", "nil"],
            );
        }
        _ => one_of("fieldValidation", param("fieldValidation").into(), &["", "Ignore", "Strict", "Warn"]),
    }
    if !problems.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", kind, "", &problems));
    }
    for number in ["limit", "timeoutSeconds"] {
        if !param(number).is_empty() && param(number).parse::<i64>().is_err() {
            let message = format!("strconv.ParseInt: parsing {:?}: invalid syntax", param(number));
            return Err(ApiError::bad_request(message));
        }
    }
    if kind == "ListOptions" && !param("continue").is_empty() && !matches!(param("resourceVersion"), "" | "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

/// Source: `ValidateListOptions` in `apimachinery/pkg/apis/internalversion/validation`.
fn list<'a>(watch: bool, param: &dyn Fn(&str) -> &'a str) -> Vec<Problem> {
    let initial = !param("sendInitialEvents").is_empty();
    let (matching, revision) = (param("resourceVersionMatch"), param("resourceVersion"));
    let forbidden = |field: &str, why: &str| Problem {
        field: field.to_owned(),
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
    };
    let mut problems = vec![];
    if watch {
        if initial && matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            problems.push(forbidden("resourceVersionMatch", why));
        } else if !initial && !matching.is_empty() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            problems.push(forbidden("resourceVersionMatch", why));
        }
        return problems;
    }
    if !matching.is_empty() {
        if revision.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            problems.push(forbidden("resourceVersionMatch", why));
        }
        if matching == "Exact" && revision == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            problems.push(forbidden("resourceVersionMatch", why));
        }
    }
    if initial {
        problems.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    problems
}

/// A resourceVersion in a query; none is 0.
///
/// # Errors
/// 400 when it is no number.
pub(crate) fn revision(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}
