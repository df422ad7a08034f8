//! A story's texts as the bed has them, and back: each story has a namespace of its own, pods that are podinfo, and time
//! that passes in reality.

use std::time::Duration;

use super::files::{Changed, Files};

/// The namespace in the files of all stories.
const NAMESPACE: &str = "shop";
/// Waits, and the window of the success rate, are so many times shorter than in the story. Intervals are the shortest as they
/// are.
const PACE: u32 = 2;

/// What stands for the faults of `web.behaviour`, which the sandbox reads in an annotation of the pods, or in a ConfigMap.
const COMMAND: &str = r#"
        command:
        - sh
        - -c
        - |
          case "$BEHAVIOUR $behaviour" in *errors=[1-9]*) set -- --random-error=true;; esac
          case "$BEHAVIOUR $behaviour" in *latency=[5-9][0-9][0-9]ms*)
            set -- "$@" --random-delay=true --random-delay-min=600 --random-delay-max=900 --random-delay-unit=ms;; esac
          case "$BEHAVIOUR $behaviour" in *never-ready*) set -- "$@" --unready=true;; esac
          exec /image/podinfo --port=8080 --level=info "$@"
        # Until all have heard that the pod goes: what people do who want to lose no request.
        lifecycle: {preStop: {sleep: {seconds: 6}}}
        env:
        - name: BEHAVIOUR
          valueFrom: {fieldRef: {fieldPath: "metadata.annotations['sandbox.serin.dev/behaviour']"}}
        - name: PODINFO_UI_MESSAGE
          value: "#;
/// A version with faults fails its own probe now and then, and stays what it is: a version with faults.
const PATIENT: &str = "            path: /readyz
            port: http
          periodSeconds: 2
          timeoutSeconds: 5
          failureThreshold: 6
";

/// How the texts of one story differ on the bed.
#[derive(Clone)]
pub(crate) struct Shape {
    /// The story's namespace on the bed, unlike any other word.
    pub(crate) namespace: String,
    /// In files: what the story has, what the bed has.
    pairs: Vec<(String, String)>,
}

impl Shape {
    pub(crate) fn new(number: usize) -> Self {
        let namespace = format!("{NAMESPACE}{number:02}");
        let pair = |story: &str, bed: &str| (story.to_owned(), bed.to_owned());
        let pod = |app: &str| {
            let image = format!("        image: {{{{registry}}}}/{app}:{{{{{app}.version}}}}\n");
            let version = format!("{{{{{app}.version}}}}\n");
            (image.clone(), format!("{}{COMMAND}{version}", image.trim_end()))
        };
        let probe = "            path: /ready\n            port: http\n";
        let mut pairs = vec![
            pair("namespace: shop", &format!("namespace: {namespace}")),
            pair("\n  name: shop\n", &format!("\n  name: {namespace}\n")),
            pair("progressDeadlineSeconds: 60", "progressDeadlineSeconds: 120"),
            pair("interval: 1m", "interval: 31s"),
            pair(probe, PATIENT),
        ];
        let (image, mut catalog) = pod("catalog");
        catalog += "        readinessProbe:\n          httpGet:\n            path: /readyz\n            port: http\n          timeoutSeconds: 5\n";
        pairs.extend([pod("web"), (image, catalog)]);
        Self { namespace, pairs }
    }

    /// A wait.
    pub(crate) fn wait(time: Duration) -> Duration {
        time / PACE
    }

    fn file(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (story, bed)| text.replace(story, bed))
    }

    /// Files of the story, for the bed.
    pub(crate) fn files(&self, files: Changed) -> Changed {
        files.into_iter().map(|(path, text)| (path, text.map(|text| self.file(&text)))).collect()
    }

    /// Files of the bed, as the story would have them.
    pub(crate) fn files_back(&self, files: Files) -> Files {
        let back = |text: String| self.pairs.iter().rev().fold(text, |text, (story, bed)| text.replace(bed, story));
        files.into_iter().map(|(path, text)| (path, back(text))).collect()
    }

    /// What the bed says, as the story would say it.
    pub(crate) fn back(&self, text: &str) -> String {
        text.replace(&self.namespace, NAMESPACE)
    }

    /// The way in to an application: a host name, which includes the HTTPProxy that serin makes.
    pub(crate) fn entry(&self, app: &str) -> (String, String) {
        let (namespace, host) = (&self.namespace, self.host(app));
        let text = format!(
            "apiVersion: projectcontour.io/v1\nkind: HTTPProxy\nmetadata: {{name: entry-{app}, namespace: {namespace}}}\n\
             spec:\n  virtualhost: {{fqdn: {host}}}\n  includes: [{{name: {app}, namespace: {namespace}}}]\n"
        );
        (format!("clusters/demo/entry-{app}.yaml"), text)
    }

    pub(crate) fn host(&self, app: &str) -> String {
        format!("{app}.{}.example.com", self.namespace)
    }
}
