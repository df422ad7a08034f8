//! Which Canary was first on each target, kept from what the loop sees: with a thousand canaries that are initialised
//! together, each looking through all others at each of its ticks would be most of the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::domain::{CanaryKey, Object};

/// Namespace, kind and name.
type Target = (String, String, String);
/// Whether a Canary still has to be initialised, its creation time as RFC 3339 text of the server, and its name. Whoever is
/// at work keeps its target, even when an older Canary turns to it.
type Claim = (bool, String, String);

/// The Canaries of each target, oldest first.
#[derive(Default)]
pub(crate) struct Targets(Mutex<Index>);

#[derive(Default)]
struct Index {
    claims: BTreeMap<Target, BTreeSet<Claim>>,
    known: BTreeMap<CanaryKey, (Target, Claim)>,
}

impl Index {
    fn forget(&mut self, canary: &CanaryKey) {
        let Some((target, claim)) = self.known.remove(canary) else { return };
        if let Some(claims) = self.claims.get_mut(&target) {
            claims.remove(&claim);
            if claims.is_empty() {
                self.claims.remove(&target);
            }
        }
    }
}

impl Targets {
    /// A Canary as it is now; `None` when it is gone.
    pub(super) fn seen(&self, canary: &CanaryKey, object: Option<&Object>) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |object: &Object, pointer: &str| object.str(pointer).to_owned();
        let entry = object.map(|object| {
            let (kind, name) = (text(object, "/spec/targetRef/kind"), text(object, "/spec/targetRef/name"));
            let knative = object.str("/spec/targetRef/apiVersion").starts_with("serving.knative.dev/");
            let kind = if knative { format!("Knative {kind}") } else { kind };
            let fresh = matches!(object.str("/status/phase"), "" | "Initializing");
            let claim = (fresh, text(object, "/metadata/creationTimestamp"), canary.name.clone());
            ((canary.namespace.clone(), kind, name), claim)
        });
        if index.known.get(canary) == entry.as_ref() {
            return;
        }
        index.forget(canary);
        if let Some((target, claim)) = entry {
            index.claims.entry(target.clone()).or_default().insert(claim.clone());
            index.known.insert(canary.clone(), (target, claim));
        }
    }

    /// These are all Canaries that there are.
    pub(super) fn only(&self, canaries: &BTreeSet<CanaryKey>) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = index.known.keys().filter(|known| !canaries.contains(known)).cloned().collect();
        gone.iter().for_each(|canary| index.forget(canary));
    }

    /// The Canary that came before this one to its target.
    pub(super) fn before(&self, canary: &CanaryKey) -> Option<String> {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (target, claim) = index.known.get(canary)?;
        index.claims.get(target)?.first().filter(|first| *first < claim).map(|(_, _, name)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn q40_s19_the_oldest_canary_keeps_its_target() {
        let targets = Targets::default();
        let see_in = |phase: &str, name: &str, created: &str, target: &str| {
            let object = json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
                "spec": {"targetRef": {"kind": "Deployment", "name": target}}, "status": {"phase": phase}});
            targets.seen(&CanaryKey::new("shop", name), Some(&Object(object)));
        };
        let see = |name: &str, created: &str, target: &str| see_in("", name, created, target);
        let before = |name: &str| targets.before(&CanaryKey::new("shop", name));
        see("b", "2026-01-01T00:00:00Z", "web");
        see("a", "2026-01-02T00:00:00Z", "web");
        see("c", "2026-01-01T00:00:00Z", "web");
        see("d", "2025-01-01T00:00:00Z", "other");
        assert_eq!(["a", "b", "c", "d", "unknown"].map(before), [Some("b".into()), None, Some("b".into()), None, None]);
        see("d", "2025-01-01T00:00:00Z", "web");
        assert_eq!(before("b").as_deref(), Some("d"), "an older one that turns to this target");
        see_in("Succeeded", "b", "2026-01-01T00:00:00Z", "web");
        assert_eq!([before("b"), before("d")], [None, Some("b".into())], "who is at work keeps its target");
        targets.seen(&CanaryKey::new("shop", "d"), None);
        targets.seen(&CanaryKey::new("shop", "b"), None);
        assert_eq!([before("a").as_deref(), before("c").as_deref()], [Some("c"), None]);
        targets.only(&BTreeSet::from([CanaryKey::new("shop", "a")]));
        assert_eq!(before("a"), None);
    }
}
