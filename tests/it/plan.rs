//! What applying changes: `serin::plan`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod lints;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use serin::api::CanaryView;
use serin::domain::{Object, ObjectKey, Sha, Snapshot};
use serin::manifest::{Input, ManifestSet, Problem, Severity, decode, render};
use serin::plan::{
    Change, Claim, Inventory, Plan, Policy, allows_prune, lint, plan, problems_github, problems_json, problems_text,
    timeline,
};

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// A cluster that applies as the API server does, over plain maps; lists are atomic.
#[derive(Default)]
struct Cluster {
    objects: BTreeMap<ObjectKey, Object>,
    uids: u32,
}

/// The fields of a value as `fieldsV1` writes them.
fn fields(value: &Value) -> Value {
    match value.as_object() {
        Some(map) => map.iter().map(|(key, item)| (format!("f:{key}"), fields(item))).collect::<Map<_, _>>().into(),
        None => json!({}),
    }
}

fn merge(live: &mut Value, new: &Value) {
    match (live, new) {
        (Value::Object(live), Value::Object(new)) => {
            for (key, item) in new {
                merge(live.entry(key.clone()).or_insert(Value::Null), item);
            }
        }
        (live, new) => *live = new.clone(),
    }
}

/// Takes away what was owned and is not wanted any more.
fn cut(live: &mut Value, owned: &Value, new: &Value) {
    let (Some(map), Some(owned)) = (live.as_object_mut(), owned.as_object()) else { return };
    for (name, below) in owned {
        let key = name.trim_start_matches("f:");
        match new.get(key) {
            None => drop(map.remove(key)),
            Some(new) => {
                if let Some(live) = map.get_mut(key) {
                    cut(live, below, new);
                }
            }
        }
    }
}

/// Removes a path from `fieldsV1`, with the parents that it leaves empty.
fn disown(fields: &mut Value, path: &[&str]) {
    let (Some((first, rest)), Some(map)) = (path.split_first(), fields.as_object_mut()) else { return };
    let name = format!("f:{first}");
    if let Some(below) = map.get_mut(&name) {
        disown(below, rest);
        if rest.is_empty() || below.as_object().is_some_and(Map::is_empty) {
            map.remove(&name);
        }
    }
}

impl Cluster {
    fn load(text: &str) -> Self {
        let mut cluster = Self::default();
        for (value, _) in decode(text, "live.yaml").0 {
            cluster.put(Object(value));
        }
        cluster
    }

    fn put(&mut self, mut object: Object) {
        self.uids += 1;
        if object.uid().is_empty() {
            object.0["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        }
        self.objects.insert(object.key(), object);
    }

    fn apply(&mut self, object: &Object) {
        let mut live = self.objects.remove(&object.key()).unwrap_or_else(|| Object(json!({"metadata": {}})));
        let mut wanted = object.0.clone();
        for name in ["apiVersion", "kind"] {
            wanted.as_object_mut().unwrap().remove(name);
        }
        let mut entries: Vec<Value> = live.0["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        if let Some(at) = entries.iter().position(|entry| entry["manager"] == "serin") {
            let old = entries.remove(at);
            cut(&mut live.0, &old["fieldsV1"], &object.0);
        }
        merge(&mut live.0, &object.0);
        entries.push(json!({"manager": "serin", "operation": "Apply", "fieldsV1": fields(&wanted)}));
        live.0["metadata"]["managedFields"] = entries.into();
        self.put(live);
    }

    /// Another manager sets one field, and with it takes the field from us.
    fn edit(&mut self, key: &ObjectKey, manager: &str, path: &[&str], value: Value) {
        let object = self.objects.get_mut(key).unwrap();
        *path.iter().fold(&mut object.0, |at, name| &mut at[*name]) = value;
        let entries = object.0["metadata"]["managedFields"].as_array_mut().unwrap();
        for entry in entries.iter_mut().filter(|entry| entry["manager"] == "serin") {
            disown(&mut entry["fieldsV1"], path);
        }
        let owned = path.iter().rev().fold(json!({}), |inner, name| json!({ format!("f:{name}"): inner }));
        entries.push(json!({"manager": manager, "operation": "Update", "fieldsV1": owned}));
    }

    fn canaries(&self) -> Vec<CanaryView> {
        let canaries = self.objects.values().filter(|object| object.gvk().kind == "Canary");
        canaries.map(|object| CanaryView::from_object(object).unwrap()).collect()
    }

    fn plan(&self, set: &ManifestSet, inventory: &Inventory, policy: &Policy<'_>) -> Plan {
        let live = |key: &ObjectKey| self.objects.get(key).cloned().map(Arc::new);
        plan(set, &live, inventory, &self.canaries(), policy, Some(&Sha(COMMIT.to_owned())))
    }

    fn carry_out(&mut self, plan: &Plan) {
        for change in plan.waves.iter().flatten() {
            match change {
                Change::Apply { object, .. } => self.apply(object),
                Change::Prune { key, .. } => drop(self.objects.remove(key)),
                Change::Unchanged { .. } | Change::Skip { .. } => {}
            }
        }
    }
}

fn set(text: &str) -> ManifestSet {
    render(&Input::new(&Snapshot::from_texts([("a.yaml", text)]), ""))
}

fn inventory(text: &str) -> Inventory {
    Inventory { entries: set(text).manifests.iter().map(|m| m.object.key()).collect(), ..Inventory::default() }
}

const POLICY: Policy<'static> =
    Policy { source: "apps", prune: true, prune_confirmed: false, suspended: false, claims: None };

#[track_caller]
fn check(live: &str, owned: &str, desired: &str, want: &str) {
    let plan = Cluster::load(live).plan(&set(desired), &inventory(owned), &POLICY);
    let want: Vec<_> = want.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(plan.to_string().lines().map(str::trim).collect::<Vec<_>>(), want);
}

fn config(name: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: shop{more}}}, data: {{k: v}}}}\n"
    )
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:1'}]}
";
const CANARY: &str = "
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  service: {port: 80}
  analysis: {interval: 1m, threshold: 5, maxWeight: 50, stepWeight: 10}
";

#[test]
fn new_objects_come_in_waves() {
    let desired = format!(
        "{CANARY}---{WEB}---
{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}}}
---
{{apiVersion: projectcontour.io/v1, kind: HTTPProxy, metadata: {{name: root, namespace: shop}}}}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}
"
    );
    check(
        "",
        "",
        &desired,
        "wave 1
           create Namespace shop
         wave 2
           create Service shop/web
         wave 3
           create Deployment shop/web
         wave 4
           create HTTPProxy shop/root
         wave 5
           create Canary shop/web",
    );
}

#[test]
fn prunes_go_in_reverse_and_only_what_the_inventory_owns() {
    let keep: String = (0..9).map(|i| config(&format!("keep{i}"), "")).collect();
    let live = format!("{WEB}{CANARY}{keep}{}{}", config("old", ""), config("foreign", ""));
    let owned = format!("{WEB}{CANARY}{keep}{}", config("old", ""));
    let plan = Cluster::load(&live).plan(&set(&keep), &inventory(&owned), &POLICY);
    let prunes: Vec<_> = plan
        .waves
        .iter()
        .flatten()
        .filter_map(|change| match change {
            Change::Prune { key, uid } => Some((key.to_string(), !uid.is_empty())),
            _ => None,
        })
        .collect();
    let want = ["Canary shop/web", "Deployment shop/web", "ConfigMap shop/old"];
    assert_eq!(prunes, want.map(|key| (key.to_owned(), true)));
    assert_eq!(plan.inventory_after.entries, inventory(&keep).entries);
    assert_eq!(plan.inventory_union.entries, inventory(&owned).entries);
}

#[test]
fn a_stopped_deletion_stays_stopped_when_the_source_has_grown() {
    let configs = |range: std::ops::Range<usize>| range.map(|i| config(&format!("c{i}"), "")).collect::<String>();
    let mut cluster = Cluster::load(&configs(0..3));
    let plan = cluster.plan(&set(&configs(3..6)), &inventory(&configs(0..3)), &POLICY);
    assert!(plan.guard.is_some());
    cluster.carry_out(&plan);
    // Three of six would be no mass deletion by themselves.
    let again = cluster.plan(&set(&configs(3..6)), &plan.inventory_union, &POLICY);
    assert_eq!(again.guard.map(|guard| (guard.count, guard.total)), Some((3, 6)));
    let confirmed =
        cluster.plan(&set(&configs(3..6)), &plan.inventory_union, &Policy { prune_confirmed: true, ..POLICY });
    assert_eq!((confirmed.guard, confirmed.inventory_after.stopped.len()), (None, 0));
    let brought_back = cluster.plan(&set(&configs(0..6)), &plan.inventory_union, &POLICY);
    assert_eq!((brought_back.guard, brought_back.inventory_union.stopped.len()), (None, 0));
}

#[test]
fn a_mass_deletion_stops_and_asks() {
    let configs = |range: std::ops::Range<usize>| range.map(|i| config(&format!("c{i}"), "")).collect::<String>();
    let stopped = |owned: &str, desired: &str| {
        let mut cluster = Cluster::load(owned);
        let plan = cluster.plan(&set(desired), &inventory(owned), &POLICY);
        let confirmed = cluster.plan(&set(desired), &inventory(owned), &Policy { prune_confirmed: true, ..POLICY });
        assert_eq!(confirmed.guard, None);
        if plan.guard.is_some() {
            assert!(!plan.waves.iter().flatten().any(|change| matches!(change, Change::Prune { .. })));
            assert!(inventory(owned).entries.is_subset(&plan.inventory_after.entries), "nothing is forgotten");
        }
        cluster.carry_out(&confirmed);
        assert_eq!(cluster.objects.len(), set(desired).manifests.len());
        plan.guard.map(|guard| format!("{} of {}: {}", guard.count, guard.total, guard.reason))
    };
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n";
    for (owned, desired, want) in [
        (configs(0..10), configs(0..5), None),
        (configs(0..10), configs(0..4), Some("6 of 10: more than 20 % of the source's objects would go")),
        (configs(0..40), configs(8..40), None),
        (configs(0..40), configs(9..40), Some("9 of 40: more than 20 % of the source's objects would go")),
        (configs(0..1), String::new(), Some("1 of 1: all objects of the source would go")),
        (
            format!("{namespace}{}", configs(0..40)),
            configs(0..40),
            Some("1 of 41: Namespace shop would go, and everything in it"),
        ),
    ] {
        assert_eq!(stopped(&owned, &desired).as_deref(), want);
    }
    let guard = Cluster::load(&configs(0..1)).plan(&set(""), &inventory(&configs(0..1)), &POLICY).guard.unwrap();
    assert!(guard.confirm.starts_with("serin apply --confirm-prune apps@1111111"), "{}", guard.confirm);
    assert!(allows_prune("Drop it all\n\nSerin-Allow-Prune: apps\n", "apps"));
    assert!(!allows_prune("Drop it all\n\nSerin-Allow-Prune: apps2\n", "apps"));
}

#[test]
fn opt_outs_are_obeyed() {
    let keep = config("keep", "");
    let cut = config("cut", ", annotations: {serin.dev/prune: disabled}");
    let off = config("hands", ", annotations: {serin.dev/reconcile: disabled}");
    let live = format!("{cut}{off}");
    let owned = format!("{keep}{}{}", config("cut", ""), config("hands", ""));
    check(
        &live,
        &owned,
        &format!("{keep}{}", config("hands", "")),
        "wave 1
           create ConfigMap shop/keep
           skip ConfigMap shop/hands: serin.dev/reconcile: disabled
         wave 2
           skip ConfigMap shop/cut: serin.dev/prune: disabled",
    );
    let plan = Cluster::load(&live).plan(&set(&keep), &inventory(&owned), &Policy { prune: false, ..POLICY });
    assert!(
        plan.to_string().contains("skip ConfigMap shop/hands: it left Git, and the source does not prune"),
        "{plan}"
    );
    let suspended = Policy { suspended: true, ..POLICY };
    assert!(!Cluster::load(&live).plan(&set(&keep), &inventory(&owned), &suspended).changes_anything());
}

#[test]
fn nothing_is_pruned_while_a_file_has_errors() {
    let files = [("a.yaml", config("keep", "")), ("b.yaml", "a: [".to_owned())];
    let snapshot = Snapshot::from_texts(files.iter().map(|(file, text)| (*file, text.as_str())));
    let both = format!("{}{}", config("keep", ""), config("old", ""));
    let plan = Cluster::load(&both).plan(&render(&Input::new(&snapshot, "")), &inventory(&both), &POLICY);
    assert!(
        plan.to_string()
            .contains("skip ConfigMap shop/old: it left Git, and nothing is pruned while a file has errors")
    );
    assert_eq!(plan.inventory_after.entries, inventory(&both).entries);
}

#[test]
fn two_sources_cannot_own_one_object() {
    let claims = |owns: bool| move |_: &ObjectKey| Some(Claim { source: "other".to_owned(), owns });
    let (theirs, ours) = (claims(true), claims(false));
    let wanted = config("c", "");
    let refused =
        Cluster::default().plan(&set(&wanted), &Inventory::default(), &Policy { claims: Some(&theirs), ..POLICY });
    assert_eq!(
        refused.to_string(),
        "wave 1\n  skip ConfigMap shop/c: it belongs to source other\n\
         a.yaml:2:1: error: ConfigMap shop/c belongs to source other (remove it here or there; when other drops it, this source takes it over)\n"
    );
    assert_eq!(refused.inventory_union, Inventory::default());
    let allowed =
        Cluster::default().plan(&set(&wanted), &Inventory::default(), &Policy { claims: Some(&ours), ..POLICY });
    assert_eq!(allowed.problems, []);
    // A move: we do not render it any more, they do.
    let moved = Cluster::load(&wanted).plan(&set(""), &inventory(&wanted), &Policy { claims: Some(&ours), ..POLICY });
    assert_eq!(moved.to_string(), "wave 1\n  skip ConfigMap shop/c: it moved to source other\n");
    assert_eq!(moved.inventory_after, Inventory::default());
}

#[test]
fn an_object_that_changed_its_group_is_not_pruned() {
    let old = "{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: i, namespace: shop, uid: same}}";
    let new = "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, namespace: shop, uid: same}}";
    let plan = Cluster::load(&format!("{old}\n---\n{new}")).plan(&set(new), &inventory(old), &POLICY);
    assert!(!plan.waves.iter().flatten().any(|change| matches!(change, Change::Prune { .. })), "{plan}");
}

/// Applies a set until nothing is left to do, and gives the cluster back.
fn settled(desired: &str) -> (Cluster, ManifestSet, Inventory) {
    let (mut cluster, set) = (Cluster::default(), set(desired));
    let plan = cluster.plan(&set, &Inventory::default(), &POLICY);
    cluster.carry_out(&plan);
    let again = cluster.plan(&set, &plan.inventory_after, &POLICY);
    assert!(!again.changes_anything(), "{again}");
    (cluster, set, plan.inventory_after)
}

#[test]
fn drift_is_corrected_and_engine_owned_fields_are_left_alone() {
    let web = ObjectKey::namespaced("apps/v1", "Deployment", "shop", "web");
    let (mut cluster, set_, owned) = settled(&format!("{WEB}{CANARY}"));
    cluster.edit(&web, "kubectl-edit", &["spec", "template", "metadata", "labels", "app"], json!("evil"));
    let plan = cluster.plan(&set_, &owned, &POLICY);
    assert_eq!(
        plan.to_string(),
        "wave 1\n  update Deployment shop/web: spec.template.metadata.labels.app\n1 unchanged\n"
    );
    cluster.carry_out(&plan);
    assert!(!cluster.plan(&set_, &owned, &POLICY).changes_anything());

    // The engine takes the replicas: the applier drops them, once, and the live value stays.
    cluster.edit(&web, "serin-canary", &["spec", "replicas"], json!(0));
    let plan = cluster.plan(&set_, &owned, &POLICY);
    assert_eq!(plan.to_string(), "wave 1\n  update Deployment shop/web\n1 unchanged\n");
    cluster.carry_out(&plan);
    assert_eq!(cluster.objects[&web].int("/spec/replicas"), Some(0));
    assert!(!cluster.plan(&set_, &owned, &POLICY).changes_anything());

    // The Canary goes: the applier sends the replicas again.
    let without = set(WEB);
    let canary = ObjectKey::namespaced("flagger.app/v1beta1", "Canary", "shop", "web");
    cluster.objects.remove(&canary);
    let plan = cluster.plan(&without, &owned, &POLICY);
    assert_eq!(plan.to_string(), "wave 1\n  update Deployment shop/web: spec.replicas\n");
}

#[test]
fn a_canary_added_to_a_deployment_of_ten_keeps_the_ten() {
    let (cluster, _, owned) = settled(&WEB.replace("replicas: 3", "replicas: 10"));
    let with = set(&format!("{}{CANARY}", WEB.replace("replicas: 3", "replicas: 10")));
    let plan = cluster.plan(&with, &owned, &POLICY);
    assert_eq!(plan.to_string(), "wave 2\n  create Canary shop/web\n1 unchanged\n", "nobody else owns them yet");
}

#[test]
fn values_that_the_server_normalised_are_no_drift() {
    let web = WEB.replace("image: 'web:1'", "image: 'web:1', resources: {limits: {cpu: 1000m}}, env: []");
    let (mut cluster, set, owned) = settled(&web);
    let live = cluster.objects.values_mut().next().unwrap();
    let container = &mut live.0["spec"]["template"]["spec"]["containers"][0];
    *container =
        json!({"name": "web", "image": "web:1", "resources": {"limits": {"cpu": "1"}}, "imagePullPolicy": "Always"});
    assert!(!cluster.plan(&set, &owned, &POLICY).changes_anything());
}

#[test]
fn the_recorded_commit_changes_only_with_the_rendering() {
    let (cluster, _, owned) = settled(WEB);
    let live = |key: &ObjectKey| cluster.objects.get(key).cloned().map(Arc::new);
    let later = Sha("2".repeat(40));
    let same = plan(&set(WEB), &live, &owned, &[], &POLICY, Some(&later));
    assert!(!same.changes_anything());
    let changed = plan(&set(&WEB.replace("web:1", "web:2")), &live, &owned, &[], &POLICY, Some(&later));
    let [[Change::Apply { object, fields, .. }]] = &changed.waves.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
    else {
        panic!("{changed}")
    };
    assert_eq!(object.annotation("serin.dev/commit"), Some(later.0.as_str()));
    assert_eq!(fields, &["spec.template.spec.containers[web].image"]);
}

#[test]
fn an_object_that_carries_the_traffic_is_left_alone() {
    let (mut cluster, _, owned) = settled(&format!("{WEB}{CANARY}"));
    let canary = ObjectKey::namespaced("flagger.app/v1beta1", "Canary", "shop", "web");
    cluster.objects.get_mut(&canary).unwrap().0["status"] = json!({"phase": "Failed", "canaryWeight": 100});
    let plan = cluster.plan(&set(&format!("{}{CANARY}", WEB.replace("web:1", "web:2"))), &owned, &POLICY);
    assert_eq!(
        plan.to_string(),
        "wave 1\n  skip Deployment shop/web: it carries the traffic of canary shop/web until the primary is ready\n1 unchanged\n"
    );
}

/// Small objects with odd values.
fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        "[a-c ]{0,3}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([{"name": "x", "v": 1}])),
    ];
    let spec = leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map("[a-d]", inner, 0..3).prop_map(|map| map.into_iter().collect::<Map<_, _>>().into())
    });
    ("[ab]", prop_oneof![Just("ConfigMap"), Just("Service")], spec).prop_map(|(name, kind, spec)| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    })
}

fn of(objects: &[Value]) -> ManifestSet {
    let mut unique: BTreeMap<String, &Value> = BTreeMap::new();
    for object in objects {
        unique.insert(Object(object.clone()).key().to_string(), object);
    }
    let text: String = unique.values().map(|object| format!("---\n{object}\n")).collect();
    set(&text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was there before, one application leaves nothing to do and exactly the wanted objects.
    #[test]
    fn apply_then_plan_again_is_empty(
        first in prop::collection::vec(object(), 0..4),
        second in prop::collection::vec(object(), 0..4),
    ) {
        let policy = Policy { prune_confirmed: true, ..POLICY };
        let mut cluster = Cluster::default();
        let before = cluster.plan(&of(&first), &Inventory::default(), &policy);
        cluster.carry_out(&before);
        let plan = cluster.plan(&of(&second), &before.inventory_after, &policy);
        cluster.carry_out(&plan);
        let again = cluster.plan(&of(&second), &plan.inventory_after, &policy);
        prop_assert!(!again.changes_anything(), "{}", again);
        prop_assert_eq!(cluster.objects.len(), of(&second).manifests.len());
        prop_assert_eq!(again.inventory_after.entries.len(), cluster.objects.len());
    }
}

#[test]
fn a_refused_immutable_field_may_be_forced() {
    let forced = config("c", ", annotations: {serin.dev/force: enabled}");
    check("", "", &forced, "wave 1\ncreate ConfigMap shop/c [recreated if it must be]");
}
