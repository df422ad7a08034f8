//! What every provider must do with a Canary that it cannot honour: say so before anything is made, and give the primary
//! all traffic all the same.

use serde_json::{Value, json};

use super::conformance::{everything, over};
use super::matrix::asked;
use super::names;
use crate::domain::Weights;

/// An A/B test that nobody can run: no condition, an unknown one, one that no proxy knows.
fn tests() -> Vec<Value> {
    [json!({}), json!({"headers": {"x": {"sounds": "like"}}}), json!({"headers": {"x": {"exact": "a"}}})]
        .map(|condition| json!({"analysis": {"iterations": 2, "match": [condition]}}))
        .into()
}

#[tokio::test]
async fn a_test_that_cannot_be_run_is_told_beforehand_and_keeps_nobody_from_the_primary() {
    for provider in names() {
        let mut told = 0;
        for fields in tests() {
            let router = over(provider, everything());
            let (good, bad) = (asked(provider, &json!({})), asked(provider, &fields));
            assert_eq!(router.refused(&good), None, "{provider}");
            let why = router.refused(&bad);
            let unsupported = router.unsupported_fields(&bad);
            router.reconcile(&good).await.unwrap();
            router.set(&good, Weights::canary(40)).await.unwrap();
            let written = router.set(&bad, Weights::canary(60)).await;
            if let Err(error) = &written {
                told += 1;
                assert_eq!(why.as_deref(), Some(error.to_string().as_str()), "{provider}: {fields}");
            } else {
                assert_eq!(why, None, "{provider} refuses {fields} and writes it: {unsupported:?}");
            }
            router.set(&bad, Weights::PRIMARY).await.unwrap_or_else(|error| panic!("{provider}: {fields}: {error}"));
            let weights = router.observe(&good).await.unwrap();
            assert_eq!(weights, Some(Weights::PRIMARY), "{provider}: {fields}");
        }
        assert!(told > 0 || ["knative", "kubernetes", "kuma"].contains(&provider), "{provider} refuses nothing");
    }
}

#[tokio::test]
async fn a_reference_that_is_missing_is_told_beforehand() {
    for (provider, field, words) in [
        ("nginx", "ingressRef", "ingressRef is missing: provider nginx needs an Ingress"),
        ("skipper", "ingressRef", "ingressRef is missing: provider skipper needs an Ingress"),
        ("apisix", "routeRef", "routeRef is missing: provider apisix needs an ApisixRoute"),
    ] {
        let router = over(provider, everything());
        let mut canary = asked(provider, &json!({}));
        match field {
            "ingressRef" => canary.spec.ingress_ref = None,
            _ => canary.spec.route_ref = None,
        }
        assert_eq!(router.refused(&canary).as_deref(), Some(words), "{provider}");
        // What was made for it cannot be found, and must not keep the Canary from going.
        router.finalize(&canary).await.unwrap();
    }
}
