//! Definitions of route objects, autoscalers and workloads that clusters have from other controllers.

use serde_json::{Value, json};

/// CustomResourceDefinitions for the kinds that canaries refer to or make. They have the right names, columns and
/// status subresource, and no schema: what the real ones would refuse is not seen here.
pub fn definitions() -> Vec<Value> {
    let gateway =
        |kind, plural, columns| definition("gateway.networking.k8s.io", &["v1", "v1beta1"], kind, plural, columns);
    let plain = |group, versions, kind, plural| definition(group, versions, kind, plural, &[]);
    let mut kuma = plain("kuma.io", &["v1alpha1"], "TrafficRoute", "trafficroutes");
    kuma["spec"]["scope"] = json!("Cluster");
    for version in kuma["spec"]["versions"].as_array_mut().into_iter().flatten() {
        // The mesh stands beside the spec.
        version["schema"]["openAPIV3Schema"]["properties"]["mesh"] = json!({"type": "string"});
    }
    let appmesh: &[&str] = &["v1beta2", "v1beta1"];
    vec![
        plain("networking.istio.io", &["v1beta1"], "VirtualService", "virtualservices"),
        plain("networking.istio.io", &["v1beta1"], "DestinationRule", "destinationrules"),
        plain("appmesh.k8s.aws", appmesh, "VirtualNode", "virtualnodes"),
        plain("appmesh.k8s.aws", &["v1beta2"], "VirtualRouter", "virtualrouters"),
        plain("appmesh.k8s.aws", appmesh, "VirtualService", "virtualservices"),
        plain("gateway.solo.io", &["v1"], "RouteTable", "routetables"),
        plain("gloo.solo.io", &["v1"], "Upstream", "upstreams"),
        kuma,
        definition(
            "apisix.apache.org",
            &["v2"],
            "ApisixRoute",
            "apisixroutes",
            &[("Hosts", ".spec.http[0].match.hosts")],
        ),
        definition(
            "split.smi-spec.io",
            &["v1alpha1", "v1alpha2", "v1alpha3"],
            "TrafficSplit",
            "trafficsplits",
            &[("Service", ".spec.service")],
        ),
        definition("traefik.io", &["v1alpha1"], "IngressRoute", "ingressroutes", &[]),
        definition("traefik.io", &["v1alpha1"], "TraefikService", "traefikservices", &[]),
        definition(
            "projectcontour.io",
            &["v1"],
            "HTTPProxy",
            "httpproxies",
            &[
                ("FQDN", ".spec.virtualhost.fqdn"),
                ("Status", ".status.currentStatus"),
                ("Status Description", ".status.description"),
            ],
        ),
        definition(
            "keda.sh",
            &["v1alpha1"],
            "ScaledObject",
            "scaledobjects",
            &[
                ("ScaleTargetName", ".spec.scaleTargetRef.name"),
                ("Paused", ".metadata.annotations.autoscaling\\.keda\\.sh/paused-replicas"),
            ],
        ),
        definition(
            "serving.knative.dev",
            &["v1"],
            "Service",
            "services",
            &[
                ("LatestCreated", ".status.latestCreatedRevisionName"),
                ("LatestReady", ".status.latestReadyRevisionName"),
            ],
        ),
        definition("serving.knative.dev", &["v1"], "Revision", "revisions", &[("Config Name", ".metadata.labels.app")]),
        gateway("Gateway", "gateways", &[("Class", ".spec.gatewayClassName")]),
        gateway("HTTPRoute", "httproutes", &[("Hostnames", ".spec.hostnames")]),
    ]
}

/// The first version is the one that is stored.
fn definition(group: &str, versions: &[&str], kind: &str, plural: &str, columns: &[(&str, &str)]) -> Value {
    let columns: Vec<Value> =
        columns.iter().map(|(name, path)| json!({"name": name, "type": "string", "jsonPath": path})).collect();
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(index, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": index == 0,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}
