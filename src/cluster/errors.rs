//! From kube's errors to what a caller can do about them.

use std::time::Duration;

use kube::core::response::Status;

use crate::domain::ObjectKey;
use crate::ports::{Clock, ClusterError, timeout};

/// How long an answer may take. API servers give up reads after 60 s and writes after 34 s, slow admission webhooks
/// included (`--request-timeout`, `requestTimeoutUpperBound` of `k8s.io/apiserver`): who is silent for longer is not there.
pub(super) const ANSWER: Duration = Duration::from_secs(65);

/// Waits for an answer of the API server, but not for ever: behind a proxy or a load balancer, a server that has died may
/// not even close its connections.
pub(super) async fn answered<T>(
    clock: &dyn Clock,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match timeout(clock, ANSWER, work).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

/// Maps an error of a call about one object.
pub(super) fn about(key: &ObjectKey, doing: &str, error: &kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => from_status(key, doing, status),
        other => ClusterError::Unavailable { doing: format!("{doing} {key}"), message: chain(other) },
    }
}

fn from_status(key: &ObjectKey, doing: &str, status: &Status) -> ClusterError {
    let message = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
    match status.code {
        404 => missing(key, status),
        409 => ClusterError::Conflict { key: key.clone(), message },
        code @ 400..=499 if !passing(code, &message) => ClusterError::Refused { key: key.clone(), code, message },
        // An applied field that the type does not have, or of another type: the server calls that its own error.
        500 if message.starts_with("failed to create typed patch object") => {
            ClusterError::Refused { key: key.clone(), code: 500, message }
        }
        _ => ClusterError::Unavailable { doing: format!("{doing} {key}"), message },
    }
}

/// What may pass by itself: credentials that are being rotated, throttling, an expired continue token, and etcd's own
/// trouble, which some servers pass on under any code.
fn passing(code: u16, message: &str) -> bool {
    matches!(code, 401 | 408 | 410 | 429) || message.contains("etcdserver:")
}

/// A 404 about an object carries its name; about a path that is not served it carries none.
fn missing(key: &ObjectKey, status: &Status) -> ClusterError {
    match &status.details {
        Some(details) if details.kind == "namespaces" && key.gvk.kind != "Namespace" => {
            ClusterError::NotFound(ObjectKey::cluster("v1", "Namespace", &details.name))
        }
        Some(details) if !details.name.is_empty() => ClusterError::NotFound(key.clone()),
        _ => ClusterError::UnknownKind(key.gvk.clone()),
    }
}

/// The code of an API error.
pub(super) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The text of an error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn codes_map_to_what_can_be_done() {
        let key = ObjectKey::namespaced("apps/v1", "Deployment", "test", "podinfo");
        let map = |status: Value| {
            let status: Status = serde_json::from_value(status).unwrap();
            about(&key, "applying", &kube::Error::Api(Box::new(status))).to_string()
        };
        for (status, want) in [
            (
                json!({"code": 404, "reason": "NotFound", "message": "m", "details": {"name": "podinfo", "kind": "deployments"}}),
                "Deployment test/podinfo not found",
            ),
            (
                json!({"code": 404, "reason": "NotFound", "message": "m", "details": {"name": "test", "kind": "namespaces"}}),
                "Namespace test not found",
            ),
            (
                json!({"code": 500, "message": "failed to create typed patch object (test/podinfo; apps/v1, Kind=Deployment): .spec.sise: field not declared in schema"}),
                "Deployment test/podinfo refused: failed to create typed patch object (test/podinfo; apps/v1, Kind=Deployment): .spec.sise: field not declared in schema",
            ),
            (
                json!({"code": 404, "message": "404 page not found"}),
                "the cluster does not serve apps/v1/Deployment: is its CRD installed?",
            ),
            (
                json!({"code": 404, "reason": "NotFound", "message": "the server could not find the requested resource", "details": {}}),
                "the cluster does not serve apps/v1/Deployment: is its CRD installed?",
            ),
            (
                json!({"code": 409, "reason": "Conflict", "message": "m"}),
                "Deployment test/podinfo changed meanwhile: m",
            ),
            (
                json!({"code": 422, "reason": "Invalid", "message": "field is immutable"}),
                "Deployment test/podinfo refused: field is immutable",
            ),
            (json!({"code": 403, "reason": "Forbidden", "message": "no"}), "Deployment test/podinfo refused: no"),
            (json!({"code": 400, "reason": "BadRequest", "message": "no"}), "Deployment test/podinfo refused: no"),
            (
                json!({"code": 429, "reason": "TooManyRequests", "message": "slow"}),
                "applying Deployment test/podinfo: slow",
            ),
            (
                json!({"code": 500, "message": "etcdserver: leader changed"}),
                "applying Deployment test/podinfo: etcdserver: leader changed",
            ),
            (
                json!({"code": 400, "message": "etcdserver: leader changed"}),
                "applying Deployment test/podinfo: etcdserver: leader changed",
            ),
            (
                json!({"code": 503, "reason": "ServiceUnavailable"}),
                "applying Deployment test/podinfo: ServiceUnavailable",
            ),
        ] {
            assert_eq!(map(status), want);
        }
    }
}
