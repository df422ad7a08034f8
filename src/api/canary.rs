//! The `Canary` resource: what is released, how traffic moves, and what it is judged by.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::analysis::{
    Alert, Analysis, CrossNamespaceRef, Metric, SessionAffinity, ThresholdRange, Webhook, WebhookType,
};
use super::status::CanaryStatus;
use super::{number, schema};
use crate::domain::{CanaryKey, Object};

/// Names of the traffic providers that Flagger's CRD admits.
pub const PROVIDERS: [&str; 19] = [
    "apisix",
    "appmesh",
    "appmesh:v1beta2",
    "contour",
    "gatewayapi:v1",
    "gatewayapi:v1beta1",
    "gloo",
    "istio",
    "knative",
    "kubernetes",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "smi:v1alpha1",
    "smi:v1alpha2",
    "smi:v1alpha3",
    "traefik",
];

/// Specification of a Canary.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "Canary",
    namespaced,
    status = "CanaryStatus",
    category = "all",
    schema = "disabled",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Weight","type":"string","jsonPath":".status.canaryWeight"}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend","priority":1}"#,
    printcolumn = r#"{"name":"FailedChecks","type":"string","jsonPath":".status.failedChecks","priority":1}"#,
    printcolumn = r#"{"name":"Interval","type":"string","jsonPath":".spec.analysis.interval","priority":1}"#,
    printcolumn = r#"{"name":"Mirror","type":"boolean","jsonPath":".spec.analysis.mirror","priority":1}"#,
    printcolumn = r#"{"name":"StepWeight","type":"string","jsonPath":".spec.analysis.stepWeight","priority":1}"#,
    printcolumn = r#"{"name":"StepWeights","type":"string","jsonPath":".spec.analysis.stepWeights","priority":1}"#,
    printcolumn = r#"{"name":"MaxWeight","type":"string","jsonPath":".spec.analysis.maxWeight","priority":1}"#,
    printcolumn = r#"{"name":"LastTransitionTime","type":"string","jsonPath":".status.lastTransitionTime"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["targetRef"], "anyOf" = [{"required": ["analysis"]}, {"required": ["canaryAnalysis"]}]))]
pub struct CanarySpec {
    /// Traffic provider of this canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = PROVIDERS))]
    pub provider: Option<String>,
    /// Prometheus base URL for built-in and inline queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_server: Option<String>,
    /// The workload that is released.
    #[schemars(transform = schema::target_kinds)]
    pub target_ref: TargetRef,
    /// The autoscaler of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::scaler_kinds)]
    pub autoscaler_ref: Option<AutoscalerRef>,
    /// Ingress of the application (NGINX, Skipper).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ingress_kinds)]
    pub ingress_ref: Option<TargetRef>,
    /// Route of the application (APISIX).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::route_kinds)]
    pub route_ref: Option<TargetRef>,
    /// Upstream of the application (Gloo).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::upstream_kinds)]
    pub upstream_ref: Option<UpstreamRef>,
    /// Names, ports and routing of the application.
    pub service: Service,
    /// How the canary is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// The v1alpha3 name of `analysis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_analysis: Option<Analysis>,
    /// Seconds that the canary may take to become ready, 600 when unset.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub progress_deadline_seconds: Option<i64>,
    /// Promote without analysis.
    pub skip_analysis: bool,
    /// Give the target back its size and traffic when the Canary is deleted.
    pub revert_on_deletion: bool,
    /// Do nothing while set.
    pub suspend: bool,
}

/// Reference to an object of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["apiVersion", "kind", "name"]))]
pub struct TargetRef {
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

/// Reference to a Gloo Upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["apiVersion", "kind", "name"]))]
pub struct UpstreamRef {
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reference to a HorizontalPodAutoscaler or a KEDA ScaledObject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["apiVersion", "kind", "name"]))]
pub struct AutoscalerRef {
    /// API version of the autoscaler.
    pub api_version: String,
    /// Kind of the autoscaler.
    pub kind: String,
    /// Name of the autoscaler.
    pub name: String,
    /// KEDA: trigger name to the query of the primary.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub primary_scaler_queries: BTreeMap<String, String>,
    /// Bounds of the primary's autoscaler where they differ from the target's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_scaler_replicas: Option<ScalerReplicas>,
}

/// Bounds of an autoscaler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct ScalerReplicas {
    /// Lower bound.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::positive_integer")]
    pub min_replicas: Option<i64>,
    /// Upper bound.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::positive_integer")]
    pub max_replicas: Option<i64>,
}

/// Names, ports and routing of the application. Parts that only some providers read stay JSON; each provider reads
/// its part through a typed view of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["port"]))]
pub struct Service {
    /// Name of the apex Service, the target's name when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Port of the Services and backends.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub port: i64,
    /// Name of the port, `http` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// Container port by number or name, `port` when unset or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub target_port: Option<Value>,
    /// Application protocol of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Traffic distribution of the Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["PreferClose", "PreferSameZone", "PreferSameNode"]))]
    pub traffic_distribution: Option<String>,
    /// Add the container ports to the Services.
    pub port_discovery: bool,
    /// Make the Services headless.
    pub headless: bool,
    /// Request timeout of the route, a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Backend timeout of the route, a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_timeout: Option<String>,
    /// Host names of the route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Istio gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Gateway API parent references.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::gateway_refs")]
    pub gateway_refs: Option<Value>,
    /// Make the VirtualService a delegate.
    pub delegation: bool,
    /// Istio traffic policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::traffic_policy")]
    pub traffic_policy: Option<Value>,
    /// Conditions under which the route applies.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::service_match")]
    pub matches: Vec<Value>,
    /// Rewrite of path or authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rewrite")]
    pub rewrite: Option<Value>,
    /// Retries of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Header changes of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::headers")]
    pub headers: Option<Value>,
    /// Permanent mirrors of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mirror")]
    pub mirror: Option<Value>,
    /// CORS policy of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cors_policy")]
    pub cors_policy: Option<Value>,
    /// App Mesh mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_name: Option<String>,
    /// App Mesh backends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<String>,
    /// Metadata of the apex Service and of the route object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apex: Option<Metadata>,
    /// Metadata of the primary Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<Metadata>,
    /// Metadata of the canary Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Metadata>,
    /// Metadata keys of the Services that belong to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmanaged_metadata: Option<UnmanagedMetadata>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct Metadata {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Metadata keys that belong to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct UnmanagedMetadata {
    /// Label keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Annotation keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

/// Retries of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct Retries {
    /// Number of attempts.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::int32")]
    pub attempts: i64,
    /// Timeout of each attempt, a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<String>,
    /// Comma separated conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<String>,
}

/// A Canary read from the cluster: identity, metadata, spec and status.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryView {
    /// Namespace and name.
    pub key: CanaryKey,
    /// UID, for owner references.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Resource version it was read at.
    pub resource_version: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Whether its deletion has been asked for.
    pub terminating: bool,
    /// What the user wants.
    pub spec: CanarySpec,
    /// What we reported last.
    pub status: CanaryStatus,
    /// Numbers that are not whole where only whole ones have a meaning, and what they are taken for.
    pub cut: Vec<String>,
}

impl CanaryView {
    /// Reads a Canary from its object, leniently: what the API server admits is read.
    ///
    /// # Errors
    /// The message of the first field that cannot be read, with its path.
    pub fn from_object(object: &Object) -> Result<Self, String> {
        Self::exact(object).or_else(|_| {
            let (mut object, mut cut) = (object.clone(), Vec::new());
            for path in [
                "/spec/progressDeadlineSeconds",
                "/spec/service/port",
                "/spec/analysis",
                "/spec/canaryAnalysis",
                "/status",
            ] {
                if let Some(part) = object.0.pointer_mut(path) {
                    number::cut(part, &path.trim_start_matches('/').replace('/', "."), &mut cut);
                }
            }
            Ok(Self { cut, ..Self::exact(&object)? })
        })
    }

    /// Reads a Canary as people should write it: a fraction where only a whole number has a meaning is an error.
    ///
    /// # Errors
    /// The message of the first field that cannot be read, with its path.
    pub fn exact(object: &Object) -> Result<Self, String> {
        fn part<T: Default + serde::de::DeserializeOwned>(object: &Object, name: &str) -> Result<T, String> {
            match object.0.get(name) {
                None | Some(Value::Null) => Ok(T::default()),
                Some(value) => T::deserialize(value).map_err(|error| format!("{name}: {error}")),
            }
        }
        let finalizers = object.at("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            key: CanaryKey::new(object.namespace().unwrap_or_default(), object.name()),
            uid: object.uid().to_owned(),
            generation: object.generation(),
            resource_version: object.resource_version().to_owned(),
            annotations: object.annotations(),
            finalizers: finalizers.filter_map(|f| f.as_str().map(str::to_owned)).collect(),
            terminating: object.is_terminating(),
            spec: part(object, "spec")?,
            status: part(object, "status")?,
            cut: Vec::new(),
        })
    }

    /// An annotation under `serin.dev/`.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.annotations.get(&format!("serin.dev/{name}")).map(String::as_str)
    }
}

impl CanarySpec {
    /// The analysis under its present or its v1alpha3 name.
    pub fn analysis(&self) -> Option<&Analysis> {
        self.analysis.as_ref().or(self.canary_analysis.as_ref())
    }

    /// Name of the apex Service and route: `service.name`, or the target's name.
    pub fn apex_name(&self) -> &str {
        self.service.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.target_ref.name)
    }

    /// Name of the primary Service.
    pub fn primary_service(&self) -> String {
        format!("{}-primary", self.apex_name())
    }

    /// Name of the canary Service.
    pub fn canary_service(&self) -> String {
        format!("{}-canary", self.apex_name())
    }

    /// Name of the primary workload.
    pub fn primary_workload(&self) -> String {
        format!("{}-primary", self.target_ref.name)
    }
}
