//! What the programs are given: the same applications, the same analysis, the same steps.

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, pinned_kind};
use serde_json::{Value, json};

use super::programs::Program;
use crate::crowd;
use crate::world::{Bed, Limit, eventually};

/// Requests of the harness that are under way at once.
const AT_ONCE: usize = 16;
/// Namespaces over which all is spread.
const TEAMS: u32 = 20;
/// Weight of a step, in percent.
pub(super) const STEP: u32 = 2;
/// The highest weight; a run of 48 steps outlasts the window.
const HIGHEST: u32 = 96;

/// The namespace of one.
fn team(index: u32) -> String {
    format!("team-{}", index % TEAMS)
}

fn name(index: u32) -> String {
    format!("app-{index}")
}

fn template(index: u32, version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name(index)}},
        "spec": {"nodeName": crowd::NODE, "containers": [{
            "name": "app", "image": format!("registry.example.com/app:{version}"),
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }]},
    })
}

fn deployment(index: u32, version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name(index), "namespace": team(index), "labels": {"app": name(index)}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name(index)}}, "template": template(index, version)},
    })
}

fn canary(index: u32) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": name(index), "namespace": team(index)},
        "spec": {
            "provider": "contour",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name(index)},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {
                "interval": "10s", "threshold": 2, "stepWeight": STEP, "maxWeight": HIGHEST,
                "metrics": [
                    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
                    {"name": "request-duration", "interval": "1m", "thresholdRange": {"max": 500}},
                ],
            },
        },
    })
}

/// The same steps and metrics for Argo Rollouts. It cannot route by Contour; an Ingress is what it can route by without
/// more than an API server.
fn rollout(index: u32) -> Vec<Value> {
    let (name, namespace) = (name(index), team(index));
    let steps: Vec<Value> = (1..=HIGHEST / STEP)
        .flat_map(|step| [json!({"setWeight": step * STEP}), json!({"pause": {"duration": "10s"}})])
        .collect();
    let service = |suffix: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{name}{suffix}"), "namespace": namespace},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}})
    };
    vec![
        service("-primary"),
        service("-canary"),
        ingress(index, &format!("{name}-primary")),
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template(index, "1.0.0"),
                "strategy": {"canary": {
                    "stableService": format!("{name}-primary"), "canaryService": format!("{name}-canary"),
                    "trafficRouting": {"nginx": {"stableIngress": name}},
                    "analysis": {"templates": [{"templateName": "web"}], "args": [{"name": "app", "value": name}]},
                    "steps": steps,
                }},
            },
        }),
    ]
}

fn ingress(index: u32, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name(index), "namespace": team(index)},
        "spec": {"ingressClassName": "nginx", "rules": [{
            "host": format!("{}.example.com", name(index)),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
        }]},
    })
}

fn analysis(team: u32, prometheus: &str) -> Value {
    let metric = |name: &str, query: &str, condition: &str| {
        json!({"name": name, "interval": "10s", "failureLimit": 2, "successCondition": condition,
            "provider": {"prometheus": {"address": prometheus, "query": query}}})
    };
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": {"name": "web", "namespace": format!("team-{team}")},
        "spec": {"args": [{"name": "app"}], "metrics": [
            metric("request-success-rate", "success_rate{app=\"{{args.app}}\"}", "result[0] >= 99"),
            metric("request-duration", "histogram_quantile(0.99, duration{app=\"{{args.app}}\"})", "result[0] <= 0.5"),
        ]},
    })
}

/// One application as a file of the repository: Deployment, Service, ServiceAccount, Ingress.
pub(super) fn application(index: u32) -> (String, String) {
    let meta = json!({"name": name(index), "namespace": team(index)});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"selector": {"app": name(index)}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta});
    let objects = [account, service, deployment(index, "1.0.0"), ingress(index, &name(index))];
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    (format!("{}/{}.yaml", team(index), name(index)), text)
}

/// The namespaces as files of the repository.
pub(super) fn namespaces(many: u32) -> impl Iterator<Item = (String, String)> {
    let object = |team| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("team-{team}")}});
    (0..TEAMS.min(many)).map(move |team| (format!("team-{team}.yaml"), object(team).to_string()))
}

/// A type of object, when it is served.
pub(super) async fn resource(bed: &Bed, version: &str, kind: &str) -> anyhow::Result<ApiResource> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    eventually(&format!("the type {kind}"), Limit::START, async || Ok(pinned_kind(&bed.admin(), &gvk).await?.0)).await
}

/// Makes everything for some canaries, in their first version.
pub(super) async fn create(bed: &Bed, program: Program, many: u32, prometheus: &str) -> anyhow::Result<()> {
    for team in 0..TEAMS.min(many) {
        bed.namespace(&format!("team-{team}")).await?;
    }
    if program == Program::ArgoRollouts {
        create_all(bed, (0..TEAMS.min(many)).map(|team| analysis(team, prometheus)).collect()).await?;
        let all = (0..many).flat_map(rollout);
        return create_all(bed, all.collect()).await;
    }
    create_all(bed, (0..many).map(|index| deployment(index, "1.0.0")).collect()).await?;
    create_all(bed, (0..many).map(canary).collect()).await
}

async fn create_all(bed: &Bed, objects: Vec<Value>) -> anyhow::Result<()> {
    let mut known: Vec<(String, ApiResource)> = Vec::new();
    for object in &objects {
        let (version, kind) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
        if !known.iter().any(|(known, _)| known == kind) {
            known.push((kind.to_owned(), resource(bed, version, kind).await?));
        }
    }
    let made = futures::stream::iter(objects).map(anyhow::Ok).try_for_each_concurrent(AT_ONCE, |object| {
        let resource = known.iter().find(|(kind, _)| object["kind"] == kind.as_str()).map(|(_, found)| found.clone());
        async move {
            let object: DynamicObject = serde_json::from_value(object)?;
            let resource = resource.unwrap_or_else(|| ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()));
            let api = bed.api(&resource, object.metadata.namespace.as_deref());
            api.create(&PostParams::default(), &object).await?;
            anyhow::Ok(())
        }
    });
    made.await
}

/// Gives all of them a new version.
pub(super) async fn release(bed: &Bed, program: Program, many: u32) -> anyhow::Result<()> {
    let (version, kind) = match program {
        Program::ArgoRollouts => ("argoproj.io/v1alpha1", "Rollout"),
        Program::Serin | Program::Flagger => ("apps/v1", "Deployment"),
    };
    let resource = &resource(bed, version, kind).await?;
    let released = futures::stream::iter(0..many).map(anyhow::Ok).try_for_each_concurrent(AT_ONCE, async |index| {
        let patch = json!({"spec": {"template": template(index, "1.1.0")}});
        let api: Api<DynamicObject> = bed.api(resource, Some(&team(index)));
        api.patch(&name(index), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    });
    released.await
}

/// How far all are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Those that have been initialised and rest.
    pub(super) resting: u32,
    /// Those on their way, by name, with the steps that they have made.
    pub(super) under_way: std::collections::BTreeMap<String, u32>,
}

impl Progress {
    /// Asks the API server.
    pub(super) async fn of(bed: &Bed, program: Program) -> anyhow::Result<Self> {
        let (version, kind) = match program {
            Program::ArgoRollouts => ("argoproj.io/v1alpha1", "Rollout"),
            Program::Serin | Program::Flagger => ("flagger.app/v1beta1", "Canary"),
        };
        let api = bed.api(&resource(bed, version, kind).await?, None);
        let mut seen = Self::default();
        for object in api.list(&kube::api::ListParams::default()).await?.items {
            let status = &object.data["status"];
            let number = |field: &str| u32::try_from(status[field].as_u64().unwrap_or(0)).unwrap_or(0);
            let steps = match program {
                // Each step is two to it: the weight and the pause.
                Program::ArgoRollouts => number("currentStepIndex") / 2,
                Program::Serin | Program::Flagger => number("canaryWeight") / STEP,
            };
            match status["phase"].as_str().unwrap_or_default() {
                "Initialized" | "Healthy" => seen.resting += 1,
                "Progressing" | "Paused" if steps > 0 => {
                    seen.under_way.insert(object.metadata.name.unwrap_or_default(), steps);
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Steps that were made since then, and canaries that were under way all the time.
    pub(super) fn since(&self, before: &Self) -> (u32, u32) {
        let pairs = self.under_way.iter().filter_map(|(name, now)| Some((now, before.under_way.get(name)?)));
        pairs.fold((0, 0), |(steps, many), (now, then)| (steps + now.saturating_sub(*then), many + 1))
    }
}
