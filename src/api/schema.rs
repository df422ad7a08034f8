//! Schemas of the parts that the Rust types keep as JSON, and the helpers that make the derived schemas those of
//! Flagger's published CRDs.
//!
//! Source: Flagger `artifacts/flagger/crd.yaml`, which takes its parts from Istio's and the Gateway API's CRDs.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// A name of at most 63 characters as the Gateway API has it (RFC 1123 label).
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A name with dots (RFC 1123 subdomain).
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A kind.
const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// Removes the defaults that the derive takes from Rust: written into a CRD they would rewrite users' manifests.
pub(super) fn bare(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        property.remove("default");
    }
}

/// An enumeration of words, whatever form the derive gave it for the sake of its descriptions.
pub(super) fn words(schema: &mut Schema) {
    let mut words = Vec::new();
    for branch in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        words.extend(branch.get("const").cloned());
        words.extend(branch.get("enum").and_then(Value::as_array).into_iter().flatten().cloned());
    }
    if words.is_empty() {
        return;
    }
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(words));
}

macro_rules! kinds {
    ($($function:ident: $kinds:expr;)*) => {$(
        /// Kinds that this reference may have.
        pub(super) fn $function(schema: &mut Schema) {
            set_kinds(schema, &$kinds);
        }
    )*};
}

kinds! {
    target_kinds: ["DaemonSet", "Deployment", "Service"];
    scaler_kinds: ["HorizontalPodAutoscaler", "ScaledObject"];
    ingress_kinds: ["Ingress"];
    route_kinds: ["ApisixRoute"];
    upstream_kinds: ["Upstream"];
}

fn set_kinds(schema: &mut Schema, kinds: &[&str]) {
    if let Some(kind) = schema.pointer_mut("/properties/kind").and_then(Value::as_object_mut) {
        kind.insert("enum".to_owned(), json!(kinds));
    }
}

/// A number that the program reads as an integer; Flagger's CRD says `number`, so `5.0` is admitted.
pub(super) fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number"})
}

pub(super) fn numbers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "number"}})
}

pub(super) fn positive_integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1})
}

pub(super) fn int32(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32"})
}

pub(super) fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Minutes or seconds at the start, and anything after them: Flagger's pattern has no end.
pub(super) fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[0-9]+(m|s)"})
}

/// A port by number or name.
pub(super) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// Gateway API parent references.
pub(super) fn gateway_refs(_: &mut SchemaGenerator) -> Schema {
    let mut reference = object_ref("gateway.networking.k8s.io", "Gateway");
    set(
        &mut reference,
        "sectionName",
        json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": SUBDOMAIN}),
    );
    json_schema!({"type": "array", "maxItems": 32, "items": reference})
}

/// Permanent mirrors by the Gateway API.
pub(super) fn mirror(_: &mut SchemaGenerator) -> Schema {
    let mut backend = object_ref("", "Service");
    if let Some(schema) = backend.as_object_mut() {
        let rule = "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true";
        let message = "Must have port for Service reference";
        schema.insert("x-kubernetes-validations".to_owned(), json!([{"message": message, "rule": rule}]));
    }
    let item = json!({"type": "object", "required": ["backendRef"], "properties": {"backendRef": backend}});
    json_schema!({"type": "array", "items": item})
}

fn object_ref(group: &str, kind: &str) -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "group": {"type": "string", "default": group, "maxLength": 253, "pattern": format!("^$|{SUBDOMAIN}")},
            "kind": {"type": "string", "default": kind, "minLength": 1, "maxLength": 63, "pattern": KIND},
            "name": {"type": "string", "minLength": 1, "maxLength": 253},
            "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL},
            "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
        },
    })
}

fn set(schema: &mut Value, name: &str, property: Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(name.to_owned(), property);
    }
}

fn string() -> Value {
    json!({"type": "string"})
}

fn strings() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn map_of(value: &Value) -> Value {
    json!({"type": "object", "additionalProperties": value})
}

fn one_required(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"required": [name]})).collect()
}

/// A match on a string, exactly one of the given ways.
fn string_match(ways: &[&str]) -> Value {
    let properties: Map<String, Value> = ways.iter().map(|way| ((*way).to_owned(), string())).collect();
    json!({"type": "object", "properties": properties, "oneOf": one_required(ways)})
}

/// A match on a string in at most one of Istio's ways; without any it matches what is present.
fn optional_string_match() -> Value {
    let ways = ["exact", "prefix", "regex"];
    let mut schema = string_match(&ways);
    let mut branches = vec![json!({"not": {"anyOf": one_required(&ways)}})];
    branches.extend(one_required(&ways));
    if let Some(object) = schema.as_object_mut() {
        object.insert("oneOf".to_owned(), Value::Array(branches));
    }
    schema
}

/// Route conditions: Istio's HTTPMatchRequest, without suffixes.
pub(super) fn service_match(_: &mut SchemaGenerator) -> Schema {
    let text = optional_string_match();
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "authority": text,
                "gateways": strings(),
                "headers": map_of(&text),
                "ignoreUriCase": {"type": "boolean"},
                "method": text,
                "name": string(),
                "port": {"type": "integer"},
                "queryParams": map_of(&text),
                "scheme": text,
                "sourceLabels": map_of(&string()),
                "sourceNamespace": string(),
                "uri": text,
                "withoutHeaders": map_of(&text),
            },
        },
    })
}

/// A/B conditions: headers by any of four ways, query parameters, source labels.
pub(super) fn analysis_match(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "headers": map_of(&string_match(&["exact", "prefix", "suffix", "regex"])),
                "queryParams": map_of(&optional_string_match()),
                "sourceLabels": map_of(&string()),
            },
        },
    })
}

/// Rewrite of path or authority.
pub(super) fn rewrite(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"uri": string(), "authority": string(), "type": string()}})
}

/// Header changes of requests and responses.
pub(super) fn headers(_: &mut SchemaGenerator) -> Schema {
    let changes = json!({
        "type": "object",
        "properties": {"add": map_of(&string()), "set": map_of(&string()), "remove": strings()},
    });
    json_schema!({"type": "object", "properties": {"request": changes, "response": changes}})
}

/// CORS policy.
pub(super) fn cors_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "allowCredentials": {"type": "boolean"},
            "allowHeaders": strings(),
            "allowMethods": strings(),
            "allowOrigin": strings(),
            "allowOrigins": {"type": "array", "items": string_match(&["exact", "prefix", "regex"])},
            "exposeHeaders": strings(),
            "maxAge": string(),
        },
    })
}

/// Istio traffic policy.
pub(super) fn traffic_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "connectionPool": connection_pool(),
            "loadBalancer": load_balancer(),
            "outlierDetection": outlier_detection(),
            "tls": {
                "type": "object",
                "properties": {
                    "caCertificates": string(),
                    "clientCertificate": string(),
                    "mode": {"type": "string", "enum": ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]},
                    "privateKey": string(),
                    "sni": string(),
                    "subjectAltNames": strings(),
                },
            },
        },
    })
}

fn whole() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn connection_pool() -> Value {
    json!({
        "type": "object",
        "properties": {
            "http": {
                "type": "object",
                "properties": {
                    "h2UpgradePolicy": {"type": "string", "enum": ["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]},
                    "http1MaxPendingRequests": whole(),
                    "http2MaxRequests": whole(),
                    "idleTimeout": string(),
                    "maxRequestsPerConnection": whole(),
                    "maxRetries": whole(),
                },
            },
        },
    })
}

fn load_balancer() -> Value {
    let hashes = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    let simple = ["ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "LEAST_REQUEST"];
    let hashed = json!({
        "required": ["consistentHash"],
        "properties": {"consistentHash": {"oneOf": one_required(&hashes)}},
    });
    json!({
        "type": "object",
        "oneOf": [{"required": ["simple"]}, hashed],
        "properties": {
            "consistentHash": {
                "type": "object",
                "properties": {
                    "httpCookie": {
                        "type": "object",
                        "properties": {"name": string(), "path": string(), "ttl": string()},
                    },
                    "httpHeaderName": string(),
                    "httpQueryParameterName": string(),
                    "minimumRingSize": {"type": "integer"},
                    "useSourceIp": {"type": "boolean"},
                },
            },
            "localityLbSetting": {
                "type": "object",
                "properties": {
                    "distribute": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"from": string(), "to": map_of(&json!({"type": "integer"}))},
                        },
                    },
                    "enabled": {"type": "boolean"},
                    "failover": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"from": string(), "to": string()}},
                    },
                },
            },
            "simple": {"type": "string", "enum": simple},
            "warmupDurationSecs": string(),
        },
    })
}

fn outlier_detection() -> Value {
    json!({
        "type": "object",
        "properties": {
            "baseEjectionTime": string(),
            "consecutive5xxErrors": {"type": "integer"},
            "consecutiveErrors": whole(),
            "consecutiveGatewayErrors": whole(),
            "consecutiveLocalOriginFailures": whole(),
            "interval": string(),
            "maxEjectionPercent": whole(),
            "minHealthPercent": whole(),
            "splitExternalLocalOriginErrors": {"type": "boolean"},
        },
    })
}

/// Cookies that keep a user on one side.
pub(super) fn session_affinity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["cookieName"],
        "properties": {
            "cookieName": string(),
            "primaryCookieName": string(),
            "domain": string(),
            "httpOnly": {"type": "boolean"},
            "maxAge": {"type": "number", "default": 86400},
            "partitioned": {"type": "boolean"},
            "path": string(),
            "sameSite": {"type": "string", "enum": ["Strict", "Lax", "None"]},
            "secure": {"type": "boolean"},
        },
    })
}
