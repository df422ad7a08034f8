#![expect(clippy::disallowed_types, reason = "shell: the composition root makes the Kubernetes client")]
//! The connection to a cluster as kubectl finds it, and the few direct requests of one-shot commands: these read single
//! objects, because whoever types them may not have the right to watch whole types.

use anyhow::{Context as _, anyhow, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use serde_json::Value;

use super::args::ClusterArgs;
use crate::domain::{Gvk, Object, ObjectKey};

/// Field manager of changes that people ask for.
const MANAGER: &str = "serin-cli";

/// The client that the flags, `$KUBECONFIG`, `~/.kube/config` or the pod's service account describe.
pub(crate) async fn client(args: &ClusterArgs) -> anyhow::Result<kube::Client> {
    // The same provider for all clients of the process; whoever came first has installed it.
    rustls::crypto::ring::default_provider().install_default().ok();
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match (&args.kubeconfig, &args.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("reading the kubeconfig {}: give another by --kubeconfig", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        (None, Some(context)) => kube::Config::from_kubeconfig(&options)
            .await
            .with_context(|| format!("finding the context {context}: `kubectl config get-contexts` lists them"))?,
        (None, None) => kube::Config::infer()
            .await
            .context("finding a cluster: give a kubeconfig by --kubeconfig or $KUBECONFIG")?,
    };
    kube::Client::try_from(config).context("setting up the connection to the cluster")
}

/// A type by the names that the API has for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

/// Canaries.
pub(crate) const CANARIES: Resource =
    Resource { group: "flagger.app", version: "v1beta1", kind: "Canary", plural: "canaries" };
/// ConfigMaps.
pub(crate) const CONFIG_MAPS: Resource = Resource { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps" };

/// Direct requests.
pub(crate) struct Direct(kube::Client);

impl Direct {
    pub(crate) async fn connect(args: &ClusterArgs) -> anyhow::Result<Self> {
        Ok(Self(client(args).await?))
    }

    fn api(&self, resource: Resource, namespace: Option<&str>) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(resource.group, resource.version, resource.kind);
        let known = ApiResource::from_gvk_with_plural(&gvk, resource.plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &known),
            None => Api::all_with(self.0.clone(), &known),
        }
    }

    /// How the cluster serves a type, and whether its objects live in namespaces; `None` when it does not serve it.
    pub(crate) async fn kind(&self, gvk: &Gvk) -> anyhow::Result<Option<(ApiResource, bool)>> {
        let name = GroupVersionKind::gvk(&gvk.group, &gvk.version, &gvk.kind);
        match pinned_kind(&self.0, &name).await {
            Ok((resource, capabilities)) => Ok(Some((resource, capabilities.scope == Scope::Namespaced))),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(explain(&error).context(format!("asking the cluster for its types of {gvk}"))),
        }
    }

    /// One object of a type that [`Direct::kind`] has found; `None` when it is not there.
    pub(crate) async fn fetch(&self, key: &ObjectKey, resource: &ApiResource) -> anyhow::Result<Option<Object>> {
        let api: Api<DynamicObject> = match &key.namespace {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, resource),
            None => Api::all_with(self.0.clone(), resource),
        };
        match api.get_opt(&key.name).await {
            Ok(Some(object)) => Ok(Some(Object(serde_json::to_value(&object)?))),
            Ok(None) => Ok(None),
            Err(error) => Err(explain(&error).context(format!("reading {key}"))),
        }
    }

    /// All objects of a type, by namespace and name.
    pub(crate) async fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> anyhow::Result<Vec<Object>> {
        let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        let list = self.api(resource, namespace).list(&params).await;
        let list = list.map_err(|error| explain(&error)).with_context(|| format!("listing {}", resource.plural))?;
        let mut objects = Vec::new();
        for item in list.items {
            let mut value = serde_json::to_value(&item).context("reading the answer of the API server")?;
            // Items of a list come without their type.
            if let Some(map) = value.as_object_mut() {
                let group = resource.group;
                let version = resource.version;
                let full = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                map.insert("apiVersion".to_owned(), full.into());
                map.insert("kind".to_owned(), resource.kind.into());
            }
            objects.push(Object(value));
        }
        objects.sort_by_key(|object| (object.namespace().map(str::to_owned), object.name().to_owned()));
        Ok(objects)
    }

    /// One object; `None` when it is not there.
    pub(crate) async fn get(&self, resource: Resource, namespace: &str, name: &str) -> anyhow::Result<Option<Object>> {
        match self.api(resource, Some(namespace)).get_opt(name).await {
            Ok(Some(object)) => Ok(Some(Object(serde_json::to_value(&object)?))),
            Ok(None) => Ok(None),
            Err(error) => Err(explain(&error).context(format!("reading {} {namespace}/{name}", resource.kind))),
        }
    }

    /// Merges a patch into an object.
    pub(crate) async fn merge(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> anyhow::Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api(resource, Some(namespace)).patch(name, &params, &Patch::Merge(patch)).await;
        if let Err(error) = patched {
            bail!(explain(&error).context(format!("changing {} {namespace}/{name}", resource.kind)));
        }
        Ok(())
    }
}

/// An error of the API server with what to do about it.
fn explain(error: &kube::Error) -> anyhow::Error {
    let text = crate::domain::with_causes(error);
    match error {
        kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
            anyhow!("{text}: your account lacks this right; deploy/rbac.yaml shows what serin itself has")
        }
        kube::Error::Api(status) if status.code == 404 => {
            anyhow!("{text}: are the definitions installed? `serin crds | kubectl apply -f -` installs them")
        }
        kube::Error::Api(_) => anyhow!("{text}"),
        _ => anyhow!("{text}: is the cluster of this kubeconfig up?"),
    }
}
