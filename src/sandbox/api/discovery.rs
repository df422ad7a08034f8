//! Discovery, version and OpenAPI documents.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::types::{Registry, Resource, version_rank};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Of custom types, in the order of the server that serves them.
const CUSTOM_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: &[&str] = &["get", "patch", "update"];

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.0+serin-sandbox", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "sandbox",
    })
}

/// Versions by group, preferred first.
fn groups(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in registry.all() {
        let versions = groups.entry(resource.group.clone()).or_default();
        for version in &resource.versions {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
    }
    groups.values_mut().for_each(|versions| versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v))));
    groups
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_document(name: &str, versions: &[String]) -> Value {
    let one = |v: &String| json!({ "groupVersion": group_version(name, v), "version": v });
    let all: Vec<Value> = versions.iter().map(one).collect();
    json!({ "name": name, "versions": all, "preferredVersion": versions.first().map(one) })
}

/// `/api` and `/apis` in their old form.
pub(crate) fn root(registry: &Registry, core: bool) -> Value {
    if core {
        return json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1" }],
        });
    }
    let groups: Vec<Value> =
        groups(registry).iter().filter(|(name, _)| !name.is_empty()).map(|(name, v)| group_document(name, v)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut document = group_document(name, groups(registry).get(name).filter(|_| !name.is_empty())?);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn verbs(resource: &Resource) -> &'static [&'static str] {
    if resource.custom.is_some() { CUSTOM_VERBS } else { VERBS }
}

fn of_version<'a>(registry: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    registry
        .all()
        .map(AsRef::as_ref)
        .filter(move |r: &&Resource| r.group == group && r.versions.iter().any(|v| v == version))
}

/// `/apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list: Vec<Value> = vec![];
    for r in of_version(registry, group, version) {
        let mut entry = json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs(r),
        });
        if !r.short.is_empty() {
            entry["shortNames"] = json!(r.short);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        list.push(entry);
        let part = |name: &str, kind: &str| {
            json!({
                "name": format!("{}/{name}", r.plural), "singularName": "", "namespaced": r.namespaced,
                "kind": kind, "verbs": PART_VERBS,
            })
        };
        if r.status {
            list.push(part("status", &r.kind));
        }
        if r.scale.is_some() {
            let mut scale = part("scale", "Scale");
            scale["group"] = "autoscaling".into();
            scale["version"] = "v1".into();
            list.push(scale);
        }
    }
    let name = group_version(group, version);
    (!list.is_empty())
        .then(|| json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list }))
}

/// `/api` and `/apis` in the aggregated form.
pub(crate) fn aggregated(registry: &Registry, core: bool, version: &str) -> Value {
    let items: Vec<Value> = groups(registry)
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    let resources: Vec<Value> =
                        of_version(registry, name, v).map(|r| aggregated_resource(r, v)).collect();
                    json!({ "version": v, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let mut meta = json!({});
            if !name.is_empty() {
                meta["name"] = name.clone().into();
            }
            json!({ "metadata": meta, "versions": versions })
        })
        .collect();
    let api_version = format!("apidiscovery.k8s.io/{version}");
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items })
}

fn aggregated_resource(r: &Resource, version: &str) -> Value {
    let kind = json!({ "group": r.group, "version": version, "kind": r.kind });
    let mut parts = vec![];
    if r.scale.is_some() {
        let scale = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
        parts.push(json!({ "subresource": "scale", "responseKind": scale, "verbs": PART_VERBS }));
    }
    if r.status {
        parts.push(json!({ "subresource": "status", "responseKind": kind, "verbs": PART_VERBS }));
    }
    let mut entry = json!({
        "resource": r.plural, "responseKind": kind, "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular, "verbs": verbs(r),
    });
    for (field, list) in
        [("shortNames", json!(r.short)), ("categories", json!(r.categories)), ("subresources", parts.into())]
    {
        if list.as_array().is_some_and(|l| !l.is_empty()) {
            entry[field] = list;
        }
    }
    entry
}

/// `/openapi/v2`: valid, and empty.
pub(crate) fn openapi_v2() -> Value {
    let info = json!({ "title": "serin sandbox", "version": "v1.34.0" });
    json!({ "swagger": "2.0", "info": info, "paths": {}, "definitions": {} })
}

/// `/openapi/v3`: where the documents of each version are.
pub(crate) fn openapi_v3(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in groups(registry) {
        for version in versions {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            paths.insert(path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash=0") }));
        }
    }
    json!({ "paths": paths })
}

/// One document of `/openapi/v3`: enough for kubectl to see that the server validates by itself, and to explain
/// custom types.
pub(crate) fn openapi_v3_document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for r in of_version(registry, group, version) {
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let place = if r.namespaced { "/namespaces/{namespace}" } else { "" };
        let gvk = json!({ "group": group, "version": version, "kind": r.kind });
        let query =
            |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
        let patch = json!({
            "operationId": format!("patch{}", r.kind), "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": gvk,
            "parameters": [query("dryRun"), query("fieldManager"), query("fieldValidation"), query("force")],
            "responses": { "200": { "description": "OK" } },
        });
        paths.insert(format!("{base}{place}/{}/{{name}}", r.plural), json!({ "patch": patch }));
        let mut schema = r
            .custom
            .as_ref()
            .and_then(|versions| versions.get(version))
            .map(|v| v.schema.clone())
            .filter(Value::is_object)
            .unwrap_or_else(|| json!({ "type": "object" }));
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        let reversed: Vec<&str> = group.split('.').rev().filter(|p| !p.is_empty()).collect();
        schemas
            .insert(format!("{}.{version}.{}", reversed.join("."), r.kind).trim_start_matches('.').to_owned(), schema);
    }
    let info = json!({ "title": "serin sandbox", "version": "v1.34.0" });
    (!paths.is_empty())
        .then(|| json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": { "schemas": schemas } }))
}
