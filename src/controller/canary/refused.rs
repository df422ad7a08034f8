//! Why nothing of a Canary may be made or moved forward, by what stands in it: checked on every tick, so that an edit of a
//! running Canary cannot bring in what would have been refused at first.

use super::{Context, measure};
use crate::api::canary::CanaryView;

/// Checks a Canary.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn refusal(context: &Context, canary: &CanaryView) -> Result<(), String> {
    if let Some(first) = context.targets.before(&canary.key) {
        let target = &canary.spec.target_ref;
        let (kind, name) = (&target.kind, &target.name);
        return Err(format!("{kind} {name} is released by canary {first} already: delete one of the two"));
    }
    if context.settings.no_cross_namespace_refs {
        foreign_reference(canary)?;
    }
    Ok(())
}

/// References to other namespaces, which the operator may forbid.
fn foreign_reference(canary: &CanaryView) -> Result<(), String> {
    let check = |what: &str, name: &str, namespace: Option<&str>| {
        let own = &canary.key.namespace;
        match namespace.filter(|namespace| !namespace.is_empty() && namespace != own) {
            None => Ok(()),
            Some(other) => Err(measure::blocked(what, name, other)),
        }
    };
    if let Some(upstream) = &canary.spec.upstream_ref {
        check("gloo upstream", &upstream.name, upstream.namespace.as_deref())?;
    }
    let Some(analysis) = canary.spec.analysis() else { return Ok(()) };
    for template in analysis.metrics.iter().filter_map(|metric| metric.template_ref.as_ref()) {
        check("metric template", &template.name, template.namespace.as_deref())?;
    }
    // A run under way goes on: an alert that is not sent must not disturb it.
    for alert in analysis.alerts.iter().filter(|_| !canary.status.phase.is_active()) {
        check("alert provider", &alert.provider_ref.name, alert.provider_ref.namespace.as_deref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::Object;

    fn canary(spec: Value) -> CanaryView {
        CanaryView::from_object(&Object(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})))
            .unwrap()
    }

    #[test]
    fn q20_references_to_other_namespaces_are_found_wherever_they_stand() {
        let metric =
            |namespace: &str| json!({"metrics": [{"name": "a", "templateRef": {"name": "t", "namespace": namespace}}]});
        let alert =
            |namespace: &str| json!({"alerts": [{"name": "a", "providerRef": {"name": "p", "namespace": namespace}}]});
        for (spec, want) in [
            (json!({"analysis": metric("shop")}), ""),
            (json!({"analysis": metric("")}), ""),
            (json!({"analysis": metric("web")}), "metric template t.web"),
            (json!({"canaryAnalysis": metric("web")}), "metric template t.web"),
            (json!({"analysis": alert("ops")}), "alert provider p.ops"),
            (json!({"upstreamRef": {"name": "u", "namespace": "gloo"}}), "gloo upstream u.gloo"),
            (json!({}), ""),
        ] {
            let why = foreign_reference(&canary(spec)).err().unwrap_or_default();
            let expected = format!("can't access {want}, cross-namespace references are blocked");
            assert_eq!(why, if want.is_empty() { String::new() } else { expected });
        }
    }
}
