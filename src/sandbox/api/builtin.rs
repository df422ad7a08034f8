//! What the API server does to built-in types: reading by their Go types, defaulting, validation.

use k8s_openapi::api as k8s;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::Problem;
use super::types::Resource;
use crate::domain::Object;

/// Reads an object by its type: drops unknown fields into `unknown`, refuses wrong types.
///
/// # Errors
/// The decoder's complaint.
pub(crate) fn decode(res: &Resource, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), String> {
    quantities_as_text(value);
    if res.kind == "CustomResourceDefinition" {
        // Read for its types only: a schema is kept as it was written.
        return typed::<CustomResourceDefinition>(value).map(drop);
    }
    macro_rules! by_kind {
        ($($group:literal $kind:literal $type:ty),* $(,)?) => {
            match (res.group.as_str(), res.kind.as_str()) {
                $(($group, $kind) => typed::<$type>(value)?,)*
                _ => return Ok(()),
            }
        };
    }
    let mut known = by_kind! {
        "" "Namespace" k8s::core::v1::Namespace,
        "" "Pod" k8s::core::v1::Pod,
        "" "Service" k8s::core::v1::Service,
        "" "ConfigMap" k8s::core::v1::ConfigMap,
        "" "Secret" k8s::core::v1::Secret,
        "" "Event" k8s::core::v1::Event,
        "" "ServiceAccount" k8s::core::v1::ServiceAccount,
        "events.k8s.io" "Event" k8s::core::v1::Event,
        "apps" "Deployment" k8s::apps::v1::Deployment,
        "apps" "ReplicaSet" k8s::apps::v1::ReplicaSet,
        "apps" "StatefulSet" k8s::apps::v1::StatefulSet,
        "apps" "DaemonSet" k8s::apps::v1::DaemonSet,
        "batch" "Job" k8s::batch::v1::Job,
        "batch" "CronJob" k8s::batch::v1::CronJob,
        "autoscaling" "HorizontalPodAutoscaler" k8s::autoscaling::v2::HorizontalPodAutoscaler,
        "networking.k8s.io" "Ingress" k8s::networking::v1::Ingress,
        "networking.k8s.io" "NetworkPolicy" k8s::networking::v1::NetworkPolicy,
        "policy" "PodDisruptionBudget" k8s::policy::v1::PodDisruptionBudget,
        "coordination.k8s.io" "Lease" k8s::coordination::v1::Lease,
        "rbac.authorization.k8s.io" "Role" k8s::rbac::v1::Role,
        "rbac.authorization.k8s.io" "RoleBinding" k8s::rbac::v1::RoleBinding,
        "rbac.authorization.k8s.io" "ClusterRole" k8s::rbac::v1::ClusterRole,
        "rbac.authorization.k8s.io" "ClusterRoleBinding" k8s::rbac::v1::ClusterRoleBinding,
    };
    dropped(value, &known, "", unknown);
    // Our own bookkeeping passes through as it is.
    if let Some(metadata) = value.get_mut("metadata").map(Value::take) {
        known["metadata"] = metadata;
    }
    *value = known;
    Ok(())
}

fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    let read: T = T::deserialize(value).map_err(|e| e.to_string())?;
    serde_json::to_value(&read).map_err(|e| e.to_string())
}

fn dropped(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, below) in a.iter().filter(|(name, v)| !v.is_null() && (!path.is_empty() || *name != "metadata"))
            {
                let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match b.get(name) {
                    Some(kept) => dropped(below, kept, &place, unknown),
                    None => unknown.push(place),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                dropped(x, y, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// A quantity may be written as a number; the API answers a string.
pub(crate) fn quantities_as_text(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in map.iter_mut() {
                match below {
                    Value::Object(inner) if matches!(name.as_str(), "limits" | "requests" | "capacity" | "hard") => {
                        inner.values_mut().filter(|v| v.is_number()).for_each(|v| *v = v.to_string().into());
                    }
                    Value::Number(n) if matches!(name.as_str(), "averageValue" | "sizeLimit" | "divisor") => {
                        *below = n.to_string().into();
                    }
                    _ => quantities_as_text(below),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_as_text),
        _ => {}
    }
}

fn put(value: &mut Value, name: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut()
        && map.get(name).is_none_or(Value::is_null)
    {
        map.insert(name.to_owned(), default.into());
    }
}

/// The object in a field. Types are checked before this; what is no object where one belongs becomes one.
fn object<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    if !value.get(name).is_some_and(Value::is_object) {
        value[name] = json!({});
    }
    &mut value[name]
}

fn items<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Rules of an autoscaler's behaviour, once it has any. Source: Kubernetes `pkg/apis/autoscaling/v2/defaults.go`.
fn scaling_rules(rules: &mut Value, policies: &[(&str, i64)], window: Option<i64>) {
    let policies = policies.iter().map(|(type_, value)| json!({"type": type_, "value": value, "periodSeconds": 15}));
    put(rules, "policies", policies.collect::<Vec<_>>());
    put(rules, "selectPolicy", "Max");
    if let Some(window) = window {
        put(rules, "stabilizationWindowSeconds", window);
    }
}

/// Fills in the defaults of a built-in type.
pub(crate) fn default(res: &Resource, value: &mut Value) {
    match res.kind.as_str() {
        "Deployment" => {
            let spec = object(value, "spec");
            put(spec, "replicas", 1);
            put(spec, "revisionHistoryLimit", 10);
            put(spec, "progressDeadlineSeconds", 600);
            let strategy = object(spec, "strategy");
            put(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                let rolling = object(strategy, "rollingUpdate");
                put(rolling, "maxSurge", "25%");
                put(rolling, "maxUnavailable", "25%");
            }
            template(spec);
        }
        "ReplicaSet" => {
            let spec = object(value, "spec");
            put(spec, "replicas", 1);
            template(spec);
        }
        "StatefulSet" => {
            let spec = object(value, "spec");
            put(spec, "replicas", 1);
            put(spec, "revisionHistoryLimit", 10);
            put(spec, "podManagementPolicy", "OrderedReady");
            put(
                spec,
                "persistentVolumeClaimRetentionPolicy",
                json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
            );
            put(spec, "updateStrategy", json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } }));
            template(spec);
        }
        "DaemonSet" => {
            let spec = object(value, "spec");
            put(spec, "revisionHistoryLimit", 10);
            let rolling = json!({ "maxSurge": 0, "maxUnavailable": 1 });
            put(spec, "updateStrategy", json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
            template(spec);
        }
        "Job" => job(object(value, "spec")),
        "CronJob" => {
            let spec = object(value, "spec");
            put(spec, "concurrencyPolicy", "Allow");
            put(spec, "suspend", false);
            put(spec, "successfulJobsHistoryLimit", 3);
            put(spec, "failedJobsHistoryLimit", 1);
            if let Some(job) = spec.get_mut("jobTemplate").and_then(|t| t.get_mut("spec"))
                && let Some(inner) = job.get_mut("template").and_then(|t| t.get_mut("spec"))
            {
                pod_spec(inner);
            }
        }
        "Pod" => {
            let spec = object(value, "spec");
            put(spec, "enableServiceLinks", true);
            pod_spec(spec);
        }
        "Service" => service(object(value, "spec")),
        "Secret" => secret(value),
        "Namespace" => {
            let name = value.pointer("/metadata/name").cloned().unwrap_or_default();
            put(object(object(value, "metadata"), "labels"), "kubernetes.io/metadata.name", name);
            put(object(value, "spec"), "finalizers", json!(["kubernetes"]));
            put(object(value, "status"), "phase", "Active");
        }
        "HorizontalPodAutoscaler" => {
            let spec = object(value, "spec");
            put(spec, "minReplicas", 1);
            let target = json!({ "type": "Utilization", "averageUtilization": 80 });
            put(spec, "metrics", json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }]));
            if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
                scaling_rules(object(behavior, "scaleUp"), &[("Pods", 4), ("Percent", 100)], Some(0));
                scaling_rules(object(behavior, "scaleDown"), &[("Percent", 100)], None);
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            if let Some(role) = value.get_mut("roleRef") {
                put(role, "apiGroup", "rbac.authorization.k8s.io");
            }
            for subject in items(value, "subjects").filter(|s| s["kind"] != "ServiceAccount") {
                put(subject, "apiGroup", "rbac.authorization.k8s.io");
            }
        }
        "CustomResourceDefinition" => crd(object(value, "spec")),
        _ => {}
    }
}

fn crd(spec: &mut Value) {
    put(spec, "conversion", json!({ "strategy": "None" }));
    let names = object(spec, "names");
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    put(names, "singular", kind.to_lowercase());
    put(names, "listKind", format!("{kind}List"));
}

fn job(spec: &mut Value) {
    put(spec, "parallelism", 1);
    put(spec, "completions", 1);
    put(spec, "backoffLimit", 6);
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    put(spec, "podReplacementPolicy", "TerminatingOrFailed");
    template(spec);
}

fn service(spec: &mut Value) {
    put(spec, "type", "ClusterIP");
    put(spec, "sessionAffinity", "None");
    let external = spec["type"] == "ExternalName";
    if !external {
        put(spec, "internalTrafficPolicy", "Cluster");
        put(spec, "ipFamilies", json!(["IPv4"]));
        put(spec, "ipFamilyPolicy", "SingleStack");
        if spec.get("clusterIP").is_some_and(|ip| ip != "") {
            let ip = spec["clusterIP"].clone();
            put(spec, "clusterIPs", json!([ip]));
        }
    }
    if matches!(spec["type"].as_str(), Some("LoadBalancer" | "NodePort")) {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    for port in items(spec, "ports") {
        put(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        put(port, "targetPort", number);
    }
}

fn secret(value: &mut Value) {
    use base64::Engine as _;
    put(value, "type", "Opaque");
    let Some(texts) = value.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    for (key, text) in texts.as_object().into_iter().flatten() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        object(value, "data")[key] = encoded.into();
    }
}

fn template(spec: &mut Value) {
    if let Some(inner) = spec.get_mut("template").and_then(|t| t.get_mut("spec")) {
        pod_spec(inner);
    }
}

fn pod_spec(spec: &mut Value) {
    put(spec, "restartPolicy", "Always");
    put(spec, "terminationGracePeriodSeconds", 30);
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "securityContext", json!({}));
    put(spec, "schedulerName", "default-scheduler");
    if let Some(account) = spec.get("serviceAccountName").filter(|a| !a.is_null()).cloned() {
        put(spec, "serviceAccount", account);
    }
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(container);
    }
    for volume in items(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source) {
                put(source, "defaultMode", 420);
            }
        }
        if let Some(path) = volume.get_mut("hostPath") {
            put(path, "type", "");
        }
        if volume.as_object().is_some_and(|v| v.len() == 1) {
            put(volume, "emptyDir", json!({}));
        }
    }
}

fn container(container: &mut Value) {
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    put(container, "resources", json!({}));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    put(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    items(container, "ports").for_each(|port| put(port, "protocol", "TCP"));
    for variable in items(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            put(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else { continue };
        put(probe, "timeoutSeconds", 1);
        put(probe, "periodSeconds", 10);
        put(probe, "successThreshold", 1);
        put(probe, "failureThreshold", 3);
        if let Some(get) = probe.get_mut("httpGet") {
            put(get, "scheme", "HTTP");
            put(get, "path", "/");
        }
    }
}

const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops what no object's metadata have; the dropped paths.
pub(crate) fn prune_metadata(value: &mut Value) -> Vec<String> {
    let mut unknown = vec![];
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| {
            let known = METADATA.contains(&name.as_str());
            if !known {
                unknown.push(format!("metadata.{name}"));
            }
            known
        });
        metadata.remove("selfLink");
    }
    unknown
}

/// Everything in which a built-in object is invalid; `old` is what it replaces.
pub(crate) fn validate(res: &Resource, new: &Object, old: Option<&Object>) -> Vec<Problem> {
    let mut problems = vec![];
    match res.kind.as_str() {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(new, old, &mut problems),
        "Pod" => containers(new.at("/spec").unwrap_or(&Value::Null), "spec", &mut problems),
        "Service" => check_service(new, old, &mut problems),
        "ConfigMap" | "Secret" => check_data(res, new, old, &mut problems),
        "RoleBinding" | "ClusterRoleBinding" if old.is_some_and(|old| old.at("/roleRef") != new.at("/roleRef")) => {
            let role = new.at("/roleRef").cloned().unwrap_or_default();
            problems.push(Problem::invalid("roleRef", &role, "cannot change roleRef"));
        }
        "CustomResourceDefinition" => {
            let wanted = format!("{}.{}", new.str("/spec/names/plural"), new.str("/spec/group"));
            if new.name() != wanted {
                let why = "must be spec.names.plural+\".\"+spec.group";
                problems.push(Problem::invalid("metadata.name", &new.name().into(), why));
            }
        }
        _ => {}
    }
    problems
}

fn workload(new: &Object, old: Option<&Object>, problems: &mut Vec<Problem>) {
    if let Some(replicas) = new.int("/spec/replicas").filter(|n| *n < 0) {
        let why = "must be greater than or equal to 0";
        problems.push(Problem::invalid("spec.replicas", &replicas.into(), why));
    }
    let empty = Map::new();
    let labels = new.at("/spec/template/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
    let unfit = |problems: &mut Vec<Problem>| {
        let shown = new.at("/spec/template/metadata/labels").cloned().unwrap_or_default();
        let why = "`selector` does not match template `labels`";
        problems.push(Problem::invalid("spec.template.metadata.labels", &shown, why));
    };
    match new.at("/spec/selector").filter(|s| s.as_object().is_some_and(|s| !s.is_empty())) {
        None => {
            problems.push(Problem::required("spec.selector", ""));
            unfit(problems);
            if old.is_some() {
                problems.push(Problem::invalid("spec.selector", &Value::Null, "field is immutable"));
            }
        }
        Some(selector) => {
            let wanted = selector.get("matchLabels").and_then(Value::as_object).unwrap_or(&empty);
            if wanted.iter().any(|(k, v)| labels.get(k) != Some(v)) {
                unfit(problems);
            }
            if old.is_some_and(|old| old.at("/spec/selector") != Some(selector)) {
                problems.push(Problem::invalid("spec.selector", selector, "field is immutable"));
            }
        }
    }
    containers(new.at("/spec/template/spec").unwrap_or(&Value::Null), "spec.template.spec", problems);
}

fn containers(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    let list = spec.get("containers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        problems.push(Problem::required(format!("{path}.containers"), ""));
    }
    let mut names = std::collections::BTreeSet::new();
    for (i, container) in list.iter().enumerate() {
        let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
        let place = |field: &str| format!("{path}.containers[{i}].{field}");
        if text("name").is_empty() {
            problems.push(Problem::required(place("name"), ""));
        } else if !is_dns_label(text("name")) {
            problems.push(Problem::invalid(place("name"), &text("name").into(), RFC1123_LABEL));
        } else if !names.insert(text("name").to_owned()) {
            problems.push(Problem::duplicate(place("name"), &text("name").into()));
        }
        if text("image").is_empty() {
            problems.push(Problem::required(place("image"), ""));
        }
    }
}

fn check_service(new: &Object, old: Option<&Object>, problems: &mut Vec<Problem>) {
    let ports = new.at("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let headless = new.str("/spec/clusterIP") == "None";
    if ports.is_empty() && !headless && new.str("/spec/type") != "ExternalName" {
        problems.push(Problem::required("spec.ports", ""));
    }
    let (mut names, mut numbers) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let place = |field: &str| format!("spec.ports[{i}]{field}");
        let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let why = "must be between 1 and 65535, inclusive";
            problems.push(Problem::invalid(place(".port"), &number.into(), why));
        }
        match port.get("name").and_then(Value::as_str) {
            None | Some("") if ports.len() > 1 => problems.push(Problem::required(place(".name"), "")),
            Some(name) if !names.insert(name.to_owned()) => {
                problems.push(Problem::duplicate(place(".name"), &name.into()));
            }
            _ => {}
        }
        let protocol = port.get("protocol").cloned().unwrap_or_default();
        if !numbers.insert(format!("{number}/{protocol}")) {
            problems.push(Problem::duplicate(place(""), &json!({ "port": number, "protocol": protocol })));
        }
    }
    let before = old.map(|old| old.str("/spec/clusterIP")).filter(|ip| !ip.is_empty());
    if before.is_some_and(|before| before != new.str("/spec/clusterIP")) && new.str("/spec/type") != "ExternalName" {
        let ip = new.at("/spec/clusterIP").cloned().unwrap_or_default();
        problems.push(Problem::invalid("spec.clusterIPs[0]", &json!([ip]), "may not change once set"));
    }
    if !is_dns_label(new.name()) || new.name().starts_with(|c: char| c.is_ascii_digit()) {
        problems.push(Problem::invalid("metadata.name", &new.name().into(), RFC1035_LABEL));
    }
}

fn check_data(res: &Resource, new: &Object, old: Option<&Object>, problems: &mut Vec<Problem>) {
    let Some(old) = old else { return };
    if old.at("/immutable") == Some(&Value::Bool(true)) && old.at("/data") != new.at("/data") {
        let message = "Forbidden: field is immutable when `immutable` is set".to_owned();
        problems.push(Problem { field: "data".to_owned(), reason: "FieldValueForbidden", message });
    }
    if res.kind == "Secret" && old.at("/type") != new.at("/type") {
        problems.push(Problem::invalid("type", new.at("/type").unwrap_or(&Value::Null), "field is immutable"));
    }
}

const RFC1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const RFC1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const RFC1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_dns_label(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63 && text.starts_with(ok) && text.ends_with(ok) && text.chars().all(|c| ok(c) || c == '-')
}

/// Checks the metadata that every object has.
pub(crate) fn validate_metadata(res: &Resource, object: &Object) -> Vec<Problem> {
    let mut problems = vec![];
    let name = object.name();
    if name.is_empty() {
        problems.push(Problem::required("metadata.name", "name or generateName is required"));
    } else if res.group == "rbac.authorization.k8s.io" {
        if name.contains(['/', '%']) {
            problems.push(Problem::invalid("metadata.name", &name.into(), "may not contain '/' or '%'"));
        }
    } else if res.kind == "Namespace" && !is_dns_label(name) {
        problems.push(Problem::invalid("metadata.name", &name.into(), RFC1123_LABEL));
    } else if name.len() > 253 || !name.split('.').all(is_dns_label) {
        problems.push(Problem::invalid("metadata.name", &name.into(), RFC1123_SUBDOMAIN));
    }
    for (i, finalizer) in object.at("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let name = finalizer.as_str().unwrap_or_default();
        // Only built-in types insist on a domain.
        if res.custom.is_none()
            && !name.contains('/')
            && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes")
        {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            problems.push(Problem::invalid(format!("metadata.finalizers[{i}]"), finalizer, why));
        }
    }
    for owner in object.at("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences.{field}");
                problems.push(Problem::invalid(field, &"".into(), "must not be empty"));
            }
        }
    }
    for (field, list) in [("labels", object.labels()), ("annotations", object.annotations())] {
        for (key, value) in list {
            let short = key.rsplit('/').next().unwrap_or_default();
            if !is_label_word(short) {
                let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
                problems.push(Problem::invalid(format!("metadata.{field}"), &key.clone().into(), why));
            }
            if field == "labels" && !value.is_empty() && !is_label_word(&value) {
                let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
                problems.push(Problem::invalid("metadata.labels", &value.into(), why));
            }
        }
    }
    problems
}

fn is_label_word(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.chars().all(|c| ends(c) || matches!(c, '-' | '_' | '.'))
}
