//! Finalizers, garbage collection, namespaces.

use super::*;

#[tokio::test]
async fn finalizers_hold_a_deletion() {
    let bed = bed().with_widgets().await;
    let widgets = bed.widgets();
    let mut held = widget("w", json!({ "size": 1 }));
    held.metadata.finalizers = Some(vec!["test.dev/hold".to_owned()]);
    widgets.create(&PostParams::default(), &held).await.unwrap();
    let marked = widgets.delete("w", &DeleteParams::default()).await.unwrap().left().expect("the object itself");
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.generation, Some(2));
    let more = Patch::Merge(json!({ "metadata": { "finalizers": ["test.dev/hold", "test.dev/more"] } }));
    let (code, _, message) = refusal(widgets.patch("w", &PatchParams::default(), &more).await);
    assert!(
        code == 422 && message.contains("no new finalizers can be added if the object is being deleted"),
        "{message}"
    );
    widgets
        .patch("w", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "finalizers": null } })))
        .await
        .unwrap();
    assert!(widgets.get_opt("w").await.unwrap().is_none());
    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: Some("x".into()), ..Default::default() }),
        ..Default::default()
    };
    widgets.create(&PostParams::default(), &widget("w", json!({ "size": 1 }))).await.unwrap();
    assert_eq!(refusal(widgets.delete("w", &wrong).await).0, 409);
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let cases = [
        (DeleteParams::background(), [false, false, false, true]),
        (DeleteParams::foreground(), [false, false, false, true]),
        (DeleteParams::orphan(), [false, true, true, true]),
    ];
    for (params, wanted) in cases {
        let bed = bed();
        let maps: Api<ConfigMap> = bed.api();
        let owner = maps.create(&PostParams::default(), &config_map("owner", json!({}))).await.unwrap();
        let other = maps.create(&PostParams::default(), &config_map("other", json!({}))).await.unwrap();
        let reference = |of: &ConfigMap| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": of.name_any(), "uid": of.uid(), "blockOwnerDeletion": true });
        let child = |name: &str, owners: Value| -> ConfigMap {
            typed(
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": owners } }),
            )
        };
        let first = maps.create(&PostParams::default(), &child("child", json!([reference(&owner)]))).await.unwrap();
        maps.create(&PostParams::default(), &child("grandchild", json!([reference(&first)]))).await.unwrap();
        maps.create(&PostParams::default(), &child("shared", json!([reference(&owner), reference(&other)])))
            .await
            .unwrap();
        let policy: Option<PropagationPolicy> = params.propagation_policy.clone();
        maps.delete("owner", &params).await.unwrap();
        let mut there = vec![];
        for name in ["owner", "child", "grandchild", "shared"] {
            there.push(maps.get_opt(name).await.unwrap().is_some());
        }
        assert_eq!(there, wanted, "{policy:?}");
        let shared = maps.get("shared").await.unwrap();
        assert_eq!(shared.owner_references().len(), 1, "the reference to the gone owner goes");
    }
}

#[tokio::test]
async fn a_foreground_deletion_waits_for_blocking_dependents() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    let owner = maps.create(&PostParams::default(), &config_map("owner", json!({}))).await.unwrap();
    let reference = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(), "blockOwnerDeletion": true });
    let child = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "child", "finalizers": ["x/y"], "ownerReferences": [reference] } });
    maps.create(&PostParams::default(), &typed(child)).await.unwrap();
    let waiting = maps.delete("owner", &DeleteParams::foreground()).await.unwrap().left().unwrap();
    assert_eq!(waiting.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    maps.patch("child", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "finalizers": [] } })))
        .await
        .unwrap();
    assert!(maps.get_opt("child").await.unwrap().is_none() && maps.get_opt("owner").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let bed = bed();
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &typed(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "team" } })),
        )
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), "team");
    let mut held = config_map("held", json!({}));
    held.metadata.finalizers = Some(vec!["x/y".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.create(&PostParams::default(), &config_map("plain", json!({}))).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    assert_eq!(namespaces.get("team").await.unwrap().status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(maps.get_opt("plain").await.unwrap().is_none());
    let (code, _, message) = refusal(maps.create(&PostParams::default(), &config_map("late", json!({}))).await);
    assert!(code == 403 && message.contains("because it is being terminated"), "{message}");
    maps.patch("held", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "finalizers": null } })))
        .await
        .unwrap();
    assert!(namespaces.get_opt("team").await.unwrap().is_none());
}
