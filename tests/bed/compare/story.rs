//! The releases that both programs are given.

use anyhow::Context as _;

/// One release.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// What happens, for the page.
    pub(crate) words: &'static str,
    /// Traffic provider.
    pub(crate) provider: &'static str,
    /// Whether the Canary says `skipAnalysis`.
    skip: bool,
    /// `spec.analysis` below what all have.
    analysis: &'static str,
    /// Flags of the new version.
    flags: &'static str,
    /// The phase in which the run ends.
    pub(crate) end: &'static str,
}

const WEIGHTED: &str = "
    stepWeight: 25
    maxWeight: 50
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 10s}
    - {name: request-duration, thresholdRange: {max: 5000}, interval: 10s}";

pub(crate) const ALL: &[Story] = &[
    Story {
        name: "good",
        words: "A good release with provider contour: 25 %, 50 %, promoted.",
        provider: "contour",
        skip: false,
        analysis: WEIGHTED,
        flags: "",
        end: "Succeeded",
    },
    Story {
        name: "bad",
        words: "A release of which a third of the answers are errors, with provider contour: rolled back.",
        provider: "contour",
        skip: false,
        analysis: WEIGHTED,
        flags: ", --random-error=true",
        end: "Failed",
    },
    Story {
        name: "blue",
        words: "A good release with provider kubernetes: Blue/Green with three iterations and without metrics, promoted.",
        provider: "kubernetes",
        skip: false,
        analysis: "
    iterations: 3",
        flags: "",
        end: "Succeeded",
    },
    Story {
        name: "skip",
        words: "A good release with provider contour and `skipAnalysis: true`: promoted at once.",
        provider: "contour",
        skip: true,
        analysis: WEIGHTED,
        flags: "",
        end: "Succeeded",
    },
];

/// The stories of these names, or all.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<&'static Story>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let known = || ALL.iter().map(|story| story.name).collect::<Vec<_>>().join(", ");
    let found = names
        .iter()
        .map(|name| ALL.iter().find(|story| story.name == name).with_context(|| format!("{name}: one of {}", known())));
    found.collect()
}

impl Story {
    /// Whether users reach the application through Envoy.
    pub(crate) fn routed(&self) -> bool {
        self.provider == "contour"
    }

    /// The Canary, and the host name that includes the route.
    pub(crate) fn canary(&self, namespace: &str) -> String {
        let Self { provider, skip, analysis, .. } = self;
        let canary = format!(
            "apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {{name: web, namespace: {namespace}}}
spec:
  provider: {provider}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  progressDeadlineSeconds: 120
  skipAnalysis: {skip}
  service: {{port: 80, targetPort: 9898}}
  analysis:
    interval: 10s
    threshold: 2{analysis}
"
        );
        if !self.routed() {
            return canary;
        }
        format!(
            "{canary}---
apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {{name: entry, namespace: {namespace}}}
spec:
  virtualhost: {{fqdn: {namespace}.example.com}}
  includes: [{{name: web, namespace: {namespace}}}]
"
        )
    }

    /// The application in its first version, or in the one that is released.
    pub(crate) fn deployment(&self, namespace: &str, number: &str) -> String {
        let flags = if number == "1.0.0" { "" } else { self.flags };
        format!(
            r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}, labels: {{app: web}}}}
spec:
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
        lifecycle: {{preStop: {{sleep: {{seconds: 6}}}}}}
        readinessProbe:
          httpGet: {{path: /readyz, port: http}}
          periodSeconds: 2
          timeoutSeconds: 5
          failureThreshold: 6
"#
        )
    }
}
