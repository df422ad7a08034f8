//! Knative Services: the revision that is primary, and the traffic between it and the latest one.
//!
//! Source: Flagger `pkg/canary/knative_controller.go`, `pkg/router/knative.go`; Knative Serving's API
//! (`serving.knative.dev/v1`).

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::domain::{Object, Weights};

/// Annotation of the Service that names the revision which users have.
pub const PRIMARY_REVISION: &str = "flagger.app/primary-revision";
/// Annotation that keeps what users had before a promotion: revision and version.
pub const FORMER_REVISION: &str = "serin.dev/former-revision";
/// What the engine notes on a Knative Service besides the primary revision.
const NOTES: [&str; 2] = ["serin.dev/version", FORMER_REVISION];

/// The revision that users have, when it was decided.
pub fn primary_revision(service: &Object) -> Option<&str> {
    service.annotation(PRIMARY_REVISION).filter(|name| !name.is_empty())
}

/// The revision that Knative made of the Service's present template.
pub fn latest_revision(service: &Object) -> Option<&str> {
    Some(service.str("/status/latestCreatedRevisionName")).filter(|name| !name.is_empty())
}

/// Whether the status tells about the present spec. A status that does not say which generation it is about is believed.
pub fn is_observed(service: &Object) -> bool {
    service.int("/status/observedGeneration").is_none_or(|observed| observed >= service.generation())
}

/// What a release consists of: the template. Flagger goes by the name of the latest revision, which appears some time
/// after the template and so cannot be matched with what was applied; it counts only where the status does not say which
/// generation it is about.
pub fn content(service: &Object) -> Option<Cow<'_, Value>> {
    match (service.int("/status/observedGeneration"), latest_revision(service)) {
        (None, Some(revision)) => Some(Cow::Owned(json!({"revision": revision}))),
        _ => service.at("/spec/template").map(Cow::Borrowed),
    }
}

/// Whether a revision can serve.
pub fn is_ready(revision: &Object) -> bool {
    let observed = revision.int("/status/observedGeneration").is_none_or(|observed| observed >= revision.generation());
    let conditions = revision.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is = |condition: &Value, field: &str, value: &str| condition.get(field).and_then(Value::as_str) == Some(value);
    observed && conditions.into_iter().any(|c| is(c, "type", "Ready") && is(c, "status", "True"))
}

/// `spec.traffic`: the latest revision as canary, the primary revision by name. Entries of the user's that carry a tag
/// and no traffic stay.
pub fn traffic(service: &Object, primary: &str, weights: Weights) -> Value {
    let mut entries = vec![
        json!({"latestRevision": true, "percent": weights.canary}),
        json!({"percent": weights.primary, "revisionName": primary}),
    ];
    let idle = |entry: &&Value| entry.get("percent").and_then(Value::as_i64).unwrap_or(0) == 0;
    entries
        .extend(list(service, "/spec/traffic").iter().filter(|entry| entry.get("tag").is_some()).filter(idle).cloned());
    Value::Array(entries)
}

/// The weights that `spec.traffic` asks for, and the revision that it has as primary; `None` when it is not divided by
/// us.
pub fn weights(service: &Object) -> Option<(Weights, &str)> {
    let entries = list(service, "/spec/traffic");
    let percent = |entry: &Value| entry.get("percent").and_then(Value::as_u64).and_then(|p| u8::try_from(p).ok());
    let latest = |entry: &&Value| entry.get("latestRevision").and_then(Value::as_bool) == Some(true);
    let canary = entries.iter().filter(latest).find(|entry| entry.get("tag").is_none())?;
    let named = entries.iter().filter(|entry| entry.get("tag").is_none());
    let primary = named.filter_map(|entry| entry.get("revisionName").and_then(Value::as_str)).next()?;
    Some((Weights::canary(percent(canary).unwrap_or(0).min(100)), primary))
}

/// Why the traffic that was asked for is not the traffic that Knative reports, when it reports any.
pub fn lagging(service: &Object) -> Option<String> {
    let name = service.name();
    let (wanted, primary) = weights(service)?;
    if !is_observed(service) {
        return Some(format!("Knative has not taken over generation {} of {name} yet", service.generation()));
    }
    let conditions = list(service, "/status/conditions");
    let is = |condition: &Value, field: &str, value: &str| condition.get(field).and_then(Value::as_str) == Some(value);
    if let Some(routes) = conditions.iter().find(|c| is(c, "type", "RoutesReady") && is(c, "status", "False")) {
        let message = routes.get("message").and_then(Value::as_str).unwrap_or_default();
        return Some(format!("Knative Service {name}: condition RoutesReady is False: {message}"));
    }
    let reported = list(service, "/status/traffic");
    if reported.is_empty() {
        return None;
    }
    let latest = |entry: &Value| entry.get("latestRevision").and_then(Value::as_bool) == Some(true);
    let percent = |entry: &Value| entry.get("percent").and_then(Value::as_i64).unwrap_or(0);
    let canary: i64 = reported.iter().filter(|entry| latest(entry)).map(percent).sum();
    let named = |entry: &&Value| !latest(entry) && is(entry, "revisionName", primary);
    let users: i64 = reported.iter().filter(named).map(percent).sum();
    let same = canary == i64::from(wanted.canary) && users == i64::from(wanted.primary);
    (!same).then(|| {
        format!("Knative Service {name} reports {canary} % for its latest revision and {users} % for {primary}")
    })
}

/// The merge patch that makes a revision the primary one, noted with annotations of ours.
pub fn primary_patch(revision: &str, notes: &[(&str, String)]) -> Value {
    let mut annotations = Map::from_iter([(PRIMARY_REVISION.to_owned(), json!(revision))]);
    annotations.extend(notes.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    json!({"metadata": {"annotations": annotations}})
}

/// The merge patch that gives the Service back: it follows its latest revision again, unless users have an older one,
/// which then keeps all traffic. `None` when there is nothing of ours.
pub fn given_back(service: &Object) -> Option<Value> {
    let primary = primary_revision(service)?;
    let traffic = if latest_revision(service).is_none_or(|latest| latest == primary) {
        json!([{"latestRevision": true, "percent": 100}])
    } else {
        json!([{"percent": 100, "revisionName": primary}])
    };
    let mut annotations = Map::from_iter([(PRIMARY_REVISION.to_owned(), Value::Null)]);
    let noted = NOTES.iter().filter(|name| service.annotation(name).is_some());
    annotations.extend(noted.map(|name| ((*name).to_owned(), Value::Null)));
    Some(json!({"metadata": {"annotations": annotations}, "spec": {"traffic": traffic}}))
}

fn list<'a>(object: &'a Object, pointer: &str) -> &'a [Value] {
    object.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::object;
    use super::*;

    fn service(spec_traffic: Value, status: Value) -> Object {
        object(json!({"metadata": {"name": "podinfo", "generation": 3, "annotations": {PRIMARY_REVISION: "podinfo-1"}},
            "spec": {"template": {"spec": {}}, "traffic": spec_traffic}, "status": status}))
    }

    #[test]
    fn the_traffic_is_that_of_the_record_and_reads_back() {
        let tagged = json!({"tag": "next", "latestRevision": true});
        let live = service(json!([tagged]), json!({}));
        let wanted = traffic(&live, "podinfo-1", Weights::canary(25));
        let want =
            json!([{"latestRevision": true, "percent": 25}, {"percent": 75, "revisionName": "podinfo-1"}, tagged]);
        assert_eq!(wanted, want);
        assert_eq!(weights(&service(wanted, json!({}))), Some((Weights::canary(25), "podinfo-1")));
        for none in [json!(null), json!([]), json!([{"latestRevision": true, "percent": 100}]), json!([tagged])] {
            assert_eq!(weights(&service(none, json!({}))), None);
        }
    }

    #[test]
    fn what_knative_reports_is_compared_with_what_was_asked_for() {
        let asked = json!([{"latestRevision": true, "percent": 25}, {"percent": 75, "revisionName": "podinfo-1"}]);
        let reported = |canary: i64, observed: i64| {
            json!({"observedGeneration": observed, "traffic": [
                {"latestRevision": true, "revisionName": "podinfo-2", "percent": canary},
                {"latestRevision": false, "revisionName": "podinfo-1", "percent": 100 - canary}]})
        };
        for (status, want) in [
            (json!({}), None),
            (reported(25, 3), None),
            (reported(0, 3), Some("reports 0 % for its latest revision and 100 % for podinfo-1")),
            (reported(25, 2), Some("has not taken over generation 3")),
            (
                json!({"conditions": [{"type": "RoutesReady", "status": "False", "message": "no such revision"}]}),
                Some("condition RoutesReady is False: no such revision"),
            ),
        ] {
            let why = lagging(&service(asked.clone(), status));
            assert!(why.as_deref().unwrap_or_default().contains(want.unwrap_or_default()), "{why:?}");
            assert_eq!(why.is_some(), want.is_some(), "{why:?}");
        }
    }

    #[test]
    fn a_release_is_the_template_or_else_the_revision() {
        let revision = json!({"latestCreatedRevisionName": "podinfo-2"});
        let content = |status: Value| super::content(&service(json!([]), status)).unwrap().into_owned();
        assert_eq!(content(revision), json!({"revision": "podinfo-2"}));
        assert_eq!(
            content(json!({"latestCreatedRevisionName": "podinfo-2", "observedGeneration": 3})),
            json!({"spec": {}})
        );
        assert_eq!(content(json!({})), json!({"spec": {}}));
    }

    #[test]
    fn giving_back_leaves_users_with_what_they_have() {
        let all = |entry: Value| json!([entry]);
        let back = |latest: &str| {
            let service = service(json!([]), json!({"latestCreatedRevisionName": latest}));
            given_back(&service).unwrap()["spec"]["traffic"].clone()
        };
        assert_eq!(back("podinfo-1"), all(json!({"latestRevision": true, "percent": 100})));
        assert_eq!(back("podinfo-2"), all(json!({"percent": 100, "revisionName": "podinfo-1"})));
        assert_eq!(given_back(&object(json!({"metadata": {}}))), None);
    }
}
