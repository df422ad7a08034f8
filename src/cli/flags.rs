//! Flagger's own flags and variables for `serin run`, so that a Deployment of Flagger needs another image only.
//!
//! Source: Flagger `cmd/flagger/main.go`. Go takes one dash or two.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;

use super::config::{Config, ConfigErrors, Problem};
use crate::traffic::{is_known, supported};

/// Flags that have a meaning here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Flagger's flags, instead of keys of serin.yaml")]
pub(crate) struct FlaggerArgs {
    /// As `provider` in serin.yaml
    #[arg(long)]
    mesh_provider: Option<String>,
    /// As `metricsServer` in serin.yaml
    #[arg(long)]
    metrics_server: Option<String>,
    /// As `flagger.namespace` in serin.yaml
    #[arg(long)]
    namespace: Option<String>,
    /// As `flagger.selectorLabels` in serin.yaml
    #[arg(long, value_delimiter = ',')]
    selector_labels: Option<Vec<String>>,
    /// As `flagger.includeLabelPrefix` in serin.yaml
    #[arg(long, value_delimiter = ',')]
    include_label_prefix: Option<Vec<String>>,
    /// As `flagger.enableConfigTracking` in serin.yaml
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_config_tracking: Option<bool>,
    /// As `flagger.noCrossNamespaceRefs` in serin.yaml
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_cross_namespace_refs: Option<bool>,
    /// As `flagger.ingressClass` in serin.yaml
    #[arg(long)]
    ingress_class: Option<String>,
    /// As `leaderElection.enabled` in serin.yaml
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_leader_election: Option<bool>,
    /// As `leaderElection.namespace` in serin.yaml
    #[arg(long)]
    leader_election_namespace: Option<String>,
    /// The port of `listen` in serin.yaml, on all addresses
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    later: Later,
}

/// Flags that have nothing to tune here: read and left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct Tuning {
    /// No meaning here
    #[arg(long, hide = true)]
    threadiness: Option<String>,
    /// No meaning here
    #[arg(long, hide = true)]
    control_loop_interval: Option<String>,
    /// No meaning here
    #[arg(long, hide = true)]
    kubeconfig_qps: Option<String>,
    /// No meaning here
    #[arg(long, hide = true)]
    kubeconfig_burst: Option<String>,
    /// No meaning here
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    zap_replace_globals: Option<String>,
    /// No meaning here: `--log-format`
    #[arg(long, hide = true)]
    zap_encoding: Option<String>,
}

/// Flags whose features do not exist yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct Later {
    /// Not implemented yet
    #[arg(long, hide = true)]
    slack_url: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    slack_token: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    slack_proxy_url: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    slack_user: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    slack_channel: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    msteams_url: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    msteams_proxy_url: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    event_webhook: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    ingress_annotations_prefix: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    cluster_name: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    kubeconfig_service_mesh: Option<String>,
    /// Not implemented yet
    #[arg(long, hide = true)]
    master: Option<String>,
}

/// Variables whose features do not exist yet.
const VARIABLES: [&str; 6] =
    ["SLACK_URL", "SLACK_TOKEN", "SLACK_PROXY_URL", "MSTEAMS_URL", "MSTEAMS_PROXY_URL", "EVENT_WEBHOOK_URL"];

/// Writes Go's `-flag` as `--flag`, behind `run` only.
pub(crate) fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|command| command == "run") {
        for argument in arguments.iter_mut().skip(2) {
            let long =
                argument.to_str().filter(|text| text.len() > 2 && text.starts_with('-') && !text.starts_with("--"));
            // `-cFILE` is ours.
            if let Some(text) = long.filter(|text| is_flaggers(text)) {
                *argument = OsString::from(format!("-{text}"));
            }
        }
    }
    arguments
}

fn is_flaggers(argument: &str) -> bool {
    let name = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
    let command = FlaggerArgs::augment_args(clap::Command::new("flagger"));
    let known = command.get_arguments().any(|known| known.get_long() == Some(name));
    known || matches!(name, "kubeconfig" | "log-level")
}

impl FlaggerArgs {
    /// The configuration of somebody who only changed the image: every canary, no source.
    pub(crate) fn alone(&self) -> Option<Config> {
        let given = *self != Self::default();
        given.then(|| Config::parse("", "cluster: cluster\ncanaries: all").ok()).flatten()
    }

    /// Puts the flags over a configuration; `env` tells which variables are set.
    pub(crate) fn over(&self, mut config: Config, env: &dyn Fn(&str) -> bool) -> Result<Config, ConfigErrors> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut refuse = |message: String| {
            problems.push(Problem { file: "command line".to_owned(), place: None, message });
        };
        for flag in self.later.given() {
            refuse(format!("`--{flag}` is not implemented yet: remove it"));
        }
        for variable in VARIABLES.iter().filter(|variable| env(variable)) {
            refuse(format!("the variable {variable} is set, and alerts are not implemented yet: unset it"));
        }
        if let Some(provider) = &self.mesh_provider {
            if !is_known(provider) {
                let there = supported();
                refuse(format!("`--mesh-provider={provider}` is not implemented yet, there is: {there}"));
            }
            config.provider.clone_from(provider);
        }
        let flags = &mut config.flagger;
        put(&self.metrics_server, &mut config.metrics_server);
        put(&self.selector_labels, &mut flags.selector_labels);
        put(&self.include_label_prefix, &mut flags.include_label_prefix);
        put(&self.enable_config_tracking, &mut flags.enable_config_tracking);
        put(&self.no_cross_namespace_refs, &mut flags.no_cross_namespace_refs);
        put(&self.enable_leader_election, &mut config.leader_election.enabled);
        put(&self.leader_election_namespace, &mut config.leader_election.namespace);
        flags.namespace = self.namespace.clone().or(flags.namespace.take());
        flags.ingress_class = self.ingress_class.clone().or(flags.ingress_class.take());
        if let Some(port) = self.port {
            config.listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems }) }
    }
}

fn put<T: Clone>(flag: &Option<T>, into: &mut T) {
    if let Some(value) = flag {
        into.clone_from(value);
    }
}

impl Later {
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("slack-url", &self.slack_url),
            ("slack-token", &self.slack_token),
            ("slack-proxy-url", &self.slack_proxy_url),
            ("slack-user", &self.slack_user),
            ("slack-channel", &self.slack_channel),
            ("msteams-url", &self.msteams_url),
            ("msteams-proxy-url", &self.msteams_proxy_url),
            ("event-webhook", &self.event_webhook),
            ("ingress-annotations-prefix", &self.ingress_annotations_prefix),
            ("cluster-name", &self.cluster_name),
            ("kubeconfig-service-mesh", &self.kubeconfig_service_mesh),
            ("master", &self.master),
        ];
        flags
            .into_iter()
            .filter(|(_, value)| value.as_deref().is_some_and(|text| !text.is_empty()))
            .map(|f| f.0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::config::CanaryScope;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: FlaggerArgs,
    }

    fn flags(arguments: &[&str]) -> FlaggerArgs {
        let line = ["serin", "run"].iter().chain(arguments).map(OsString::from);
        let mut line = with_two_dashes(line);
        line.remove(1);
        Line::try_parse_from(line).expect("flags").flags
    }

    #[test]
    fn a_deployment_of_flagger_is_understood() {
        let flags = flags(&[
            "-threadiness=2",
            "-mesh-provider=kubernetes",
            "-metrics-server=http://prometheus.monitoring:9090",
            "--selector-labels=app,name",
            "-enable-leader-election=true",
            "-leader-election-namespace=flagger-system",
            "-enable-config-tracking=false",
            "-no-cross-namespace-refs",
            "-namespace=shop",
            "-port=8081",
            "-slack-user=",
        ]);
        let config = flags.over(flags.alone().expect("flags are given"), &|_| false).expect("a configuration");
        assert_eq!((config.provider.as_str(), config.canaries), ("kubernetes", CanaryScope::All));
        assert_eq!(config.metrics_server, "http://prometheus.monitoring:9090");
        assert_eq!(config.flagger.selector_labels, ["app", "name"]);
        assert!(config.leader_election.enabled && config.leader_election.namespace == "flagger-system");
        assert!(!config.flagger.enable_config_tracking && config.flagger.no_cross_namespace_refs);
        assert_eq!((config.flagger.namespace.as_deref(), config.listen.port()), (Some("shop"), 8081));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let config = || Config::parse("", "cluster: a\ncanaries: all").expect("a configuration");
        for (arguments, want) in [
            (&["-slack-url=http://x"][..], "`--slack-url` is not implemented yet"),
            (&["-event-webhook", "http://x"], "`--event-webhook` is not implemented yet"),
            (&["-cluster-name=a"], "`--cluster-name` is not implemented yet"),
            (
                &["-mesh-provider=istio"],
                "`--mesh-provider=istio` is not implemented yet, there is: contour, gatewayapi:v1,",
            ),
        ] {
            let message = flags(arguments).over(config(), &|_| false).expect_err(want).to_string();
            assert!(message.contains(want), "{message}");
        }
        let message = FlaggerArgs::default().over(config(), &|name| name == "SLACK_URL").expect_err("set").to_string();
        assert!(message.contains("the variable SLACK_URL is set"), "{message}");
        assert_eq!(FlaggerArgs::default().alone(), None);
    }

    #[test]
    fn our_own_short_flags_stay() {
        let line = ["serin", "run", "-c", "x", "-cserin.yaml", "-port", "1", "-kubeconfig=y"].map(OsString::from);
        let want = ["serin", "run", "-c", "x", "-cserin.yaml", "--port", "1", "--kubeconfig=y"].map(OsString::from);
        assert_eq!(with_two_dashes(line), want);
        let other = ["serin", "get", "-namespace"].map(OsString::from);
        assert_eq!(with_two_dashes(other.clone()), other);
    }
}
