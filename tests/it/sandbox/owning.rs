//! Server-side apply and who owns what.

use super::*;

#[tokio::test]
async fn apply_owns_fields_and_deletes_what_nobody_owns() {
    let bed = bed();
    let deployments: Api<Deployment> = bed.api();
    let apply = |manager: &str, object: Value| {
        let (deployments, params) = (deployments.clone(), PatchParams::apply(manager));
        async move { deployments.patch("web", &params, &Patch::Apply(&object)).await }
    };
    let first = apply("one", deployment("web", "nginx:1")).await.unwrap();
    let container = "k:{\"name\":\"app\"}";
    let set = owned(&first, "one");
    assert_eq!(set["f:metadata"], json!({ "f:labels": { "f:app": {} } }));
    assert_eq!(set["f:spec"]["f:selector"], json!({}), "a selector is owned as a whole");
    assert_eq!(
        set["f:spec"]["f:template"]["f:spec"]["f:containers"][container],
        json!({ ".": {}, "f:name": {}, "f:image": {}, "f:env": { "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } },
            "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } } })
    );
    assert_eq!(set["f:spec"]["f:replicas"], Value::Null, "a default belongs to nobody");

    let same = apply("one", deployment("web", "nginx:1")).await.unwrap();
    assert_eq!(same.resource_version(), first.resource_version(), "applying the same again changes nothing");

    // A second manager may own other fields, and the same value.
    let scale = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } }, "spec": { "replicas": 4 } });
    let second = apply("two", scale).await.unwrap();
    assert_eq!(second.spec.as_ref().unwrap().replicas, Some(4));

    let mut other = deployment("web", "nginx:2");
    other["spec"]["replicas"] = json!(7);
    let (code, reason, message) = refusal(apply("three", other.clone()).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.starts_with("Apply failed with 2 conflicts: "), "{message}");
    assert!(
        message.contains("conflicts with \"one\":\n- .spec.template.spec.containers[name=\"app\"].image"),
        "{message}"
    );
    assert!(message.contains("conflicts with \"two\":\n- .spec.replicas"), "{message}");

    let forced = deployments.patch("web", &PatchParams::apply("three").force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(
        owned(&forced, "two"),
        json!({ "f:metadata": { "f:labels": { "f:app": {} } } }),
        "force takes the field away"
    );

    // What a manager no longer applies goes, unless someone else holds it.
    let mut less = other.clone();
    less["metadata"] = json!({ "name": "web" });
    less["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
    let left = deployments.patch("web", &PatchParams::apply("three").force(), &Patch::Apply(&less)).await.unwrap();
    assert_eq!(left.labels()["app"], "web", "managers one and two still hold the label");
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let left = deployments.patch("web", &PatchParams::apply("three").force(), &Patch::Apply(&less)).await.unwrap();
    assert_eq!(left.spec.unwrap().replicas, Some(1), "nobody holds replicas any more, so the default is back");
}

#[tokio::test]
async fn apply_to_custom_types_follows_their_schema() {
    let bed = bed().with_widgets().await;
    let widgets = bed.widgets();
    let apply = |manager: &str, spec: Value| {
        let (widgets, params) = (widgets.clone(), PatchParams::apply(manager));
        async move { widgets.patch("w", &params, &Patch::Apply(&widget("w", spec))).await }
    };
    apply("one", json!({ "size": 1, "parts": [{ "name": "a", "weight": 1 }, { "name": "b" }] })).await.unwrap();
    let both = apply("two", json!({ "parts": [{ "name": "b", "weight": 2 }, { "name": "c" }] })).await.unwrap();
    let names = |w: &DynamicObject| -> Vec<String> {
        w.data["spec"]["parts"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&both), ["a", "b", "c"]);
    let less = apply("one", json!({ "size": 1 })).await.unwrap();
    assert_eq!(names(&less), ["b", "c"], "part b is held by manager two");
    let (code, _, message) = refusal(apply("one", json!({ "size": 1, "sise": 2 })).await);
    assert_eq!(
        (code, message.as_str()),
        (
            500,
            "failed to create typed patch object (/w; test.dev/v1, Kind=Widget): .spec.sise: field not declared in schema"
        )
    );
    // A status is owned apart, and an ordinary write takes fields over from an applier.
    let status = json!({ "apiVersion": "test.dev/v1", "kind": "Widget", "status": { "phase": "Ready" } });
    let made = widgets.patch_status("w", &PatchParams::apply("one"), &Patch::Apply(&status)).await.unwrap();
    let entries = serde_json::to_value(&made.metadata.managed_fields).unwrap();
    let subs: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["manager"] == "one")
        .map(|e| e["subresource"].as_str())
        .collect();
    assert_eq!(subs.len(), 2, "{entries}");
    assert!(subs.contains(&Some("status")));
    let params = PatchParams { field_manager: Some("hand".to_owned()), ..PatchParams::default() };
    let made = widgets.patch("w", &params, &Patch::Merge(json!({ "spec": { "size": 3 } }))).await.unwrap();
    assert_eq!(owned(&made, "hand"), json!({ "f:spec": { "f:size": {} } }));
    let (_, _, message) = refusal(apply("one", json!({ "size": 1 })).await);
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"hand\" using test.dev/v1: .spec.size");
    let gone = widgets
        .patch(
            "nope",
            &PatchParams::apply("one"),
            &Patch::Apply(&DynamicObject {
                metadata: kube::api::ObjectMeta {
                    name: Some("nope".into()),
                    uid: Some("x".into()),
                    ..Default::default()
                },
                ..widget("nope", json!({ "size": 1 }))
            }),
        )
        .await;
    assert_eq!(refusal(gone).0, 409, "an apply with a uid does not create");
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_from_the_client() {
    let bed = bed();
    let deployments: Api<Deployment> = bed.api();
    let mut first = deployment("web", "nginx:1");
    let last = first.to_string();
    first["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": last });
    let params = PostParams { field_manager: Some("kubectl-client-side-apply".to_owned()), ..PostParams::default() };
    let made = deployments.create(&params, &typed(first)).await.unwrap();
    let set = owned(&made, "kubectl-client-side-apply");
    let template = &set["f:spec"]["f:template"];
    assert_eq!(template["f:metadata"], json!({ "f:labels": { ".": {}, "f:app": {} } }));
    assert_eq!(template["f:spec"]["f:dnsPolicy"], json!({}), "an ordinary write owns the defaults, too");
    let next = Patch::Apply(deployment("web", "nginx:2"));
    assert_eq!(refusal(deployments.patch("web", &PatchParams::apply("other"), &next).await).0, 409);
    let made = deployments.patch("web", &PatchParams::apply("kubectl"), &next).await.unwrap();
    assert_eq!(owned(&made, "kubectl")["f:spec"]["f:selector"], json!({}));
}
