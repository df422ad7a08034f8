//! What a URL asks for, and the documents that are no objects.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

use super::discovery;
use super::error::ApiError;
use crate::sandbox::store::Store;

/// What the URL says.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) ns: String,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) sub: String,
}

/// Reads what follows `/api/v1` or `/apis/GROUP/VERSION`.
pub(super) fn target(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let made = |ns: &str, plural: &str, name: &str, sub: &str| Target {
        group: group.to_owned(),
        version: version.to_owned(),
        ns: ns.to_owned(),
        plural: plural.to_owned(),
        name: name.to_owned(),
        sub: sub.to_owned(),
    };
    Some(match *rest {
        ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => made("", "namespaces", name, sub),
        ["namespaces", name] if group.is_empty() => made("", "namespaces", name, ""),
        ["namespaces", ns, plural] => made(ns, plural, "", ""),
        ["namespaces", ns, plural, name] => made(ns, plural, name, ""),
        ["namespaces", ns, plural, name, sub] => made(ns, plural, name, sub),
        [plural] => made("", plural, "", ""),
        [plural, name] => made("", plural, name, ""),
        [plural, name, sub] => made("", plural, name, sub),
        _ => return None,
    })
}

/// An answer in JSON.
pub(super) fn json_response(code: StatusCode, body: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Documents besides the resources: discovery, version, health, OpenAPI.
pub(super) fn document(store: &Store, segments: &[&str], headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    let state = store.lock_counted("discovery", &format!("/{}", segments.join("/")), agent(headers));
    let registry = &state.registry;
    let found = match *segments {
        ["version"] => Some(discovery::version()),
        ["healthz" | "readyz" | "livez", ..] => return (StatusCode::OK, "ok").into_response(),
        [root @ ("api" | "apis")] if accept.contains("as=APIGroupDiscoveryList") => {
            let version = if accept.contains("v=v2;") || accept.ends_with("v=v2") { "v2" } else { "v2beta1" };
            let body = discovery::aggregated(registry, root == "api", version).to_string();
            let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            return (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response();
        }
        [root @ ("api" | "apis")] => Some(discovery::root(registry, root == "api")),
        ["apis", group] => discovery::group(registry, group),
        ["api", version] => discovery::resources(registry, "", version),
        ["apis", group, version] => discovery::resources(registry, group, version),
        ["openapi", "v2"] if accept.contains("protobuf") => {
            // kubectl insists on this encoding: a document with nothing but field 1, `swagger: "2.0"`.
            let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            return (StatusCode::OK, [(header::CONTENT_TYPE, kind)], b"\x0a\x032.0".to_vec()).into_response();
        }
        ["openapi", "v2"] => Some(discovery::openapi_v2()),
        ["openapi", "v3"] => Some(discovery::openapi_v3(registry)),
        ["openapi", "v3", "api", version] => discovery::openapi_v3_document(registry, "", version),
        ["openapi", "v3", "apis", group, version] => discovery::openapi_v3_document(registry, group, version),
        _ => None,
    };
    match found {
        Some(found) => json_response(StatusCode::OK, found.to_string()),
        None if segments.first() == Some(&"apis") && segments.get(1).is_some_and(|group| registry.has_group(group)) => {
            ApiError::no_such_path().into_response()
        }
        None => no_page(),
    }
}

/// What a path answers that belongs to no part of the server.
pub(super) fn no_page() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "404 page not found\n")
        .into_response()
}

/// The first word of the user agent.
pub(super) fn agent(headers: &HeaderMap) -> &str {
    let full = headers.get(header::USER_AGENT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    let name = full.split('/').next().unwrap_or_default();
    if name.is_empty() { "unknown" } else { name }
}
