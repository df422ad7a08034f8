//! What of a Canary a HTTPRoute cannot honour.

use super::Version;
use super::parts;
use crate::api::canary::CanaryView;

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView, version: Version) -> Vec<String> {
    let service = &canary.spec.service;
    let beta = version == Version::V1Beta1;
    let mut fields: Vec<&str> = [
        (service.retries.is_some(), "service.retries"),
        (!service.gateways.is_empty(), "service.gateways"),
        (service.traffic_policy.is_some(), "service.trafficPolicy"),
        (service.delegation, "service.delegation"),
        (beta && service.timeout.is_some(), "service.timeout"),
        (beta && service.backend_timeout.is_some(), "service.backendTimeout"),
        (beta && service.cors_policy.is_some(), "service.corsPolicy"),
    ]
    .into_iter()
    .filter_map(|(present, path)| present.then_some(path))
    .collect();
    if let Some(policy) = service.cors_policy.as_ref().filter(|_| !beta) {
        fields.extend(parts::unsupported_cors(policy));
    }
    if let Some(analysis) = canary.spec.analysis() {
        let labels = analysis.matches.iter().any(|entry| entry.get("sourceLabels").is_some());
        fields.extend(labels.then_some("analysis.match.sourceLabels"));
        fields.extend((analysis.mirror && analysis.mirror_weight > 0).then_some("analysis.mirrorWeight"));
    }
    fields.into_iter().map(str::to_owned).collect()
}
