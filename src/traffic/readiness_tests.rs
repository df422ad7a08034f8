//! Whether a route is in force, as far as its controller reports it: what holds a canary names the condition, and where
//! nothing is reported nothing is claimed.

use serde_json::{Value, json};

use super::conformance::{everything, over};
use super::matrix::asked;
use super::names;
use crate::domain::{ObjectKey, Weights};
use crate::ports::Verified;

/// The kind of a provider's route that its controller reports about, and where.
pub(super) fn reported(provider: &str) -> Option<(&'static str, Reported)> {
    let condition = |name: &'static str| Reported::Condition { name, errors: false };
    Some(match provider {
        "apisix" => ("ApisixRoute podinfo-podinfo-canary", condition("ResourcesAvailable")),
        "appmesh" => ("VirtualService podinfo.test", condition("VirtualRouterActive")),
        "appmesh:v1beta2" => ("VirtualRouter podinfo", condition("VirtualRouterActive")),
        "contour" => ("HTTPProxy podinfo", Reported::Condition { name: "Valid", errors: true }),
        "gatewayapi:v1" | "gatewayapi:v1beta1" => ("Gateway/test/edge", Reported::Parent("Accepted")),
        "gloo" => ("RouteTable podinfo", Reported::State),
        "istio" => ("VirtualService podinfo", condition("Reconciled")),
        "knative" => ("Knative Service podinfo", condition("RoutesReady")),
        _ => return None,
    })
}

pub(super) enum Reported {
    Condition { name: &'static str, errors: bool },
    Parent(&'static str),
    State,
}

impl Reported {
    /// A status that says so about a generation, in the reporter's words.
    fn status(&self, accepted: bool, generation: i64) -> Value {
        let text = if accepted { "True" } else { "False" };
        let condition = |name: &str| {
            json!({"type": name, "status": text, "observedGeneration": generation, "reason": "Broken",
                "message": "no such host"})
        };
        match self {
            Self::Condition { name, errors } => {
                let mut condition = condition(name);
                if *errors && !accepted {
                    condition["errors"] = json!([{"reason": "Broken", "message": "no such host"}]);
                }
                json!({"observedGeneration": generation, "conditions": [condition]})
            }
            Self::Parent(name) => {
                let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"});
                json!({"parents": [{"parentRef": parent, "conditions": [condition(name)]}]})
            }
            Self::State => {
                let state = if accepted { "Accepted" } else { "Rejected" };
                json!({"statuses": {"gloo-system": {"state": state, "reason": "Broken: no such host"}}})
            }
        }
    }

    /// For the page of all providers.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Condition { name, .. } => format!("condition `{name}`"),
            Self::Parent(name) => format!("conditions `{name}`, `ResolvedRefs` of the parents"),
            Self::State => "a rejection only".to_owned(),
        }
    }

    const fn refusal(&self) -> &'static str {
        match self {
            Self::Condition { name, .. } | Self::Parent(name) => name,
            Self::State => "Rejected",
        }
    }
}

#[tokio::test]
async fn a_route_that_is_not_accepted_is_told_by_its_condition() {
    for provider in names() {
        let cluster = everything();
        let router = over(provider, cluster.clone());
        let canary = asked(provider, &json!({}));
        router.reconcile(&canary).await.unwrap();
        router.set(&canary, Weights::canary(30)).await.unwrap();
        assert_eq!(router.verify(&canary).await.unwrap(), Verified::CannotTell, "{provider}: nothing is reported yet");
        let Some((subject, how)) = reported(provider) else { continue };
        // The last of a kind: of the two ApisixRoutes the copy, of the objects of a mesh the apex comes first and alone.
        let kind = subject.split(' ').rev().nth(1);
        let is_route = |key: &&ObjectKey| kind.is_none_or(|kind| key.gvk.kind == kind);
        let key = match provider {
            "apisix" => router.objects(&canary).into_iter().rfind(|key| is_route(&key)),
            _ => router.objects(&canary).into_iter().find(|key| is_route(&key)),
        };
        let mut live = (*cluster.peek(&key.unwrap()).unwrap()).clone();
        let generation = live.generation();
        let verdict = async |live: &crate::domain::Object, status: Value| {
            let mut told = live.clone();
            told.0["status"] = status;
            cluster.seed(told);
            router.verify(&canary).await.unwrap()
        };
        live.0["metadata"]["generation"] = json!(generation + 1);
        let no = verdict(&live, how.status(false, generation + 1)).await;
        let Verified::No(words) = no else { panic!("{provider}: {no:?}") };
        for word in [subject, how.refusal(), "no such host"] {
            assert!(words.contains(word), "{provider}: {words}");
        }
        if provider == "gloo" {
            // It does not say which generation it has accepted.
            assert_eq!(verdict(&live, how.status(true, generation)).await, Verified::CannotTell);
            continue;
        }
        let late = verdict(&live, how.status(true, generation)).await;
        let Verified::No(words) = late else { panic!("{provider}: {late:?}") };
        assert!(words.contains(&format!("generation {}", generation + 1)), "{provider}: {words}");
        let yes = verdict(&live, how.status(true, generation + 1)).await;
        let want = if provider == "knative" { Verified::CannotTell } else { Verified::Yes };
        assert_eq!(yes, want, "{provider}: Knative's routes are known by their percentages");
    }
}

#[tokio::test]
async fn contour_reports_without_conditions_too() {
    let cluster = everything();
    let router = over("contour", cluster.clone());
    let canary = asked("contour", &json!({}));
    router.reconcile(&canary).await.unwrap();
    let mut live = (*cluster.peek(&router.objects(&canary)[0]).unwrap()).clone();
    for (status, want) in [
        (json!({"currentStatus": "NotReconciled", "description": "Waiting for controller"}), Verified::CannotTell),
        (json!({"currentStatus": "valid"}), Verified::Yes),
        (
            json!({"currentStatus": "orphaned", "description": "this HTTPProxy is not part of a delegation chain"}),
            Verified::No("HTTPProxy podinfo is orphaned: this HTTPProxy is not part of a delegation chain".to_owned()),
        ),
    ] {
        live.0["status"] = status;
        cluster.seed(live.clone());
        assert_eq!(router.verify(&canary).await.unwrap(), want);
    }
}
