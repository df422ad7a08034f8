//! Which types the server has, asked once per group and version.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::core::Request;
use kube::core::params::GetParams;
use serde_json::Value;

use super::errors;
use crate::domain::{Gvk, ObjectKey};
use crate::ports::{Clock, ClusterError};

/// After a CRD changed, discovery may lag behind for a while: an answer "not served" is not believed for so long.
const LAG: Duration = Duration::from_secs(30);

/// How a type is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// Plural name, as in the path.
    plural: String,
    /// Whether its objects live in namespaces.
    pub(super) namespaced: bool,
}

impl Kind {
    /// Path of the collection in one namespace, or of all objects.
    pub(super) fn path(&self, gvk: &Gvk, namespace: Option<&str>) -> String {
        let root = root(gvk);
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }
}

fn root(gvk: &Gvk) -> String {
    if gvk.group.is_empty() { format!("/api/{}", gvk.version) } else { format!("/apis/{}", gvk.api_version()) }
}

/// The types that were asked for so far.
#[derive(Default)]
pub(super) struct Kinds {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    served: HashMap<Gvk, Kind>,
    missing: HashSet<Gvk>,
    doubtful_until: Option<Timestamp>,
}

impl Kinds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a type is reached; asks the server when it is not known yet.
    pub(super) async fn find(&self, client: &kube::Client, clock: &dyn Clock, gvk: &Gvk) -> Result<Kind, ClusterError> {
        {
            let state = self.state();
            if let Some(kind) = state.served.get(gvk) {
                return Ok(kind.clone());
            }
            let doubtful = state.doubtful_until.is_some_and(|until| clock.now() < until);
            if state.missing.contains(gvk) && !doubtful {
                return Err(ClusterError::UnknownKind(gvk.clone()));
            }
        }
        let _guard = clock.in_flight();
        let found = served(client, clock, gvk).await?;
        let mut state = self.state();
        for (kind, how) in found {
            let gvk = Gvk { kind, ..gvk.clone() };
            state.missing.remove(&gvk);
            state.served.insert(gvk, how);
        }
        match state.served.get(gvk) {
            Some(kind) => Ok(kind.clone()),
            None => {
                state.missing.insert(gvk.clone());
                Err(ClusterError::UnknownKind(gvk.clone()))
            }
        }
    }

    /// A CRD changed: types that were missing are looked up again.
    pub(super) fn crds_changed(&self, now: Timestamp) {
        let mut state = self.state();
        state.missing.clear();
        state.doubtful_until = now.checked_add(LAG).ok();
    }

    /// The server says that it does not serve this type any more.
    pub(super) fn gone(&self, gvk: &Gvk) {
        self.state().served.remove(gvk);
    }
}

/// The types of a group and version; none when the server does not know it.
async fn served(client: &kube::Client, clock: &dyn Clock, gvk: &Gvk) -> Result<Vec<(String, Kind)>, ClusterError> {
    let path = root(gvk);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let doing = "discovering the types of";
    let key = ObjectKey { gvk: gvk.clone(), namespace: None, name: String::new() };
    let fail = |error: kube::Error| match errors::about(&key, doing, &error) {
        ClusterError::Unavailable { message, .. } | ClusterError::Refused { message, .. } => {
            ClusterError::Unavailable { doing: format!("{doing} {}", gvk.api_version()), message }
        }
        other => other,
    };
    let request = Request::new(parent).get(name, &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest).map_err(fail)?;
    let text = match errors::answered(clock, client.request_text(request)).await {
        Ok(text) => text,
        Err(error) if errors::code(&error) == Some(404) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let list: Value = serde_json::from_str(&text).map_err(|error| fail(kube::Error::SerdeError(error)))?;
    let resources = list.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(resources
        .iter()
        .filter_map(|resource| {
            let plural = resource.get("name")?.as_str().filter(|name| !name.contains('/'))?.to_owned();
            let namespaced = resource.get("namespaced").and_then(Value::as_bool).unwrap_or(false);
            Some((resource.get("kind")?.as_str()?.to_owned(), Kind { plural, namespaced }))
        })
        .collect())
}
