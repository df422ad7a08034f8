//! Plays a story: the whole daemon on a bed, people and machines acting on it, the end compared with what is expected.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that cannot be played stops its test")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use serin::domain::{CanaryKey, Object, ObjectKey, Sha, parse_duration};
use serin::ports::{Clock as _, HookCall, HookReply, HookRunner};
use serin::release::Ledger;
use serin::sandbox::prometheus::Availability;
use serin::sandbox::traffic::Load;
use serin::sim::person::Remote;
use serin::sim::{Bed, BedOptions, bed};

use super::end::{self, End, Posted};
use super::files::{self, Changed};
use super::story::{Act, Change, Expect, Server, Story, object_key};
use super::transcript::{Kind, SeenForge, SeenGit, Transcript};
use crate::git::git_server::{Fault, HttpServer, On, Repo};

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
        let wrong = stage.end(&story.expect).check(&story.expect);
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
        let files = files::first(story).unwrap();
        stage.push("Start", None, &files.into_iter().map(|(path, text)| (path, Some(text))).collect());
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

    fn push(&self, subject: &str, on: Option<&Sha>, files: &Changed) -> Sha {
        let list: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
        let parent = on.cloned().or_else(|| self.bed.remote.head("main"));
        let sha = self.bed.remote.commit_on("main", parent.as_ref(), subject, &list, self.bed.clock.now()).unwrap();
        self.transcript.name(&sha, subject);
        self.bed.pushed();
        sha
    }

    fn commit(&self, subject: &str) -> Sha {
        end::commit(&self.transcript.subjects(), subject).unwrap()
    }

    fn changed(&self, on: &Sha, wanted: &Change) -> Changed {
        files::changed(&self.bed.remote.files_at(on), wanted).unwrap()
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
                let files = files::reverting(&self.bed.remote, &bad).unwrap();
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
                self.bed.sandbox.store.delete(&object_key(object).unwrap()).unwrap();
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
        let key = object_key(object).unwrap();
        let mut live = Object::clone(&self.bed.sandbox.store.get(&key).expect("the object"));
        merge(&mut live.0, patch);
        self.bed.sandbox.store.write(live, "kubectl").unwrap();
    }

    fn ledger(&self) -> Ledger {
        let key = ObjectKey::namespaced("v1", "ConfigMap", bed::NAMESPACE, "serin-apps");
        let object = self.bed.sandbox.store.get(&key).expect("the ledger");
        let text = object.at("/data").unwrap()["ledger.json"].as_str().unwrap().to_owned();
        Ledger::from_json(&text).unwrap().0
    }

    fn end(&self, expect: &Expect) -> End {
        let remote = &self.bed.remote;
        let version = |name: &str| {
            let live = self.bed.sandbox.store.get(&object_key(&format!("Deployment {name}")).unwrap())?;
            Some(live.str("/spec/template/spec/containers/0/image").rsplit(':').next()?.to_owned())
        };
        let phase = |name: &str| match self.bed.canary(&key(name)) {
            Some(_) => self.bed.phase(&key(name)),
            None => "gone".to_owned(),
        };
        End {
            phases: expect.phases.keys().map(|name| (name.clone(), phase(name))).collect(),
            serving: expect.serving.keys().filter_map(|name| Some((name.clone(), version(name)?))).collect(),
            log: remote.log("main"),
            subjects: self.transcript.subjects(),
            head: remote.files_at(&remote.head("main").unwrap()),
            restored: expect.tree_of.as_ref().map(|subject| remote.files_at(&self.commit(subject))),
            branches: remote.branches(),
            posted: posted(&self.bed),
            ledger: self.ledger(),
        }
    }
}

/// The statuses that were posted to the forge of a world.
pub(crate) fn posted(bed: &Bed) -> Vec<Posted> {
    let all = bed.forge.posted().into_iter();
    all.map(|one| Posted::new(one.sha, &one.context, bed::CLUSTER, one.state, one.description)).collect()
}

pub(crate) fn key(text: &str) -> CanaryKey {
    CanaryKey::try_from(text.to_owned()).expect("NAMESPACE/NAME")
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
