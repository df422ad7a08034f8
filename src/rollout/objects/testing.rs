//! Objects for the tests of this room.

use serde_json::{Value, json};

use crate::api::canary::CanaryView;
use crate::domain::Object;

pub(super) fn object(value: Value) -> Object {
    Object(value)
}

/// The Canary `test/podinfo` with this `spec.service` merged over port 80 to 9898.
pub(super) fn canary(service: Value) -> CanaryView {
    let mut all = json!({"port": 80, "targetPort": 9898});
    if let (Some(all), Some(service)) = (all.as_object_mut(), service.as_object()) {
        all.extend(service.clone());
    }
    canary_with(json!({"service": all}))
}

/// The Canary `test/podinfo` with these fields over its spec.
pub(super) fn canary_with(fields: Value) -> CanaryView {
    let mut spec = json!({
        "provider": "contour",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
        "service": {"port": 80, "targetPort": 9898},
    });
    if let (Some(spec), Some(fields)) = (spec.as_object_mut(), fields.as_object()) {
        spec.extend(fields.clone());
    }
    CanaryView::from_object(&Object(json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "canary-uid"},
        "spec": spec,
    })))
    .unwrap()
}
