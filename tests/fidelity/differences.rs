//! What the sandbox does not do as a real server does, on purpose.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use regex::Regex;
use similar::{ChangeTag, TextDiff};

/// A known difference: lines of some transcripts that are not compared.
pub(crate) struct Difference {
    /// Conversations, as a pattern for their names.
    pub(crate) conversations: &'static str,
    /// Requests, as a pattern for the line that begins with `==`; empty for all.
    pub(crate) requests: &'static str,
    /// Lines, as a pattern; `.*` leaves the whole answer out.
    pub(crate) lines: &'static str,
    /// What differs, for readers of `docs/sandbox.md`.
    pub(crate) what: &'static str,
    /// Why it stays.
    pub(crate) why: &'static str,
}

/// All of them.
pub(crate) const DIFFERENCES: &[Difference] = &[
    known(
        ".*",
        "",
        r#".*\.(eventTime|firstTimestamp|lastTimestamp|deprecated\w+|lastProbeTime|creationTimestamp|reporting\w+|source|lastState|continue|rows|object) = (null|""|\{\}|\[\])"#,
        "Fields that Go writes though they are empty (`eventTime: null`, `lastState: {}`) are left out",
        "clients read both alike",
    ),
    known(
        ".*",
        "as(king for)? .*table",
        r".*columnDefinitions\[\d+\]\.description = .*",
        "Columns of tables have no descriptions",
        "kubectl does not print them",
    ),
    known(
        "watches",
        "asking for table",
        r".*\.columnDefinitions.*",
        "Every table of a watch has its columns, not the first one only",
        "allowed, and simpler",
    ),
    known(
        "events|tables",
        "(events|jobs|cronjobs|endpoints) asking for table",
        ".*",
        "`kubectl get` of Events, Jobs, CronJobs and Endpoints has fewer columns",
        "nobody looks at them in a demo",
    ),
    known(
        ".*",
        "unreadable",
        r"[45]\d\d|\.(code|message|reason|details.*) = .*",
        "The words about a body that cannot be decoded (JSON, YAML, base64, wrong types) are serde's, not Go's; it is 400 (404 comes second)",
        "the refusal counts",
    ),
    known(
        "errors",
        "another type",
        r"\.message = .*",
        "The words about a body of another kind or version than the address are shorter",
        "the refusal counts",
    ),
    known(
        "errors",
        "fieldSelector",
        r"\.message = .*",
        "The words about a field selector that is not supported differ",
        "the refusal counts",
    ),
    known(
        "field_validation",
        r"fieldValidation=Strict \(a field twice\)",
        ".*",
        "A field that stands twice in a body is not noticed",
        "the last one counts, as with `fieldValidation=Ignore`",
    ),
    known(
        "apply_lists",
        "a merge key twice",
        ".*",
        "An applied list with one key twice is 422 by the validation of its type, or merged, not 500",
        "serin refuses such manifests before",
    ),
    known(
        "canary_types",
        "another version",
        "warning: .*",
        "A refusal comes without the warnings about unknown fields",
        "the refusal counts",
    ),
    known(
        "canary_types",
        "no branch of anyOf",
        r"\.details\.causes.*",
        "Where no branch of an `anyOf` fits, the failures inside the branches are not listed",
        "the cause `anyOf` is",
    ),
    known(
        "canary_types",
        "wrong in its status",
        r"\.details\.causes\[\d\]\.message = .*",
        "A wrong type in a status names the whole path",
        "the real server forgets `status.` there",
    ),
    known(
        "compaction",
        "GET",
        ".*",
        "A compaction forgets everything at once: lists at old revisions, continue tokens and watches from before get 410",
        "a real server answers from its watch cache for a while; clients must be ready for 410 all the time",
    ),
    known(
        "watches",
        "the list as a stream",
        ".*",
        "WatchList (`sendInitialEvents`) is served",
        "the real server beside it stood on etcd 3.4, which cannot",
    ),
    known(
        "lists",
        "continue=|Exact .as it was then",
        ".*",
        "A page after the first, and a list at an old revision, show the objects of now",
        "old objects are kept for watches only",
    ),
    known(
        "garbage",
        "two controllers",
        ".*",
        "Two owners that both claim to control an object are not refused",
        "no controller does that",
    ),
    known(
        "crud",
        "another uid",
        r"4\d\d|\.(code|message|reason|details.*) = .*",
        "Another uid in a write is always 409 `Conflict`",
        "the real server says 422 to a patch, and names its etcd key to an update",
    ),
    known(
        "crud",
        "POST",
        r"\.metadata\.generation = .*",
        "A generation in a new object of a type without generations is dropped",
        "nobody sets it",
    ),
    known(
        "custom_types|discovery",
        "GET /apis/",
        r".*storageVersionHash = .*",
        "Discovery has no `storageVersionHash`",
        "only storage migrators read it",
    ),
    known(
        "custom_types",
        "not structural",
        r"\.(details.*|message) = .*",
        "A CRD is checked for its name only",
        "`serin check` and a real server check more",
    ),
    known(
        "custom_types",
        "DELETE .*customresourcedefinitions",
        ".*",
        "A CRD without objects goes at once, without its finalizer",
        "as the end of a real deletion",
    ),
    known(
        "deployments|deployment_deadline",
        "pods|replicasets",
        r".*(nodeName|priority|preemptionPolicy|tolerations.*|cells\[6\]|conditions\[\d\]\.reason|sandbox.serin.dev/running.*) = .*",
        "Pods run on the node `sandbox`, have no priority and tolerations, and say what they do in an annotation",
        "there is no scheduler and no admission",
    ),
    known(
        "validation|events",
        "not checked",
        ".*",
        "HPAs, Ingresses, Leases, Events, keys of ConfigMaps and annotations are checked for their types only",
        "what serin writes of them is right, and the bed's real server tells",
    ),
    known(
        "validation",
        "POST .*deployments",
        r".*requests\.cpu = .*",
        "Quantities stay as they were written (`0.1`, not `100m`)",
        "nobody calculates with them",
    ),
    known(
        "validation",
        "POST .*services",
        r"\.spec\.ipFamil.*",
        "Services are single-stack, headless ones too",
        "there is no network",
    ),
    known(
        "validation",
        "rolebindings",
        r"\.roleRef\.apiGroup = .*",
        "A role reference without a group stays so",
        "there is no authorisation",
    ),
    known(
        "validation",
        "daemonsets",
        r".*deprecated.daemonset.template.generation.*",
        "A DaemonSet has no annotation with its template's generation",
        "deprecated, and read by nobody",
    ),
];

const fn known(
    conversations: &'static str,
    requests: &'static str,
    lines: &'static str,
    what: &'static str,
    why: &'static str,
) -> Difference {
    Difference { conversations, requests, lines, what, why }
}

/// The list in `docs/sandbox.md`.
pub(crate) fn page() -> String {
    let rows = DIFFERENCES.iter().map(|known| format!("| {} | {} |\n", known.what, known.why));
    format!("| difference | why it stays |\n|---|---|\n{}", rows.collect::<String>())
}

/// The rows that cover nothing that really differs: their reason is gone. Takes the names of conversations, what is
/// expected and what is answered.
pub(crate) fn idle(talks: &[(String, String, String)]) -> Vec<&'static str> {
    let known: Vec<&Difference> = DIFFERENCES.iter().collect();
    let read: Vec<_> = talks
        .iter()
        .map(|(name, expected, answered)| (covered(name, expected, &known), covered(name, answered, &known)))
        .collect();
    let without = |row: usize, lines: &[(String, Vec<usize>)]| -> Vec<String> {
        let kept = lines.iter().filter(|(_, rows)| rows.iter().all(|r| *r == row));
        kept.map(|(line, _)| line.clone()).collect()
    };
    let idle = |row: &usize| read.iter().all(|(a, b)| without(*row, a) == without(*row, b));
    (0..DIFFERENCES.len()).filter(idle).map(|row| DIFFERENCES[row].what).collect()
}

impl Difference {
    /// Whether it covers a line of the conversations that it is about.
    fn covers(&self, request: &str, line: &str) -> bool {
        matches(self.requests, request) && matches(&format!("^(?:{})$", self.lines), line)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("no panic while matching");
    known.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).expect("a pattern")).is_match(text)
}

/// The lines of a transcript, each with the rows that cover it.
fn covered(name: &str, transcript: &str, known: &[&Difference]) -> Vec<(String, Vec<usize>)> {
    let about = |difference: &Difference| matches(&format!("^(?:{})$", difference.conversations), name);
    let known: Vec<_> = known.iter().enumerate().filter(|(_, difference)| about(difference)).collect();
    let mut request = "";
    let mut lines = Vec::new();
    for line in transcript.lines() {
        if line.starts_with("== ") {
            request = line;
        }
        let rows = known.iter().filter(|(_, difference)| line != request && difference.covers(request, line));
        lines.push((line.to_owned(), rows.map(|(row, _)| *row).collect()));
    }
    lines
}

/// A transcript without the lines that are not compared.
fn without(name: &str, transcript: &str, known: &[&Difference]) -> String {
    let kept = covered(name, transcript, known).into_iter().filter(|(_, rows)| rows.is_empty());
    kept.map(|(line, _)| line + "\n").collect()
}

/// How an answer differs from the expected one: empty when it does not, apart from what is known.
pub(crate) fn compare(name: &str, expected: &str, answered: &str, known: &[Difference]) -> String {
    let known: Vec<&Difference> = known.iter().collect();
    let (expected, answered) = (without(name, expected, &known), without(name, answered, &known));
    let diff = TextDiff::from_lines(&expected, &answered);
    let mut shown = String::new();
    let mut request = "";
    let mut told = "";
    for change in diff.iter_all_changes() {
        let line = change.value();
        if line.starts_with("== ") {
            request = line;
        }
        if change.tag() != ChangeTag::Equal {
            if told != request {
                shown.push_str(&format!("  {request}"));
                told = request;
            }
            shown.push_str(&format!("{}{line}", change.tag()));
        }
    }
    shown
}
