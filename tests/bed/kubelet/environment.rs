//! The environment of a container: its own variables, those of ConfigMaps, Secrets and the pod's fields.

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};
use kube::ResourceExt as _;
use kube::api::Api;

use super::NAME;
use super::pod::Life;
use crate::net::NODE;

/// The variables, in order; later ones may use earlier ones.
pub(super) async fn variables(life: &Life, spec: &Container) -> anyhow::Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/"),
        ("HOSTNAME", &life.pod.name_any()),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for from in spec.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(map) = &from.config_map_ref {
            let found = config_map(life, &map.name).await;
            let data = if map.optional == Some(true) { found.unwrap_or_default() } else { found? };
            all.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        }
        if let Some(secret) = &from.secret_ref {
            let found = self::secret(life, &secret.name).await;
            let data = if secret.optional == Some(true) { found.unwrap_or_default() } else { found? };
            all.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        }
    }
    for variable in spec.env.iter().flatten() {
        if let Some(value) = value(life, variable).await? {
            let value = if variable.value.is_some() { expand(&value, &all) } else { value };
            all.push((variable.name.clone(), value));
        }
    }
    Ok(all)
}

async fn value(life: &Life, variable: &EnvVar) -> anyhow::Result<Option<String>> {
    let Some(from) = &variable.value_from else { return Ok(variable.value.clone()) };
    let missing = |kind: &str, name: &str, key: &str| anyhow!("{kind} {name} has no key {key}");
    if let Some(key) = &from.config_map_key_ref {
        let found = config_map(life, &key.name).await.and_then(|data| {
            let value = data.into_iter().find(|(name, _)| *name == key.key);
            value.map(|(_, value)| value).ok_or_else(|| missing("ConfigMap", &key.name, &key.key))
        });
        return if key.optional == Some(true) { Ok(found.ok()) } else { found.map(Some) };
    }
    if let Some(key) = &from.secret_key_ref {
        let found = secret(life, &key.name).await.and_then(|data| {
            let value = data.into_iter().find(|(name, _)| *name == key.key);
            value.map(|(_, value)| value).ok_or_else(|| missing("Secret", &key.name, &key.key))
        });
        return if key.optional == Some(true) { Ok(found.ok()) } else { found.map(Some) };
    }
    if let Some(field) = &from.field_ref {
        return Ok(Some(self::field(&life.pod, &life.ip, &field.field_path)));
    }
    // Resources mean nothing to a process of this node.
    Ok(from.resource_field_ref.as_ref().map(|_| "1".to_owned()))
}

/// A field of the pod as the downward API names it.
pub(super) fn field(pod: &Pod, ip: &str, path: &str) -> String {
    let spec = pod.spec.as_ref();
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return pod.labels().get(key).cloned().unwrap_or_default();
    }
    if let Some(key) = keyed("metadata.annotations") {
        return pod.annotations().get(key).cloned().unwrap_or_default();
    }
    match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "spec.nodeName" => NAME.to_owned(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => ip.to_owned(),
        "status.hostIP" => NODE.to_owned(),
        _ => String::new(),
    }
}

/// The data of a ConfigMap.
pub(super) async fn config_map(life: &Life, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let api: Api<ConfigMap> = Api::namespaced(life.shared.client.clone(), &life.pod.namespace().unwrap_or_default());
    let found = api.get(name).await.with_context(|| format!("reading ConfigMap {name}"))?;
    Ok(found.data.unwrap_or_default().into_iter().collect())
}

/// The data of a Secret.
pub(super) async fn secret(life: &Life, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let api: Api<Secret> = Api::namespaced(life.shared.client.clone(), &life.pod.namespace().unwrap_or_default());
    let found = api.get(name).await.with_context(|| format!("reading Secret {name}"))?;
    let data = found.data.unwrap_or_default().into_iter();
    Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
}

/// Replaces `$(NAME)` by the variable's value; unknown names stay as they are, and `$$` is one `$`.
pub(super) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        done += before;
        let name = from.strip_prefix("$(").and_then(|inner| Some((inner, inner.find(')')?)));
        if let Some(after) = from.strip_prefix("$$") {
            done.push('$');
            rest = after;
        } else if let Some((inner, end)) = name {
            let found = variables.iter().rev().find(|(known, _)| *known == inner[..end]);
            done += &found.map_or_else(|| format!("$({})", &inner[..end]), |(_, value)| value.clone());
            rest = &inner[end + 1..];
        } else {
            done.push('$');
            rest = &from[1..];
        }
    }
    done + rest
}
