//! Plays a story: the whole daemon on a bed, people and machines acting on it, the end compared with what is expected.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that cannot be played stops its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use serin::domain::{CanaryKey, Object, ObjectKey, Sha, parse_duration};
use serin::ports::{Clock as _, CommitState, HookCall, HookReply, HookRunner};
use serin::release::{Case, CaseState, Closed, Ledger};
use serin::sandbox::prometheus::Availability;
use serin::sandbox::traffic::Load;
use serin::sim::person::Remote;
use serin::sim::{Bed, BedOptions, bed, example};

use super::story::{Act, Change, Entry, Expect, Server, Story};
use super::transcript::{Kind, SeenForge, SeenGit, Transcript};
use crate::git::git_server::{Fault, HttpServer, On, Repo};

const VALUES: &str = "values/demo.yaml";
/// How long a step may be waited for.
const PATIENCE: Duration = Duration::from_secs(1800);

/// People and machines act this long after what they wait for.
const ASIDE: Duration = Duration::from_millis(300);

/// Plays a story on a runtime of its own and returns its transcript.
pub(crate) fn play(story: &Story) -> String {
    let clock = Arc::new(bed::clock());
    let runtime = clock.runtime().unwrap();
    runtime.block_on(async move {
        let stage = Stage::set(clock, story).await;
        for step in &story.steps {
            let from = stage.transcript.len();
            let came = stage.bed.wait(PATIENCE, |_| stage.holds(&step.when, from)).await;
            stage.pass_if_time(&step.when).await;
            assert!(came, "waited in vain until {}\n{}", step.when, stage.transcript.text());
            // Not at the very instant of a poll: whether it saw the act would be a race.
            stage.bed.pass(ASIDE).await;
            for act in &step.acts {
                stage.act(act);
            }
        }
        stage.bed.pass(parse_duration(&story.rest).unwrap()).await;
        let mut wrong = stage.check(&story.expect);
        wrong.extend(stage.check_always());
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), stage.transcript.text());
        stage.transcript.text()
    })
}

/// The answers of webhooks.
#[derive(Default)]
struct Hooks {
    answers: Mutex<BTreeMap<String, String>>,
}

#[async_trait]
impl HookRunner for Hooks {
    async fn call(&self, call: HookCall) -> HookReply {
        let answers = self.answers.lock().unwrap();
        match answers.get(&call.url).map(String::as_str) {
            None | Some("yes") => HookReply::Passed,
            Some("down") => HookReply::Unreachable("connection refused".to_owned()),
            Some(words) => HookReply::Refused(words.trim_start_matches("no:").trim().to_owned()),
        }
    }
}

/// What a person does to the repository in the middle of a push.
type Race = Box<dyn FnOnce(&Repo) + Send>;

/// What happens to the next pushes to `main`.
#[derive(Default)]
struct Trouble {
    refuse: Option<String>,
    race: Option<Race>,
}

struct Stage {
    bed: Bed,
    transcript: Transcript,
    hooks: Arc<Hooks>,
    trouble: Arc<Mutex<Trouble>>,
    matching: f64,
    /// Served over HTTP while this lives.
    _server: Option<(Repo, Arc<HttpServer>)>,
}

impl Stage {
    async fn set(clock: Arc<serin::sim::SimClock>, story: &Story) -> Self {
        let transcript = Transcript::new(clock.clone());
        let server = (story.server == Server::Http).then(|| {
            let repo = Repo::new();
            let server = Arc::new(HttpServer::start(&repo));
            transcript.scrub(&server.url(), "http://git.test/shop.git");
            (repo, server)
        });
        let remote: Option<(PathBuf, String)> =
            server.as_ref().map(|(repo, server)| (repo.path().to_owned(), server.url()));
        let bed = Bed::start(clock.clone(), BedOptions { remote, ..BedOptions::default() }).await.unwrap();
        transcript.scrub(bed.prometheus_url(), "http://prometheus.test");
        transcript.scrub(&bed.repository().display().to_string(), "/shop.git");
        tokio::spawn(transcript.clone().watch(bed.sandbox.store.clone()));
        let hooks = Arc::new(Hooks::default());
        *hooks.answers.lock().unwrap() = story.hooks.clone();
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let stage = Self { bed, transcript, hooks, trouble, matching: story.matching, _server: server };
        if story.load.is_empty() {
            stage.load("shop/web", 50.0);
        }
        for (app, rate) in &story.load {
            stage.load(app, *rate);
        }
        let mut files: BTreeMap<String, Option<String>> =
            example::FILES.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))).collect();
        change(&mut files, &story.first);
        files.retain(|_, text| text.is_some());
        stage.push("Start", None, &files);
        stage.start_daemon();
        stage
    }

    fn start_daemon(&self) {
        let mut ports = self.bed.ports();
        ports.hooks = self.hooks.clone();
        let forge = Arc::new(SeenForge { inner: self.bed.forge.clone(), transcript: self.transcript.clone() });
        let (trouble, server) = (self.trouble.clone(), self._server.as_ref().map(|(_, server)| server.clone()));
        let before_push = Box::new(move || {
            let mut trouble = trouble.lock().unwrap();
            let Some(server) = &server else { return };
            if let Some(race) = trouble.race.take() {
                server.before(On::Push, race);
            }
            if let Some(words) = &trouble.refuse {
                server.fault(On::Push, Fault::RefuseRef(words.clone(), words.clone()));
            }
        });
        let git = SeenGit { inner: self.bed.git().unwrap(), transcript: self.transcript.clone(), before_push };
        self.bed.daemon_with(ports, Arc::new(git), forge);
    }

    fn load(&self, app: &str, rate: f64) {
        let (namespace, app) = app.split_once('/').expect("NAMESPACE/NAME");
        let load = Load::constant(namespace, app, self.bed.clock.now(), rate);
        self.bed.sandbox.traffic.set_load(Load { matching: self.matching, ..load });
    }

    fn push(&self, subject: &str, on: Option<&Sha>, files: &BTreeMap<String, Option<String>>) -> Sha {
        let list: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
        let parent = on.cloned().or_else(|| self.bed.remote.head("main"));
        let sha = self.bed.remote.commit_on("main", parent.as_ref(), subject, &list, self.bed.clock.now()).unwrap();
        self.transcript.name(&sha, subject);
        self.bed.pushed();
        sha
    }

    /// The only commit with this subject on any branch's line.
    fn commit(&self, subject: &str) -> Sha {
        let found = self.transcript.commits(subject);
        assert_eq!(found.len(), 1, "commits named {subject}");
        found[0].clone()
    }

    /// Text files of a commit, with the changes of a commit on top: only what changed.
    fn changed(&self, on: &Sha, wanted: &Change) -> BTreeMap<String, Option<String>> {
        let before: BTreeMap<_, _> = self.bed.remote.files_at(on).into_iter().map(|(p, t)| (p, Some(t))).collect();
        let mut after = before.clone();
        change(&mut after, wanted);
        after.retain(|path, text| before.get(path) != Some(text));
        after
    }

    fn holds(&self, when: &str, from: usize) -> bool {
        let words: Vec<&str> = when.split(' ').collect();
        match words.as_slice() {
            [duration] if parse_duration(duration).is_some() => true,
            ["head", "is", ..] => {
                let head = self.bed.remote.head("main").map(|sha| self.transcript.subject(&sha));
                head.as_deref() == when.strip_prefix("head is ")
            }
            [canary, "is", "gone"] => self.bed.canary(&key(canary)).is_none(),
            [canary, "is", phase] => self.bed.phase(&key(canary)) == *phase,
            [canary, "has", "weight", weight] => {
                let live = self.bed.canary(&key(canary)).and_then(|canary| canary.int("/status/canaryWeight"));
                live == weight.parse().ok()
            }
            [canary, "says", ..] => {
                let (_, text) = when.split_once(" says ").unwrap();
                self.transcript.said(&key(canary), text, from)
            }
            _ => panic!("`{when}` is no condition"),
        }
    }

    async fn pass_if_time(&self, when: &str) {
        if let Some(time) = parse_duration(when) {
            self.bed.pass(time).await;
        }
    }

    fn act(&self, act: &Act) {
        let say = |who: &str, what: String| self.transcript.add(Kind::Person, who, what);
        match act {
            Act::Commit(wanted) => {
                let head = self.bed.remote.head("main").unwrap();
                let on = wanted.on.as_ref().map(|subject| self.commit(subject));
                let files = self.changed(on.as_ref().unwrap_or(&head), wanted);
                let forced = if on.is_some() { " (forced)" } else { "" };
                say("Ada", format!("pushes {}{forced}", wanted.subject));
                self.push(&wanted.subject, on.as_ref(), &files);
            }
            Act::Race(wanted) => self.race(wanted),
            Act::Revert(subject) => {
                let bad = self.commit(subject);
                let log = self.bed.remote.log("main");
                let index = log.iter().position(|(sha, _)| *sha == bad).unwrap();
                let (before, after) =
                    (self.bed.remote.files_at(&log[index + 1].0), self.bed.remote.files_at(&log[index].0));
                let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                let changed = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
                let files = changed.map(|path| (path.clone(), before.get(path).cloned())).collect();
                let subject = format!("Ada reverts {subject}");
                say("Ada", format!("pushes {subject}"));
                self.push(&subject, None, &files);
            }
            Act::RefusePushes(words) => self.trouble.lock().unwrap().refuse = Some(words.clone()),
            Act::Prometheus(state) => {
                say("Prometheus", state.clone());
                self.bed.sandbox.prometheus.set_availability(match state.as_str() {
                    "up" => Availability::Up,
                    "down" => Availability::Refused,
                    code => Availability::Failing(code.parse().unwrap()),
                });
            }
            Act::Load(apps) => apps.iter().for_each(|(app, rate)| self.load(app, *rate)),
            Act::Hooks(answers) => {
                for (url, answer) in answers {
                    say("Hook", format!("{url} answers {answer} from now on"));
                    self.hooks.answers.lock().unwrap().insert(url.clone(), answer.clone());
                }
            }
            Act::Annotate { object, key, value } => {
                say("Ada", format!("annotates {object} with {key}={value}"));
                self.patch(object, &serde_json::json!({"metadata": {"annotations": {key: value}}}));
            }
            Act::Patch { object, patch } => {
                say("Ada", format!("patches {object} with {patch}"));
                self.patch(object, patch);
            }
            Act::Delete(object) => {
                say("Ada", format!("deletes {object}"));
                self.bed.sandbox.store.delete(&object_key(object)).unwrap();
            }
        }
    }

    /// Pushes a commit when the daemon does, by another handle and on another thread.
    fn race(&self, wanted: &Change) {
        let transcript = self.transcript.clone();
        let (subject, now) = (wanted.subject.clone(), self.bed.clock.now());
        let head = self.bed.remote.head("main").unwrap();
        let files = self.changed(&head, wanted);
        let race = move |repo: &Repo| {
            let remote = Remote::open(repo.path()).unwrap();
            let list: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
            let sha = remote.commit("main", &subject, &list, now).unwrap();
            transcript.name(&sha, &subject);
            transcript.add(Kind::Person, "Ada", format!("pushes {subject} while serin pushes"));
        };
        self.trouble.lock().unwrap().race = Some(Box::new(race));
    }

    fn patch(&self, object: &str, patch: &Value) {
        let key = object_key(object);
        let mut live = Object::clone(&self.bed.sandbox.store.get(&key).expect("the object"));
        merge(&mut live.0, patch);
        self.bed.sandbox.store.write(live, "kubectl").unwrap();
    }

    /// A text of an expectation: `{SUBJECT}` stands for the short id of that commit.
    fn expand(&self, text: &str) -> String {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((subject, after)) = after.split_once('}') else { break };
            whole += before;
            whole += self.commit(subject).short();
            rest = after;
        }
        whole + rest
    }

    fn ledger(&self) -> Ledger {
        let key = ObjectKey::namespaced("v1", "ConfigMap", bed::NAMESPACE, "serin-apps");
        let object = self.bed.sandbox.store.get(&key).expect("the ledger");
        let text = object.at("/data").unwrap()["ledger.json"].as_str().unwrap().to_owned();
        Ledger::from_json(&text).unwrap().0
    }

    fn check(&self, expect: &Expect) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: String, found: String, want: &str| {
            if found != want {
                wrong.push(format!("{what}: found `{found}`, expected `{want}`"));
            }
        };
        for (canary, phase) in &expect.phases {
            let live = self.bed.canary(&key(canary)).map_or("gone".to_owned(), |_| self.bed.phase(&key(canary)));
            compare(format!("phase of {canary}"), live, phase);
        }
        for (name, version) in &expect.serving {
            let live = self.bed.sandbox.store.get(&object_key(&format!("Deployment {name}")));
            let image = live.map(|live| live.str("/spec/template/spec/containers/0/image").to_owned());
            let found = image.as_deref().and_then(|image| image.rsplit(':').next()).unwrap_or_default().to_owned();
            compare(format!("version of {name}"), found, version);
        }
        let log = self.bed.remote.log("main");
        if !expect.log.is_empty() {
            let found: Vec<_> = log.iter().filter_map(|(_, message)| message.lines().next()).collect();
            let want: Vec<_> = expect.log.iter().map(|subject| self.expand(subject)).collect();
            compare("log of main".to_owned(), format!("{found:#?}"), &format!("{want:#?}"));
        }
        if let Some(subject) = &expect.tree_of {
            let (want, found) = (self.commit(subject), self.bed.remote.head("main").unwrap());
            let same = self.bed.remote.files_at(&want) == self.bed.remote.files_at(&found);
            compare(format!("tree of main is the one of {subject}"), same.to_string(), "true");
        }
        for (path, texts) in &expect.contains {
            let found = self.bed.remote.text("main", path).unwrap_or_default();
            for text in texts {
                compare(format!("{path} contains {text}"), found.contains(text).to_string(), "true");
            }
        }
        let mut branches = self.bed.remote.branches();
        branches.retain(|branch| branch != "main" && !branch.starts_with("serin/status/"));
        for branch in branches.iter_mut().filter(|branch| branch.starts_with("serin/revert/")) {
            let (start, _) = branch.rsplit_once('-').unwrap();
            *branch = format!("{start}-DIGEST");
        }
        compare("branches".to_owned(), format!("{branches:?}"), &format!("{:?}", expect.branches));
        self.check_statuses(expect, &mut compare);
        let ledger = self.ledger();
        for (canary, entry) in &expect.ledger {
            self.check_ledger(&ledger, &key(canary), entry, &mut compare);
        }
        wrong
    }

    fn check_statuses(&self, expect: &Expect, compare: &mut impl FnMut(String, String, &str)) {
        let mut in_force: BTreeMap<(String, String), (CommitState, String)> = BTreeMap::new();
        for posted in self.bed.forge.posted() {
            let of = posted.context.strip_prefix("serin/demo").unwrap_or(&posted.context);
            let of = if of.is_empty() { "all" } else { of.trim_start_matches('/') };
            let key = (self.transcript.subject(&posted.sha), of.to_owned());
            in_force.insert(key, (posted.state, posted.description));
        }
        for ((subject, of), (_, words)) in in_force.iter().filter(|(_, (state, _))| *state == CommitState::Pending) {
            compare(format!("status {of} of {subject} has ended"), words.clone(), "");
        }
        for (subject, wanted) in &expect.statuses {
            let subject = &self.expand(subject);
            let found: BTreeSet<&String> =
                in_force.keys().filter(|(known, _)| known == subject).map(|(_, of)| of).collect();
            let want: BTreeSet<&String> = wanted.keys().collect();
            compare(format!("contexts of {subject}"), format!("{found:?}"), &format!("{want:?}"));
            for (of, want) in wanted {
                let want = &self.expand(want);
                let Some((state, words)) = in_force.get(&(subject.clone(), of.clone())) else { continue };
                let found = format!("{state:?}: {words}").to_lowercase();
                let (state, text) = want.split_once(": ").unwrap_or((want, ""));
                let fits = found.starts_with(state) && found.contains(&text.to_lowercase());
                compare(format!("status {of} of {subject}"), if fits { want.clone() } else { found }, want);
            }
        }
    }

    fn check_ledger(
        &self,
        ledger: &Ledger,
        canary: &CanaryKey,
        entry: &Entry,
        compare: &mut impl FnMut(String, String, &str),
    ) {
        let record = ledger.canaries.get(canary).cloned().unwrap_or_default();
        let promoted = record.promoted.map(|promoted| self.transcript.subject(&promoted.commit));
        compare(format!("promoted commit of {canary}"), promoted.unwrap_or_default(), &entry.promoted);
        compare(format!("{canary} has a run"), record.run.is_some().to_string(), "false");
        let in_force = record.condemned.iter().filter(|condemned| condemned.lifted.is_none());
        let condemned: Vec<String> =
            in_force.map(|c| c.commits.first().map(|sha| self.transcript.subject(sha)).unwrap_or_default()).collect();
        compare(format!("condemned of {canary}"), format!("{condemned:?}"), &format!("{:?}", entry.condemned));
        let mut cases: Vec<&Case> = ledger.cases.values().filter(|case| case.canary == *canary).collect();
        cases.sort_by_key(|case| case.opened);
        let cases: Vec<&str> = cases.iter().map(|case| case_words(&case.state)).collect();
        compare(format!("cases of {canary}"), format!("{cases:?}"), &format!("{:?}", entry.cases));
        if let Some(history) = &entry.history {
            let found: Vec<_> = record.history.iter().map(|ended| ended.verdict.clone()).collect();
            compare(format!("history of {canary}"), format!("{found:?}"), &format!("{history:?}"));
        }
    }

    /// What holds in every story: terminal states stay, every revert is the only one of its verdict.
    pub(crate) fn check_always(&self) -> Vec<String> {
        always(&self.bed)
    }
}

/// What must hold in every world, whatever happened in it.
pub(crate) fn always(bed: &Bed) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ended: BTreeMap<(Sha, String, String), CommitState> = BTreeMap::new();
    let mut last: BTreeMap<(Sha, String), String> = BTreeMap::new();
    for posted in bed.forge.posted() {
        let attempt = posted.description.strip_prefix("attempt ").and_then(|rest| rest.split(':').next());
        let attempt = attempt.unwrap_or("1").to_owned();
        let words = format!("{:?} {}", posted.state, posted.description);
        if last.insert((posted.sha.clone(), posted.context.clone()), words.clone()).as_ref() == Some(&words) {
            wrong.push(format!("posted twice: {} {} {words}", posted.sha.short(), posted.context));
        }
        let key = (posted.sha.clone(), posted.context.clone(), attempt);
        match ended.get(&key) {
            Some(before) if *before != posted.state && *before != CommitState::Error => {
                wrong.push(format!("{} {} was {before:?}, then {words}", posted.sha.short(), posted.context));
            }
            _ if posted.state != CommitState::Pending => {
                ended.insert(key, posted.state);
            }
            _ => {}
        }
        if posted.description.chars().count() > 140 {
            wrong.push(format!("too long: {words}"));
        }
    }
    let mut verdicts = BTreeSet::new();
    for (sha, message) in bed.remote.log("main") {
        for line in message.lines().filter_map(|line| line.strip_prefix("Serin-Verdict: ")) {
            if !verdicts.insert(line.to_owned()) {
                wrong.push(format!("{} reverts verdict {line} again", sha.short()));
            }
        }
    }
    wrong
}

fn case_words(state: &CaseState) -> &'static str {
    match state {
        CaseState::Open => "open",
        CaseState::Closed(Closed::Reverted(_)) => "reverted",
        CaseState::Closed(Closed::RevertedBy(_)) => "reverted by",
        CaseState::Closed(Closed::FixedForward(_)) => "fixed forward",
        CaseState::Closed(Closed::BroughtBack(_)) => "brought back",
        CaseState::Closed(Closed::Retried) => "retried",
        CaseState::Closed(Closed::Moot) => "moot",
        CaseState::Closed(Closed::Cancelled) => "cancelled",
    }
}

pub(crate) fn key(text: &str) -> CanaryKey {
    CanaryKey::try_from(text.to_owned()).expect("NAMESPACE/NAME")
}

/// `KIND NS/NAME` as a key.
fn object_key(text: &str) -> ObjectKey {
    let (kind, name) = text.split_once(' ').expect("KIND NAMESPACE/NAME");
    let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
    let version = match kind {
        "Canary" => "flagger.app/v1beta1",
        "Deployment" => "apps/v1",
        "HTTPProxy" => "projectcontour.io/v1",
        "HTTPRoute" => "gateway.networking.k8s.io/v1",
        "Ingress" => "networking.k8s.io/v1",
        _ => "v1",
    };
    ObjectKey::namespaced(version, kind, namespace, name)
}

/// Merge patch (RFC 7396).
fn merge(live: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *live = patch.clone();
        return;
    };
    if !live.is_object() {
        *live = Value::Object(serde_json::Map::new());
    }
    let map = live.as_object_mut().expect("made above");
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Changes a tree of text files.
fn change(files: &mut BTreeMap<String, Option<String>>, wanted: &Change) {
    for (old, new) in &wanted.rename {
        let text = files.insert(old.clone(), None).flatten().unwrap_or_else(|| panic!("{old} is no file"));
        files.insert(new.clone(), Some(text));
    }
    for (path, text) in &wanted.files {
        files.insert(path.clone(), Some(text.clone()));
    }
    for path in &wanted.remove {
        assert!(files.insert(path.clone(), None).flatten().is_some(), "{path} is no file");
    }
    for (path, edits) in &wanted.edit {
        let text = files.get_mut(path).and_then(Option::as_mut).unwrap_or_else(|| panic!("{path} is no file"));
        for (old, new) in edits {
            assert_eq!(text.matches(old.as_str()).count(), 1, "`{old}` in {path}");
            *text = text.replace(old.as_str(), new);
        }
    }
    for (path, value) in &wanted.set {
        let text = files.get_mut(VALUES).and_then(Option::as_mut).expect("the values file");
        *text = set(text, path, value);
    }
}

/// Sets a value of a YAML file of two levels, by dotted path; a missing one is added.
fn set(text: &str, path: &str, value: &str) -> String {
    let (part, name) = path.split_once('.').expect("PART.NAME");
    let value = format!("  {name}: {}", serde_json::to_string(value).unwrap());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let start = match lines.iter().position(|line| *line == format!("{part}:")) {
        Some(start) => start,
        None => {
            lines.extend([String::new(), format!("{part}:")]);
            lines.len() - 1
        }
    };
    let end = lines.iter().skip(start + 1).position(|line| !line.starts_with("  "));
    let end = end.map_or(lines.len(), |end| start + 1 + end);
    match (start + 1..end).find(|index| lines[*index].starts_with(&format!("  {name}:"))) {
        Some(index) => lines[index] = value,
        None => lines.insert(end, value),
    }
    lines.join("\n") + "\n"
}
