//! Flagger's own flags and variables for `serin run`, so that a Deployment of Flagger needs another image only.
//!
//! Source: Flagger `cmd/flagger/main.go`. Go takes one dash or two.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;

use super::config::{Config, ConfigErrors, FlaggerFlags, Given, Msteams, Problem, SecretRef, Slack};
use crate::traffic::{absent, is_known, supported};

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
    /// As `flagger.ingressAnnotationsPrefix` in serin.yaml
    #[arg(long)]
    ingress_annotations_prefix: Option<String>,
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
    outgoing: Outgoing,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    refused: Refused,
}

/// Where news go about canaries that name no receivers of their own. URLs and tokens are secrets, which other users of the
/// machine can read on a command line: the variables are better.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct Outgoing {
    /// As `flagger.clusterName` in serin.yaml
    #[arg(long)]
    cluster_name: Option<String>,
    /// As `flagger.eventWebhookFrom` in serin.yaml; better in the variable EVENT_WEBHOOK_URL
    #[arg(long)]
    event_webhook: Option<String>,
    /// As `flagger.slack.urlFrom` in serin.yaml; better in the variable SLACK_URL
    #[arg(long)]
    slack_url: Option<String>,
    /// As `flagger.slack.tokenFrom` in serin.yaml; better in the variable SLACK_TOKEN
    #[arg(long)]
    slack_token: Option<String>,
    /// As `flagger.slack.proxyUrlFrom` in serin.yaml; also the variable SLACK_PROXY_URL
    #[arg(long)]
    slack_proxy_url: Option<String>,
    /// As `flagger.slack.user` in serin.yaml
    #[arg(long)]
    slack_user: Option<String>,
    /// As `flagger.slack.channel` in serin.yaml
    #[arg(long)]
    slack_channel: Option<String>,
    /// As `flagger.msteams.urlFrom` in serin.yaml; better in the variable MSTEAMS_URL
    #[arg(long)]
    msteams_url: Option<String>,
    /// As `flagger.msteams.proxyUrlFrom` in serin.yaml; also the variable MSTEAMS_PROXY_URL
    #[arg(long)]
    msteams_proxy_url: Option<String>,
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

/// Flags that are refused, with what to do instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct Refused {
    /// Not supported
    #[arg(long, hide = true)]
    kubeconfig_service_mesh: Option<String>,
    /// Not supported
    #[arg(long, hide = true)]
    master: Option<String>,
}

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
    /// The configuration of somebody who only changed the image: every canary, no source, and Flagger's own provider where
    /// none is named.
    pub(crate) fn alone(&self) -> Option<Config> {
        let given = *self != Self::default();
        given.then(|| Config::parse("", "cluster: cluster\ncanaries: all\nprovider: istio").ok()).flatten()
    }

    /// Puts the flags over a configuration; `env` tells which variables are set.
    pub(crate) fn over(&self, mut config: Config, env: &dyn Fn(&str) -> bool) -> Result<Config, ConfigErrors> {
        const HERE: &str = "command line";
        let mut problems: Vec<Problem> = Vec::new();
        let mut refuse = |message: String| {
            problems.push(Problem { file: HERE.to_owned(), place: None, message });
        };
        for (flag, instead) in self.refused.given() {
            refuse(format!("`--{flag}` is not supported: {instead}"));
        }
        if let Some(provider) = &self.mesh_provider {
            if !is_known(provider) {
                refuse(format!("`--mesh-provider={provider}` is {}, there is: {}", absent(provider), supported()));
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
        self.outgoing.over(flags, env);
        flags.ingress_annotations_prefix =
            self.ingress_annotations_prefix.clone().or(flags.ingress_annotations_prefix.take());
        if let Some(port) = self.port {
            config.listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        }
        // The file has been looked at: what is wrong now came by a flag.
        problems.extend(config.problems(HERE, ""));
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems }) }
    }
}

fn put<T: Clone>(flag: &Option<T>, into: &mut T) {
    if let Some(value) = flag {
        into.clone_from(value);
    }
}

impl Outgoing {
    /// Puts flags, and over them Flagger's variables, in place of what the file says.
    fn over(&self, flags: &mut FlaggerFlags, env: &dyn Fn(&str) -> bool) {
        let given = |flag: &Option<String>, variable: &str| {
            let flag = text(flag).map(|text| SecretRef::Given(Given::new(text)));
            if env(variable) { Some(SecretRef::Env(variable.to_owned())) } else { flag }
        };
        if let Some(name) = text(&self.cluster_name) {
            flags.cluster_name = Some(name.to_owned());
        }
        if let Some(url) = given(&self.event_webhook, "EVENT_WEBHOOK_URL") {
            flags.event_webhook_from = Some(url);
        }
        if let Some(url) = given(&self.slack_url, "SLACK_URL") {
            flags.slack = Some(Slack::new(url));
        }
        if let Some(slack) = &mut flags.slack {
            slack.token_from = given(&self.slack_token, "SLACK_TOKEN").or(slack.token_from.take());
            slack.proxy_url_from = given(&self.slack_proxy_url, "SLACK_PROXY_URL").or(slack.proxy_url_from.take());
            put(&text(&self.slack_user).map(str::to_owned), &mut slack.user);
            put(&text(&self.slack_channel).map(str::to_owned), &mut slack.channel);
        }
        if let Some(url_from) = given(&self.msteams_url, "MSTEAMS_URL") {
            flags.msteams = Some(Msteams { url_from, proxy_url_from: None });
        }
        if let Some(teams) = &mut flags.msteams {
            teams.proxy_url_from = given(&self.msteams_proxy_url, "MSTEAMS_PROXY_URL").or(teams.proxy_url_from.take());
        }
    }
}

/// Flags that are given and not empty: charts pass empty ones.
fn text(flag: &Option<String>) -> Option<&str> {
    flag.as_deref().filter(|text| !text.is_empty())
}

impl Refused {
    /// Flag and advice.
    fn given(&self) -> Vec<(&'static str, &'static str)> {
        let mesh = "routes are written to the cluster of the workloads. Where the mesh's control plane is another cluster, leave \
                    its Canaries to Flagger";
        let master = "write the server's address into a kubeconfig, and give that as `--kubeconfig`";
        let flags =
            [("kubeconfig-service-mesh", mesh, &self.kubeconfig_service_mesh), ("master", master, &self.master)];
        let given = flags.into_iter().filter(|(.., value)| text(value).is_some());
        given.map(|(flag, instead, _)| (flag, instead)).collect()
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
    fn what_is_not_there_is_refused_by_name_and_says_what_to_do() {
        let config = || Config::parse("", "cluster: a\ncanaries: all").expect("a configuration");
        for (arguments, want) in [
            (
                &["-kubeconfig-service-mesh=x"][..],
                "`--kubeconfig-service-mesh` is not supported: routes are written to the cluster of the workloads",
            ),
            (
                &["-master=https://10.0.0.1:6443"],
                "`--master` is not supported: write the server's address into a kubeconfig",
            ),
            (&["-mesh-provider=teapot"], "`--mesh-provider=teapot` is unknown, there is: "),
            (&["-metrics-server=prometheus:9090"], "`metricsServer`: prometheus is neither http nor https"),
            (&["-namespace=Foo_"], "`flagger.namespace: Foo_` is no name of a namespace"),
            (&["-selector-labels="], "`flagger.selectorLabels` is empty"),
        ] {
            let message = flags(arguments).over(config(), &|_| false).expect_err(want).to_string();
            assert!(message.contains(want), "{message}");
        }
        assert_eq!(FlaggerArgs::default().alone(), None);
    }

    #[test]
    fn without_a_provider_it_is_flaggers_own_default() {
        let config = flags(&["-metrics-server=http://prometheus:9090"]).alone().expect("flags are given");
        assert_eq!(config.provider, "istio");
    }

    #[test]
    fn receivers_come_from_flags_and_variables() {
        let config = || Config::parse("", "cluster: a\ncanaries: all").expect("a configuration");
        let flags = flags(&[
            "-cluster-name=bed",
            "-event-webhook=http://events",
            "-slack-url=http://slack/hunter2",
            "-slack-user=",
            "-slack-channel=canaries",
        ]);
        let given = |text: &str| SecretRef::Given(Given::new(text));
        let flagger = flags.over(config(), &|_| false).expect("a configuration").flagger;
        assert_eq!(flagger.cluster_name.as_deref(), Some("bed"));
        assert_eq!(flagger.event_webhook_from, Some(given("http://events")));
        let slack = Slack { channel: "canaries".to_owned(), ..Slack::new(given("http://slack/hunter2")) };
        assert_eq!((flagger.slack.as_ref(), &flagger.msteams), (Some(&slack), &None));
        assert!(!format!("{flagger:?}").contains("hunter2"), "a secret prints itself");
        let set = |name: &str| ["SLACK_URL", "SLACK_TOKEN", "MSTEAMS_URL", "EVENT_WEBHOOK_URL"].contains(&name);
        let flagger = flags.over(config(), &set).expect("a configuration").flagger;
        let env = |name: &str| Some(SecretRef::Env(name.to_owned()));
        assert_eq!(
            (flagger.event_webhook_from, flagger.msteams.map(|teams| teams.url_from)),
            (env("EVENT_WEBHOOK_URL"), env("MSTEAMS_URL"))
        );
        let slack = flagger.slack.expect("slack");
        assert_eq!((Some(slack.url_from), slack.token_from), (env("SLACK_URL"), env("SLACK_TOKEN")));
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
