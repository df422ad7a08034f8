//! The volumes of a pod as folders: ConfigMaps, Secrets, tokens, fields of the pod, and empty ones.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ServiceAccount, Volume, VolumeProjection};
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::environment::{config_map, field, secret};
use super::pod::Life;

/// Makes all volumes; fails while something that they need is not there.
pub(super) async fn prepare(life: &Life) -> anyhow::Result<()> {
    let spec = life.pod.spec.clone().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        let place = life.folder.join("volumes").join(&volume.name);
        std::fs::create_dir_all(&place)?;
        one(life, volume, &place).await.with_context(|| format!("making the volume {}", volume.name))?;
    }
    Ok(())
}

async fn one(life: &Life, volume: &Volume, place: &Path) -> anyhow::Result<()> {
    if let Some(map) = &volume.config_map {
        let data = config_map(life, &map.name).await;
        let data = if map.optional == Some(true) { data.unwrap_or_default() } else { data? };
        return files(place, data, map.items.as_deref());
    }
    if let Some(secret) = &volume.secret {
        let data = self::secret(life, secret.secret_name.as_deref().unwrap_or_default()).await;
        let data = if secret.optional == Some(true) { data.unwrap_or_default() } else { data? };
        return files(place, data, secret.items.as_deref());
    }
    if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            project(life, source, place).await?;
        }
        return Ok(());
    }
    if let Some(downward) = &volume.downward_api {
        return fields(life, downward.items.as_deref().unwrap_or_default(), place);
    }
    if volume.empty_dir.is_some() {
        return Ok(std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o777))?);
    }
    bail!("volumes of this kind are not played here")
}

async fn project(life: &Life, source: &VolumeProjection, place: &Path) -> anyhow::Result<()> {
    if let Some(token) = &source.service_account_token {
        let text = self::token(life, token.audience.clone(), token.expiration_seconds).await?;
        write(place, &token.path, &text)?;
    }
    if let Some(map) = &source.config_map {
        files(place, config_map(life, &map.name).await?, map.items.as_deref())?;
    }
    if let Some(secret) = &source.secret {
        files(place, self::secret(life, &secret.name).await?, secret.items.as_deref())?;
    }
    if let Some(downward) = &source.downward_api {
        fields(life, downward.items.as_deref().unwrap_or_default(), place)?;
    }
    Ok(())
}

/// A token of the pod's ServiceAccount. It is not renewed: no test lasts as long as it.
async fn token(life: &Life, audience: Option<String>, seconds: Option<i64>) -> anyhow::Result<String> {
    let spec = life.pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned());
    let namespace = life.pod.namespace().unwrap_or_default();
    let api: Api<ServiceAccount> = Api::namespaced(life.shared.client.clone(), &namespace);
    let spec = TokenRequestSpec {
        audiences: audience.into_iter().collect(),
        expiration_seconds: seconds,
        ..TokenRequestSpec::default()
    };
    let asked = TokenRequest { spec, ..TokenRequest::default() };
    let answer = api.create_token_request(&account, &PostParams::default(), &asked).await;
    let answer = answer.with_context(|| format!("asking for a token of {account}"))?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

fn fields(life: &Life, items: &[DownwardAPIVolumeFile], place: &Path) -> anyhow::Result<()> {
    for item in items {
        let path = item.field_ref.as_ref().map(|field| field.field_path.clone()).unwrap_or_default();
        write(place, &item.path, &field(&life.pod, &life.ip, &path))?;
    }
    Ok(())
}

fn files(place: &Path, data: Vec<(String, String)>, items: Option<&[KeyToPath]>) -> anyhow::Result<()> {
    for (key, text) in data {
        match items {
            None => write(place, &key, &text)?,
            Some(items) => {
                for item in items.iter().filter(|item| item.key == key) {
                    write(place, &item.path, &text)?;
                }
            }
        }
    }
    Ok(())
}

fn write(place: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    let file = place.join(path);
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}
