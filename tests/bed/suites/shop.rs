//! The world of a release: a repository in Gitea with one application, a daemon that follows it, and people who use the
//! application through Envoy or Skipper.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use serin::api::Canary;

use crate::browsers::Browsers;
use crate::gateway::{self, GATEWAY};
use crate::gitea::{Repository, Status};
use crate::load::Load;
use crate::prometheus;
use crate::serin::{CLUSTER, Options, Serin};
use crate::skipper;
use crate::world::{Bed, Limit, eventually};

/// Requests a second.
const RATE: u32 = 20;
/// How long a release may take until its verdict, on a busy machine.
const VERDICT: Limit = Limit(Duration::from_secs(200));
/// How long what follows a verdict may take: statuses, reverts.
const AFTERWARDS: Limit = Limit(Duration::from_secs(45));

/// What a version does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Good,
    /// A third of its answers are errors: 500, 400 and 409 alike.
    Errors,
}

/// The world.
pub(crate) struct Shop<'a> {
    bed: &'a Arc<Bed>,
    /// The namespace of the application.
    pub(crate) name: String,
    pub(crate) repository: Repository<'a>,
    pub(crate) serin: Serin,
    /// The requests of its users.
    pub(crate) load: Load,
    /// The commit with which it began.
    pub(crate) start: String,
    provider: &'static str,
}

impl<'a> Shop<'a> {
    /// Makes it, with version 1.0.0 on the primary and users at work.
    pub(crate) async fn open(bed: &'a Arc<Bed>, name: &str, options: &Options) -> anyhow::Result<Self> {
        Self::testing(bed, name, options, STEPS).await
    }

    /// The same with another `analysis`, of which this is all but the metrics.
    pub(crate) async fn testing(
        bed: &'a Arc<Bed>,
        name: &str,
        options: &Options,
        analysis: &str,
    ) -> anyhow::Result<Self> {
        let repository = bed.gitea()?.repository(name).await?;
        let mut files = vec![
            ("apps/namespace.yaml", format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")),
            ("apps/canary.yaml", canary(name, options.provider, analysis)),
        ];
        match options.provider {
            "contour" => files.push(("apps/entry.yaml", entry(name))),
            "skipper" => files.push(("apps/entry.yaml", ingress(name))),
            _ => files.push(("apps/templates.yaml", templates(name))),
        }
        files.extend(version(name, "1.0.0", Behaviour::Good));
        let start = repository.commit("Start", &files).await?;
        let serin = Serin::deploy(bed, name, &repository, options).await?;
        let provider = options.provider;
        let load = Load::start(proxy(provider), &host(name), RATE, &[])?;
        let shop = Self { bed, name: name.to_owned(), repository, serin, load, start, provider };
        shop.until_phase("Initialized").await?;
        shop.until_served("1.0.0").await?;
        shop.load.take();
        Ok(shop)
    }

    /// More users, whose requests have these headers; fewer than the others.
    pub(crate) fn users(&self, headers: &[(&str, &str)]) -> anyhow::Result<Load> {
        Load::start(proxy(self.provider), &host(&self.name), RATE / 2, headers)
    }

    /// Users with a browser each.
    pub(crate) fn browsers(&self, count: usize) -> anyhow::Result<Browsers> {
        Browsers::start(proxy(self.provider), &host(&self.name), count)
    }

    /// The files of a version.
    pub(crate) fn files(&self, number: &str, behaviour: Behaviour) -> Vec<(&'static str, String)> {
        version(&self.name, number, behaviour)
    }

    /// The Canary.
    pub(crate) async fn canary(&self) -> anyhow::Result<Canary> {
        let api: Api<Canary> = Api::namespaced(self.bed.admin(), &self.name);
        api.get("web").await.context("reading the Canary")
    }

    async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self.canary().await?.status)?)
    }

    /// Its phase.
    pub(crate) async fn phase(&self) -> anyhow::Result<String> {
        Ok(self.status().await?["phase"].as_str().unwrap_or_default().to_owned())
    }

    /// Weights of primary and canary in the route, as written.
    pub(crate) async fn weights(&self) -> anyhow::Result<(i64, i64)> {
        if self.provider == "skipper" {
            return self.skipper_weights().await;
        }
        let (gvk, plural, place) = match self.provider {
            "contour" => (
                GroupVersionKind::gvk("projectcontour.io", "v1", "HTTPProxy"),
                "httpproxies",
                ["/spec/routes", "/services"],
            ),
            _ => {
                let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
                (gvk, "httproutes", ["/spec/rules", "/backendRefs"])
            }
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.bed.admin(), &self.name, &resource);
        let route = api.get("web").await.with_context(|| format!("reading the {}", gvk.kind))?;
        let rules = route.data.pointer(place[0]).and_then(Value::as_array).cloned().unwrap_or_default();
        let all = rules.iter().filter_map(|rule| {
            let services = rule.pointer(place[1])?.as_array()?;
            let of = |name: &str| services.iter().find(|service| service["name"] == name)?["weight"].as_i64();
            Some((of("web-primary").unwrap_or(0), of("web-canary").unwrap_or(0)))
        });
        let all: Vec<_> = all.collect();
        // Cookies have rules of their own, which divide nothing; so has everybody in an A/B test, and there the first moves.
        let divided = all.iter().find(|(primary, canary)| *primary > 0 && *canary > 0);
        divided.or(all.first()).copied().context("a route without rules")
    }

    async fn skipper_weights(&self) -> anyhow::Result<(i64, i64)> {
        let api: Api<k8s_openapi::api::networking::v1::Ingress> = Api::namespaced(self.bed.admin(), &self.name);
        let annotations = api.get("web-canary").await.context("reading the Ingress")?.metadata.annotations;
        let annotations = annotations.unwrap_or_default();
        let text = annotations.get("zalando.org/backend-weights").context("an Ingress without weights")?;
        let weights: Value = serde_json::from_str(text)?;
        Ok((weights["web-primary"].as_i64().unwrap_or(0), weights["web-canary"].as_i64().unwrap_or(0)))
    }

    /// The version that the primary is told to run.
    pub(crate) async fn primary(&self) -> anyhow::Result<String> {
        let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(self.bed.admin(), &self.name);
        let image = api.get("web-primary").await?.spec.and_then(|spec| spec.template.spec?.containers.pop()?.image);
        Ok(image.unwrap_or_default().rsplit(':').next().unwrap_or_default().to_owned())
    }

    /// Waits for a phase.
    pub(crate) async fn until_phase(&self, phase: &str) -> anyhow::Result<()> {
        self.until(&format!("phase {phase}"), VERDICT, async || {
            let status = self.status().await?;
            if status["phase"] != phase {
                bail!("{status}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until the canary's part of the traffic is at least so much.
    pub(crate) async fn until_weight(&self, least: i64) -> anyhow::Result<()> {
        self.until(&format!("a weight of {least}"), VERDICT, async || match self.weights().await? {
            (_, canary) if canary >= least => Ok(()),
            weights => bail!("weights {weights:?}, phase {}", self.phase().await?),
        })
        .await
    }

    /// Waits until all traffic goes to the primary again.
    pub(crate) async fn until_primary(&self) -> anyhow::Result<()> {
        self.until("all traffic on the primary", VERDICT, async || match self.weights().await? {
            (100, 0) => Ok(()),
            weights => bail!("weights {weights:?}, phase {}", self.phase().await?),
        })
        .await
    }

    /// Waits until users are answered by this version and no other.
    pub(crate) async fn until_served(&self, version: &str) -> anyhow::Result<()> {
        self.load.take();
        self.until(&format!("answers of {version} only"), AFTERWARDS, async || {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let seen = self.load.take();
            if seen.by(version) == 0 || seen.by(version) != seen.total {
                bail!("{:?} {:?} {:?}", seen.versions, seen.statuses, seen.examples.first());
            }
            Ok(())
        })
        .await
    }

    /// Waits until users are answered by two versions: the weights have arrived at Envoy.
    pub(crate) async fn until_served_by_both(&self) -> anyhow::Result<()> {
        self.until("answers of two versions", AFTERWARDS, async || {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let versions = self.load.seen().versions;
            anyhow::ensure!(versions.len() > 1, "{versions:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the head of `main` has this subject, and returns it.
    pub(crate) async fn until_head(&self, subject: &str) -> anyhow::Result<String> {
        self.until(&format!("the head {subject:?}"), VERDICT, async || {
            let log = self.repository.log().await?;
            match log.first() {
                Some((sha, message)) if message.lines().next() == Some(subject) => Ok(sha.clone()),
                other => bail!("{other:?}"),
            }
        })
        .await
    }

    /// Waits for the statuses of a commit, of the canary and of the cluster, and returns the canary's words.
    pub(crate) async fn until_statuses(&self, commit: &str, state: &str, words: &str) -> anyhow::Result<String> {
        self.until(&format!("status {state} {words:?} on {commit}"), AFTERWARDS, async || {
            let all = self.repository.statuses(commit).await?;
            let of = |context: &str| -> anyhow::Result<Status> {
                all.get(context).cloned().with_context(|| format!("no status {context} among {all:?}"))
            };
            let own = of(&format!("serin/{CLUSTER}/{}/web", self.name))?;
            let sum = of(&format!("serin/{CLUSTER}"))?;
            if own.0 != state || !own.1.contains(words) || sum.0 != state {
                bail!("{own:?}, cluster: {sum:?}");
            }
            Ok(own.1)
        })
        .await
    }

    /// Waits until the status of the cluster on a commit says so too: it follows that of the canary.
    pub(crate) async fn until_summary(&self, commit: &str, words: &str) -> anyhow::Result<()> {
        let context = format!("serin/{CLUSTER}");
        self.until(&format!("{context} with {words:?} on {commit}"), AFTERWARDS, async || {
            let all = self.repository.statuses(commit).await?;
            anyhow::ensure!(all.get(&context).is_some_and(|(_, said)| said.contains(words)), "{all:?}");
            Ok(())
        })
        .await
    }

    /// Waits, and says on failure what the daemon had to say.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        limit: Limit,
        ask: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let waited = eventually(&format!("{what} in {}", self.name), limit, ask).await;
        waited.with_context(|| format!("last words of the daemon:\n{}\n", self.serin.log(12)))
    }
}

fn version(name: &str, number: &str, behaviour: Behaviour) -> Vec<(&'static str, String)> {
    let flags = match behaviour {
        Behaviour::Good => "",
        Behaviour::Errors => ", --random-error=true",
    };
    let text = format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {name}, labels: {{app: web}}}}
spec:
  replicas: 1
  progressDeadlineSeconds: 120
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: podinfo
        image: ghcr.io/stefanprodan/podinfo:{number}
        command: [./podinfo, --port=9898, --level=info{flags}]
        env:
        - {{name: PODINFO_UI_MESSAGE, value: "{number}"}}
        ports: [{{name: http, containerPort: 9898}}]
        # Until all have heard that the pod goes: what people do who want to lose no request.
        lifecycle: {{preStop: {{sleep: {{seconds: 6}}}}}}
        readinessProbe:
          httpGet: {{path: /readyz, port: http}}
          periodSeconds: 2
          timeoutSeconds: 5
          failureThreshold: 6
"#
    );
    vec![("apps/deployment.yaml", text)]
}

/// An analysis in steps.
const STEPS: &str = "interval: 10s, threshold: 3, maxWeight: 50, stepWeight: 25";

fn proxy(provider: &str) -> &'static str {
    if provider == "skipper" { skipper::ADDRESS } else { gateway::ADDRESS }
}

fn host(name: &str) -> String {
    format!("{name}.example.com")
}

fn canary(name: &str, provider: &str, analysis: &str) -> String {
    let (service, metrics) = match provider {
        "contour" | "skipper" => (
            "{port: 80, targetPort: 9898}".to_owned(),
            "{name: request-success-rate, thresholdRange: {min: 99}, interval: 10s}, \
             {name: request-duration, thresholdRange: {max: 500}, interval: 10s}"
                .to_owned(),
        ),
        _ => {
            // Flagger's own queries for Gateway API ask for what another exporter measures.
            let (namespace, gateway) = GATEWAY;
            let refs = format!("gatewayRefs: [{{name: {gateway}, namespace: {namespace}}}]");
            let metric = |template: &str, most: &str| {
                let reference = format!("templateRef: {{name: {template}, namespace: {name}-metrics}}");
                format!("{{name: {template}, {reference}, thresholdRange: {{max: {most}}}, interval: 10s}}")
            };
            (
                format!("{{port: 80, targetPort: 9898, hosts: [{}], {refs}}}", host(name)),
                format!("{}, {}", metric("error-rate", "1"), metric("latency", "0.5")),
            )
        }
    };
    let reference = match provider {
        "skipper" => "\n  ingressRef: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: web}",
        _ => "",
    };
    format!(
        r"apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {{name: web, namespace: {name}}}
spec:
  provider: {provider}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}{reference}
  progressDeadlineSeconds: 120
  service: {service}
  analysis: {{{analysis}, metrics: [{metrics}]}}
"
    )
}

/// The MetricTemplates of Flagger's guide to Gateway API, in a namespace of this world.
fn templates(name: &str) -> String {
    let namespace = format!("{name}-metrics");
    let templates = include_str!("../../fixtures/seed_004/templates.yaml");
    let templates = templates.replace("flagger-system", &namespace);
    let templates = templates.replace("http://flagger-prometheus:9090", prometheus::ADDRESS);
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n{templates}")
}

/// The host name, which includes the HTTPProxy that serin makes.
fn entry(name: &str) -> String {
    format!(
        r"apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {{name: entry, namespace: {name}}}
spec:
  virtualhost: {{fqdn: {name}.example.com}}
  includes: [{{name: web, namespace: {name}}}]
"
    )
}

/// The way in through Skipper.
fn ingress(name: &str) -> String {
    format!(
        r"apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {name}, annotations: {{kubernetes.io/ingress.class: skipper}}}}
spec:
  rules:
  - host: {name}.example.com
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}
