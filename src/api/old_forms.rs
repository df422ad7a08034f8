//! Old forms of a Canary that still work: which it uses, and what to write instead (flagger-behaviour §1.10).

use super::canary::CanaryView;
use crate::domain::CONVERTED_FROM;

/// API versions of objects that a Canary refers to, and the one that is used whatever it says.
const REFERENCES: [(&str, &str); 6] = [
    ("autoscaling/v2beta1", "autoscaling/v2"),
    ("autoscaling/v2beta2", "autoscaling/v2"),
    ("extensions/v1beta1", "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "networking.k8s.io/v1"),
    ("apps/v1beta1", "apps/v1"),
    ("apps/v1beta2", "apps/v1"),
];

/// Each old form that the Canary uses, as `FORM (write OTHER)`.
pub fn old_forms(canary: &CanaryView) -> Vec<String> {
    let spec = &canary.spec;
    let mut found = Vec::new();
    let mut add = |form: &str, instead: &str| found.push(format!("{form} (write {instead})"));
    let written = canary.annotations.get(CONVERTED_FROM).map(String::as_str).unwrap_or_default();
    for form in written.split_whitespace() {
        match form {
            "canaryAnalysis" => add("canaryAnalysis", "analysis"),
            version => add(version, super::API_VERSION),
        }
    }
    if spec.analysis.is_none() && spec.canary_analysis.is_some() {
        add("canaryAnalysis", "analysis");
    }
    let references = [
        ("targetRef", Some(spec.target_ref.api_version.as_str())),
        ("autoscalerRef", spec.autoscaler_ref.as_ref().map(|reference| reference.api_version.as_str())),
        ("ingressRef", spec.ingress_ref.as_ref().map(|reference| reference.api_version.as_str())),
    ];
    for (field, version) in references {
        let row = REFERENCES.iter().find(|(old, _)| Some(*old) == version);
        match row {
            Some((old, _)) if field == "targetRef" => add(&format!("{field} {old}"), "apps/v1"),
            Some((old, new)) => add(&format!("{field} {old}"), new),
            None => {}
        }
    }
    if spec.provider.as_deref() == Some("gatewayapi:v1alpha2") {
        add("provider gatewayapi:v1alpha2", "gatewayapi:v1");
    }
    for metric in spec.analysis().map(|analysis| analysis.metrics.as_slice()).unwrap_or_default() {
        if metric.threshold.is_some() && metric.threshold_range.is_none() {
            add(&format!("threshold of metric {}", metric.name), "thresholdRange");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::Object;

    fn forms(annotations: Value, spec: Value) -> Vec<String> {
        let metadata = json!({"name": "web", "namespace": "shop", "annotations": annotations});
        old_forms(&CanaryView::from_object(&Object(json!({"metadata": metadata, "spec": spec}))).unwrap())
    }

    #[test]
    fn old_forms_are_named_with_what_to_write() {
        let spec = json!({
            "provider": "gatewayapi:v1alpha2",
            "targetRef": {"apiVersion": "extensions/v1beta1", "kind": "Deployment", "name": "web"},
            "autoscalerRef": {"apiVersion": "autoscaling/v2beta1", "kind": "HorizontalPodAutoscaler", "name": "web"},
            "ingressRef": {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "name": "web"},
            "canaryAnalysis": {"metrics": [{"name": "request-success-rate", "threshold": 99}]},
        });
        assert_eq!(
            forms(json!({CONVERTED_FROM: "flagger.app/v1alpha3"}), spec),
            [
                "flagger.app/v1alpha3 (write flagger.app/v1beta1)",
                "canaryAnalysis (write analysis)",
                "targetRef extensions/v1beta1 (write apps/v1)",
                "autoscalerRef autoscaling/v2beta1 (write autoscaling/v2)",
                "ingressRef extensions/v1beta1 (write networking.k8s.io/v1)",
                "provider gatewayapi:v1alpha2 (write gatewayapi:v1)",
                "threshold of metric request-success-rate (write thresholdRange)",
            ]
        );
        let present = json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "web"},
            "analysis": {"metrics": [{"name": "a", "threshold": 1, "thresholdRange": {"max": 1}}]},
        });
        assert_eq!(forms(json!({}), present), Vec::<String>::new());
    }
}
