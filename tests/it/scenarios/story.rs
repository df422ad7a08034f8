//! The format of a scenario file: what is done when, and how the world must look at the end.

use std::collections::BTreeMap;

use serde::Deserialize;
use serin::domain::ObjectKey;

/// A scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Story {
    /// What is shown, in a sentence or two.
    pub(crate) about: String,
    /// Whether the test bed plays it too, on a real cluster and in real time. The sandbox plays every story.
    pub(crate) bed: Option<OnBed>,
    /// `file` (default) or `http`: how the daemon reaches the repository. Refused pushes and races need `http`.
    #[serde(default)]
    pub(crate) server: Server,
    /// Changes to the example repository before its first commit.
    #[serde(default)]
    pub(crate) first: Change,
    /// Requests per second by apex service, `NAMESPACE/NAME`; 50 for `shop/web` when nothing is said.
    #[serde(default)]
    pub(crate) load: BTreeMap<String, f64>,
    /// Share of the users, 0 to 1, who match the conditions of an A/B test.
    #[serde(default)]
    pub(crate) matching: f64,
    /// Answers of webhooks by URL: `yes`, `no: WORDS` or `down`. Others say yes.
    #[serde(default)]
    pub(crate) hooks: BTreeMap<String, String>,
    /// One after another.
    pub(crate) steps: Vec<Step>,
    /// Time that passes after the last step.
    #[serde(default = "ten_minutes")]
    pub(crate) rest: String,
    /// The end.
    pub(crate) expect: Expect,
}

fn ten_minutes() -> String {
    "10m".to_owned()
}

/// How the bed plays a story.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnBed {
    /// In each run of the functional suite, or when it is asked for.
    pub(crate) when: Often,
    /// Why requests of users may be lost; none may when nothing is said.
    pub(crate) lost: Option<String>,
}

/// How often the bed plays a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Often {
    /// In every run.
    Always,
    /// When it is named, or all stories are asked for.
    Asked,
}

/// How the daemon reaches the repository.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    /// By its path.
    #[default]
    File,
    /// Over smart HTTP on loopback.
    Http,
}

/// Waits, then acts. `when` is one of:
///
/// * a duration: `90s`, `10m`
/// * `shop/web is PHASE`, `shop/web is gone`
/// * `shop/web has weight 40`
/// * `shop/web says TEXT`: an Event with this text, since the last step
/// * `head is SUBJECT`: of the branch `main`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) when: String,
    #[serde(default, rename = "do")]
    pub(crate) acts: Vec<Act>,
}

/// What people and machines do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Act {
    /// A person pushes a commit.
    Commit(Change),
    /// A person pushes this commit while the daemon pushes to `main`, between its look at the refs and its push.
    Race(Change),
    /// A person reverts the commit with this subject, as `git revert` does.
    Revert(String),
    /// The server takes no push to `main` any more, in these words.
    RefusePushes(String),
    /// `up`, `down`, or a status code.
    Prometheus(String),
    /// Requests per second from now on.
    Load(BTreeMap<String, f64>),
    /// Answers of webhooks from now on.
    Hooks(BTreeMap<String, String>),
    /// `kubectl annotate KIND NS/NAME KEY=VALUE`.
    Annotate { object: String, key: String, value: String },
    /// `kubectl patch KIND NS/NAME --type=merge`.
    Patch { object: String, patch: serde_json::Value },
    /// `kubectl delete KIND NS/NAME`.
    Delete(String),
}

/// A commit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Change {
    /// Subject, unique in the scenario: commits are named by it.
    pub(crate) subject: String,
    /// The commit that it is put on top of, when that is not the tip: a force push.
    pub(crate) on: Option<String>,
    /// Values in `values/demo.yaml`, by dotted path.
    pub(crate) set: BTreeMap<String, String>,
    /// Texts to replace by file; each must occur once.
    pub(crate) edit: BTreeMap<String, BTreeMap<String, String>>,
    /// Whole files.
    pub(crate) files: BTreeMap<String, String>,
    /// Files that are removed.
    pub(crate) remove: Vec<String>,
    /// Files that get another name, before they are edited.
    pub(crate) rename: BTreeMap<String, String>,
}

/// The end of a scenario. What is not said is not looked at; the transcript has it all. In subjects and descriptions
/// `{SUBJECT}` stands for the short id of the commit with that subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// Phase by canary; `gone` for one that does not exist.
    #[serde(default)]
    pub(crate) phases: BTreeMap<String, String>,
    /// Version of the image that users get, by primary Deployment: `shop/web-primary: 1.1.0`.
    #[serde(default)]
    pub(crate) serving: BTreeMap<String, String>,
    /// Subjects of `main`, newest first.
    #[serde(default)]
    pub(crate) log: Vec<String>,
    /// The tree of `main` is the one of the commit with this subject.
    #[serde(default)]
    pub(crate) tree_of: Option<String>,
    /// What stands in a file at the head: each text must occur.
    #[serde(default)]
    pub(crate) contains: BTreeMap<String, Vec<String>>,
    /// All branches besides `main` and the status branch, with `DIGEST` for the digest in a name.
    #[serde(default)]
    pub(crate) branches: Vec<String>,
    /// Statuses in force: by subject of the commit, then by canary or `all`, `STATE` or `STATE: TEXT IN THE DESCRIPTION`.
    pub(crate) statuses: BTreeMap<String, BTreeMap<String, String>>,
    /// Ledger: by canary.
    #[serde(default)]
    pub(crate) ledger: BTreeMap<String, Entry>,
}

/// What the ledger says of a canary.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Subject of the promoted commit.
    pub(crate) promoted: String,
    /// Subjects of the release commits that are condemned.
    #[serde(default)]
    pub(crate) condemned: Vec<String>,
    /// How the cases stand, oldest first: `open`, `reverted`, `reverted by`, `fixed forward`, `brought back`, `retried`,
    /// `moot`, `cancelled`.
    #[serde(default)]
    pub(crate) cases: Vec<String>,
    /// Verdicts, oldest first.
    #[serde(default)]
    pub(crate) history: Option<Vec<String>>,
}

/// `KIND NAMESPACE/NAME` as a key.
pub(crate) fn object_key(text: &str) -> Result<ObjectKey, String> {
    let parts = text.split_once(' ').and_then(|(kind, name)| Some((kind, name.split_once('/')?)));
    let (kind, (namespace, name)) = parts.ok_or_else(|| format!("{text}: expected KIND NAMESPACE/NAME"))?;
    let version = match kind {
        "Canary" => "flagger.app/v1beta1",
        "Deployment" => "apps/v1",
        "HTTPProxy" => "projectcontour.io/v1",
        "HTTPRoute" => "gateway.networking.k8s.io/v1",
        "Ingress" => "networking.k8s.io/v1",
        _ => "v1",
    };
    Ok(ObjectKey::namespaced(version, kind, namespace, name))
}
