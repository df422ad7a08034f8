//! The plan itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{CanaryView, Phase};
use crate::domain::{CanaryKey, Object, ObjectKey, Sha};
use crate::manifest::{Manifest, ManifestSet, Problem, Severity};

use super::compare::{COMMIT_ANNOTATION, DIGEST_ANNOTATION, compare, digest};
use super::order::{WAVES, wave};
use super::owned::Owners;
use super::{Action, Change, Inventory, Plan, Policy, PruneStopped};

/// Looks up an object of the cluster.
type Live<'a> = &'a dyn Fn(&ObjectKey) -> Option<Arc<Object>>;

/// Plans the application of a rendered source: pure, and the same for the same arguments.
///
/// `canaries` are those of the cluster; `commit` is the rendered commit, which is written on objects that change.
pub fn plan(
    set: &ManifestSet,
    live: &dyn Fn(&ObjectKey) -> Option<Arc<Object>>,
    inventory: &Inventory,
    canaries: &[CanaryView],
    policy: &Policy<'_>,
    commit: Option<&Sha>,
) -> Plan {
    let mut planner = Planner {
        live,
        policy,
        commit,
        owners: Owners::new(set, canaries),
        holding: holding(canaries),
        apply: vec![Vec::new(); WAVES],
        uids: BTreeSet::new(),
        plan: Plan::default(),
    };
    let mut wanted = BTreeMap::new();
    for manifest in &set.manifests {
        if planner.manifest(manifest) {
            wanted.insert(identity(&manifest.object.key()), manifest.object.key());
        }
    }
    planner.prune(set, inventory, &wanted);
    planner.finish(inventory, wanted.into_values().collect())
}

/// A key without its version, which is no part of an object's identity.
fn identity(key: &ObjectKey) -> ObjectKey {
    let mut key = key.clone();
    key.gvk.version.clear();
    key
}

/// Targets that carry the traffic because their primary did not come up in a promotion (gitops.md §3.2).
fn holding(canaries: &[CanaryView]) -> BTreeMap<(String, String, String), CanaryKey> {
    let held = canaries.iter().filter(|c| c.status.phase == Phase::Failed && c.status.canary_weight > 0);
    held.map(|canary| {
        let target = &canary.spec.target_ref;
        ((target.kind.clone(), canary.key.namespace.clone(), target.name.clone()), canary.key.clone())
    })
    .collect()
}

struct Planner<'a, 'p> {
    live: Live<'a>,
    policy: &'a Policy<'p>,
    commit: Option<&'a Sha>,
    owners: Owners,
    holding: BTreeMap<(String, String, String), CanaryKey>,
    apply: Vec<Vec<Change>>,
    /// UIDs of live objects that Git wants, under whatever group they are asked for.
    uids: BTreeSet<String>,
    plan: Plan,
}

impl Planner<'_, '_> {
    /// Plans one object; `false` when it is another source's, which must not enter our inventory.
    fn manifest(&mut self, manifest: &Manifest) -> bool {
        let key = manifest.object.key();
        if let Some(claim) = self.policy.claims.and_then(|claims| claims(&key)).filter(|claim| claim.owns) {
            self.plan.problems.push(Problem {
                file: manifest.file.clone(),
                line: manifest.line,
                column: 1,
                severity: Severity::Error,
                message: format!("{key} belongs to source {}", claim.source),
                help: Some(format!(
                    "remove it here or there; when {} drops it, this source takes it over",
                    claim.source
                )),
            });
            let reason = format!("it belongs to source {}", claim.source);
            self.push(&key.clone(), Change::Skip { key, reason });
            return false;
        }
        let live = (self.live)(&key);
        if let Some(live) = live.as_deref().filter(|live| !live.uid().is_empty()) {
            self.uids.insert(live.uid().to_owned());
        }
        let change = self.change(&manifest.object, key.clone(), live.as_deref());
        self.push(&key, change);
        true
    }

    fn push(&mut self, key: &ObjectKey, change: Change) {
        if let Some(wave) = self.apply.get_mut(wave(&key.gvk)) {
            wave.push(change);
        }
    }

    fn change(&self, wanted: &Object, key: ObjectKey, live: Option<&Object>) -> Change {
        let skip = |key, reason: &str| Change::Skip { key, reason: reason.to_owned() };
        let off = |object: &Object| object.annotation("serin.dev/reconcile") == Some("disabled");
        if self.policy.suspended {
            return skip(key, "the source is suspended");
        }
        if let Some(live) = live {
            if off(wanted) || off(live) {
                return skip(key, "serin.dev/reconcile: disabled");
            }
            if live.is_terminating() {
                return skip(key, "it is being deleted; it is created again when it is gone");
            }
            let target = (key.gvk.kind.clone(), key.namespace.clone().unwrap_or_default(), key.name.clone());
            if let Some(canary) = self.holding.get(&target) {
                return skip(key, &format!("it carries the traffic of canary {canary} until the primary is ready"));
            }
        }
        let mut object = self.owners.leave_out(wanted, live);
        for name in [COMMIT_ANNOTATION, DIGEST_ANNOTATION] {
            if let Some(map) = object.0.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                map.remove(name);
            }
        }
        let (action, fields) = match live {
            None => (Action::Create, Vec::new()),
            Some(live) => {
                let difference = compare(&object, live);
                if !difference.changed {
                    return Change::Unchanged { key };
                }
                (Action::Update, difference.fields)
            }
        };
        let force = wanted.annotation("serin.dev/force") == Some("enabled");
        let digest = digest(&object).0;
        annotate(&mut object, DIGEST_ANNOTATION, &digest);
        if let Some(commit) = self.commit_for(live, &digest) {
            annotate(&mut object, COMMIT_ANNOTATION, &commit);
        }
        Change::Apply { object, action, fields, force }
    }

    /// The commit that is written: the present one where Git changed, the one that stands there where only drift is
    /// corrected.
    fn commit_for(&self, live: Option<&Object>, digest: &str) -> Option<String> {
        let recorded = live
            .filter(|live| live.annotation(DIGEST_ANNOTATION) == Some(digest))
            .and_then(|live| live.annotation(COMMIT_ANNOTATION));
        recorded.map(str::to_owned).or_else(|| self.commit.map(ToString::to_string))
    }

    fn prune(&mut self, set: &ManifestSet, inventory: &Inventory, wanted: &BTreeMap<ObjectKey, ObjectKey>) {
        let mut prunes: Vec<Vec<Change>> = vec![Vec::new(); WAVES];
        let mut kept = BTreeSet::new();
        let mut doomed = Vec::new();
        let mut present = 0;
        for key in &inventory.entries {
            let Some(live) = (self.live)(key) else { continue };
            present += 1;
            if wanted.contains_key(&identity(key)) {
                continue;
            }
            if self.uids.contains(live.uid()) {
                // The same object under another group, as Ingress in `extensions` once.
                continue;
            }
            let change = self.removal(set, key, &live);
            match &change {
                Change::Prune { key, .. } => doomed.push(key.clone()),
                Change::Skip { reason, .. } if reason.starts_with(MOVED) => present -= 1,
                Change::Skip { reason, .. } if KEPT.contains(&reason.as_str()) => {
                    kept.insert(key.clone());
                }
                _ => {}
            }
            if let Some(wave) = prunes.get_mut(wave(&key.gvk)) {
                wave.push(change);
            }
        }
        let stopped = doomed.iter().any(|key| inventory.stopped.contains(key));
        if let Some(guard) = self.guard(&doomed, present, stopped) {
            self.plan.inventory_union.stopped = doomed.iter().cloned().collect();
            self.plan.inventory_after.stopped.clone_from(&self.plan.inventory_union.stopped);
            for change in prunes.iter_mut().flatten() {
                if let Change::Prune { key, .. } = change {
                    kept.insert(key.clone());
                    *change = Change::Skip { key: key.clone(), reason: "pruning was stopped".to_owned() };
                }
            }
            self.plan.guard = Some(guard);
        }
        prunes.reverse();
        self.apply.extend(prunes);
        self.plan.inventory_after.entries = kept;
    }

    /// What happens to an object that left Git.
    fn removal(&self, set: &ManifestSet, key: &ObjectKey, live: &Object) -> Change {
        let skip = |reason: &str| Change::Skip { key: key.clone(), reason: reason.to_owned() };
        if let Some(claim) = self.policy.claims.and_then(|claims| claims(key)) {
            return skip(&format!("{MOVED} {}", claim.source));
        }
        if live.annotation("serin.dev/prune") == Some("disabled") {
            return skip("serin.dev/prune: disabled");
        }
        if self.policy.suspended {
            return skip(SUSPENDED);
        }
        if set.has_errors() || !self.plan.problems.is_empty() {
            return skip(ERRORS);
        }
        if !self.policy.prune {
            return skip(OFF);
        }
        Change::Prune { key: key.clone(), uid: live.uid().to_owned() }
    }

    /// Stops a mass deletion that nobody confirmed (product.md §3). `total` is what the source owns and the cluster
    /// has; `stopped`, whether some of this was stopped before.
    fn guard(&self, doomed: &[ObjectKey], total: usize, stopped: bool) -> Option<PruneStopped> {
        let count = doomed.len();
        if count == 0 || self.policy.prune_confirmed {
            return None;
        }
        let foundation = doomed.iter().find(|key| wave(&key.gvk) == 0);
        let reason = if let Some(key) = foundation {
            format!("{key} would go, and everything in it")
        } else if count == total {
            "all objects of the source would go".to_owned()
        } else if count > 5 && count * 5 > total {
            "more than 20 % of the source's objects would go".to_owned()
        } else if stopped {
            "it was stopped before, and nobody has confirmed it".to_owned()
        } else {
            return None;
        };
        let source = self.policy.source;
        let commit = self.commit.map_or("SHA", |commit| commit.short());
        let confirm = format!(
            "serin apply --confirm-prune {source}@{commit}, or a commit with the trailer `Serin-Allow-Prune: {source}`"
        );
        Some(PruneStopped { count, total, reason, confirm })
    }

    fn finish(mut self, inventory: &Inventory, wanted: BTreeSet<ObjectKey>) -> Plan {
        let identities: BTreeSet<_> = wanted.iter().map(identity).collect();
        self.plan.inventory_union.entries = wanted.clone();
        let old = inventory.entries.iter().filter(|key| !identities.contains(&identity(key)));
        self.plan.inventory_union.entries.extend(old.cloned());
        self.plan.inventory_after.entries.extend(wanted);
        self.plan.waves = self.apply.into_iter().filter(|wave| !wave.is_empty()).collect();
        self.plan
    }
}

const MOVED: &str = "it moved to source";
const SUSPENDED: &str = "it left Git, and the source is suspended";
const ERRORS: &str = "it left Git, and nothing is pruned while a file has errors";
const OFF: &str = "it left Git, and the source does not prune";

/// Reasons after which the object stays in the inventory, to be pruned another time.
const KEPT: &[&str] = &[SUSPENDED, ERRORS, OFF];

fn annotate(object: &mut Object, name: &str, value: &str) {
    let Some(metadata) = object.0.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(map) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut() {
        map.insert(name.to_owned(), value.into());
    }
}
