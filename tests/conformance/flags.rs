//! Flagger's flags of a scenario, as settings of the daemon.

use secrecy::SecretString;
use serin::controller::{Channel, Settings};

use super::scenario::Scenario;

/// Puts the scenario's flags over the settings. `fill` makes addresses of this run of those in a text.
pub(crate) fn over(scenario: &Scenario, settings: &mut Settings, fill: &dyn Fn(&str) -> String) {
    let text = |name: &str| scenario.flag(name).filter(|text| !text.is_empty()).map(fill);
    let secret = |name: &str| text(name).map(SecretString::from);
    let list = |name: &str| text(name).map(|text| text.split(',').map(str::to_owned).collect());
    let truth = |name: &str| text(name).map(|text| text == "true");
    settings.provider = text("mesh-provider").or(settings.provider.take());
    settings.ingress_class = text("ingress-class");
    settings.ingress_annotations_prefix = text("ingress-annotations-prefix");
    settings.only_namespace = text("namespace");
    settings.selector_labels = list("selector-labels").unwrap_or_else(|| settings.selector_labels.clone());
    settings.include_label_prefix = list("include-label-prefix").unwrap_or_default();
    settings.config_tracking = truth("enable-config-tracking").unwrap_or(true);
    settings.no_cross_namespace_refs = truth("no-cross-namespace-refs").unwrap_or(false);
    settings.outgoing.cluster_name = text("cluster-name");
    settings.outgoing.event_webhook = secret("event-webhook");
    let channel = |type_: &str| {
        Some(Channel {
            type_: type_.to_owned(),
            address: secret(&format!("{}-url", type_))?,
            token: secret(&format!("{type_}-token")),
            proxy: text(&format!("{type_}-proxy-url")),
            username: text(&format!("{type_}-user")).unwrap_or_default(),
            channel: text(&format!("{type_}-channel")).unwrap_or_default(),
        })
    };
    settings.outgoing.channel = channel("msteams").or_else(|| channel("slack"));
}
