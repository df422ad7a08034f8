//! Plays a story: people and machines acting on a daemon of its own, the end compared with what is expected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::pinned_kind;
use serde_json::{Value, json};
use serin::api::Canary;
use serin::domain::{Sha, parse_duration};
use serin::ports::CommitState;
use serin::release::Ledger;

use super::end::{End, Posted};
use super::files;
use super::gate::Gate;
use super::people::People;
use super::shape::Shape;
use super::story::{Act, Expect, Server, Story, object_key};
use super::witness::Witness;
use crate::gateway;
use crate::gitea::Repository;
use crate::load::{Load, Seen};
use crate::serin::{CLUSTER, Options, Serin};
use crate::world::{Bed, Limit, eventually};

/// Requests a second, at most.
const RATE: f64 = 20.0;
/// How long a step may be waited for, on a busy machine.
const PATIENCE: Limit = Limit(Duration::from_secs(240));
/// How long it may take after the last step until all is as expected.
const END: Limit = Limit(Duration::from_secs(90));
/// Time after which all must still be as expected: an interval of the analysis, and a moment.
const REST: Duration = Duration::from_secs(12);
/// What users meet is judged by the answers of so long.
const WINDOW: Duration = Duration::from_millis(900);

/// Plays it. Stories run side by side: the number makes this one's namespace.
pub(crate) async fn play(bed: &Arc<Bed>, story: &Story, name: &str, number: usize) -> anyhow::Result<()> {
    let mut stage = Stage::set(bed, story, name, number).await?;
    let played = stage.run(story).await;
    played
        .with_context(|| format!("in {}; last words of the daemon:\n{}\n", stage.shape.namespace, stage.serin.log(12)))
}

struct Stage<'a> {
    bed: &'a Arc<Bed>,
    name: String,
    shape: Shape,
    repository: Repository<'a>,
    people: People,
    /// Where pushes of the daemon can be raced.
    gate: Option<Gate>,
    serin: Serin,
    witness: Witness,
    /// Requests of users by application, `shop/web`.
    users: BTreeMap<String, Load>,
    open: bool,
}

impl<'a> Stage<'a> {
    async fn set(bed: &'a Arc<Bed>, story: &Story, name: &str, number: usize) -> anyhow::Result<Self> {
        let shape = Shape::new(number);
        let space = shape.namespace.clone();
        let repository = bed.gitea()?.empty_repository(&space).await?;
        let mirror = bed.folder.join(format!("{space}.git"));
        let people = People::new(mirror, repository.url_of_a_person(), shape.clone())?;
        let first = files::first(story).map_err(|why| anyhow!(why))?;
        let mut first = shape.files(first.into_iter().map(|(path, text)| (path, Some(text))).collect());
        for (app, _) in users(story) {
            let (path, text) = shape.entry(app_of(&app)?);
            first.insert(path, Some(text));
        }
        people.push("Start", None, &first).await?;
        let gate = if story.server == Server::Http { Some(Gate::open().await?) } else { None };
        let options = Options {
            // A Lease would only add a quarter of a minute to the start.
            leader_election: false,
            path: "clusters/demo",
            values: Some("values/demo.yaml"),
            url: gate.as_ref().map(|gate| gate.url(&repository.url())),
            ..Options::default()
        };
        let witness = Witness::new(&bed.admin(), &space);
        let serin = Serin::deploy(bed, &space, &repository, &options).await?;
        let (name, users) = (name.to_owned(), BTreeMap::new());
        Ok(Self { bed, name, shape, repository, people, gate, serin, witness, users, open: false })
    }

    async fn run(&mut self, story: &Story) -> anyhow::Result<()> {
        for step in &story.steps {
            let from = self.witness.len();
            match parse_duration(&step.when) {
                Some(time) => tokio::time::sleep(Shape::wait(time)).await,
                None => eventually(&step.when, PATIENCE, async || self.holds(&step.when, from).await).await?,
            }
            if !self.open && !step.acts.is_empty() {
                self.open(story).await?;
            }
            for act in &step.acts {
                self.act(act).await?;
            }
        }
        self.check(story).await
    }

    /// Lets users in, once there is something to answer them.
    async fn open(&mut self, story: &Story) -> anyhow::Result<()> {
        self.open = true;
        for (app, rate) in users(story) {
            self.send(&app, rate)?;
        }
        for (app, load) in &self.users {
            eventually(&format!("answers of {app}"), END, async || {
                load.take();
                tokio::time::sleep(WINDOW).await;
                let seen = load.seen();
                anyhow::ensure!(seen.total > 0 && seen.statuses.keys().eq(&[200]), "{:?}", seen.statuses);
                Ok(())
            })
            .await?;
            load.take();
        }
        Ok(())
    }

    fn send(&mut self, app: &str, rate: f64) -> anyhow::Result<()> {
        self.users.remove(app);
        if rate > 0.0 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and RATE")]
            let rate = rate.clamp(1.0, RATE) as u32;
            let load = Load::start(gateway::ADDRESS, &self.shape.host(app_of(app)?), rate, &[])?;
            self.users.insert(app.to_owned(), load);
        }
        Ok(())
    }

    /// Whether a condition of a step holds; an error with what is the case instead.
    async fn holds(&self, when: &str, from: usize) -> anyhow::Result<()> {
        if let Some(subject) = when.strip_prefix("head is ") {
            let log = self.repository.log().await?;
            let head = log.first().and_then(|(_, message)| message.lines().next()).unwrap_or_default();
            anyhow::ensure!(self.shape.back(head) == subject, "the head is {head}");
            return Ok(());
        }
        let (canary, rest) = when.split_once(' ').with_context(|| format!("`{when}` is no condition"))?;
        let name = app_of(canary)?;
        let holds = match rest.split_once(' ').with_context(|| format!("`{when}` is no condition"))? {
            ("is", phase) => self.witness.was_in_phase(name, phase, from),
            ("has", weight) => {
                let weight = weight.strip_prefix("weight ").and_then(|weight| weight.parse().ok());
                self.witness.had_weight(name, weight.with_context(|| format!("`{when}` has no number"))?, from)
            }
            ("says", text) => self.witness.said(name, text, from),
            _ => bail!("`{when}` is no condition"),
        };
        anyhow::ensure!(holds, "{}", self.witness.last(name));
        Ok(())
    }

    async fn act(&mut self, act: &Act) -> anyhow::Result<()> {
        match act {
            Act::Commit(wanted) => self.people.change(wanted).await,
            Act::Revert(subject) => self.people.revert(subject).await,
            Act::Race(wanted) => {
                let (people, wanted) = (self.people.clone(), wanted.clone());
                let gate = self.gate.as_ref().context("a story with a race needs `server: http`")?;
                gate.before_push(move || async move { people.change(&wanted).await }.boxed());
                Ok(())
            }
            Act::RefusePushes(_) => self.repository.protect().await,
            Act::Load(apps) => apps.iter().try_for_each(|(app, rate)| self.send(app, *rate)),
            Act::Annotate { object, key, value } => {
                self.patch(object, &json!({"metadata": {"annotations": {key: value}}})).await
            }
            Act::Patch { object, patch } => self.patch(object, patch).await,
            Act::Delete(object) => {
                let (api, name) = self.object(object).await?;
                api.delete(&name, &DeleteParams::default()).await?;
                Ok(())
            }
            Act::Prometheus(_) | Act::Hooks(_) => bail!("the bed cannot do this beside other tests: {act:?}"),
        }
    }

    /// An object by the story's words for it.
    async fn object(&self, text: &str) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let key = object_key(text).map_err(|why| anyhow!(why))?;
        let gvk = GroupVersionKind::gvk(&key.gvk.group, &key.gvk.version, &key.gvk.kind);
        let (resource, _) = pinned_kind(&self.bed.admin(), &gvk).await?;
        Ok((self.bed.api(&resource, Some(&self.shape.namespace)), key.name))
    }

    async fn patch(&self, object: &str, patch: &Value) -> anyhow::Result<()> {
        let (api, name) = self.object(object).await?;
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until the end is as expected, and looks whether it stays so.
    async fn check(&self, story: &Story) -> anyhow::Result<()> {
        let expected = async || {
            let wrong = self.end(&story.expect).await?.check(&story.expect);
            anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        };
        eventually("the end", END, expected).await?;
        tokio::time::sleep(REST).await;
        expected().await.context("what was as expected has changed")?;
        let excused = story.bed.as_ref().and_then(|bed| bed.lost.as_ref());
        for (app, load) in &self.users {
            let seen = load.seen();
            println!("     {}: {app}: {} requests, {:?}, {} lost", self.name, seen.total, seen.versions, seen.lost);
            if excused.is_none() {
                seen.none_lost()?;
                self.served(app, load, seen, &story.expect).await?;
            }
        }
        Ok(())
    }

    /// Users get the version that is expected, and no other.
    async fn served(&self, app: &str, load: &Load, before: Seen, expect: &Expect) -> anyhow::Result<()> {
        let deployment = |suffix: &str| expect.serving.get(&format!("{app}{suffix}"));
        let Some(version) = deployment("-primary").or_else(|| deployment("")) else { return Ok(()) };
        tokio::time::sleep(WINDOW).await;
        let after = load.seen();
        let (all, own) = (after.total - before.total, after.by(version) - before.by(version));
        anyhow::ensure!(own > 0 && own == all, "{own} of {all} answers are of {version}: {:?}", after.versions);
        after.none_lost()
    }

    async fn end(&self, expect: &Expect) -> anyhow::Result<End> {
        self.people.fetch().await?;
        let subjects = self.people.subjects()?;
        let mut phases = BTreeMap::new();
        for canary in expect.phases.keys() {
            phases.insert(canary.clone(), self.phase(app_of(canary)?).await?);
        }
        let mut serving = BTreeMap::new();
        for deployment in expect.serving.keys() {
            if let Some(version) = self.version(app_of(deployment)?).await? {
                serving.insert(deployment.clone(), version);
            }
        }
        let mut posted = Vec::new();
        for sha in subjects.keys() {
            posted.extend(self.posted(sha).await?);
        }
        let ledger = self.ledger().await?;
        let restored = expect.tree_of.as_ref().map(|subject| self.people.commit_of(subject)).transpose()?;
        let remote = self.people.remote()?;
        let log = remote.log("main").into_iter().map(|(sha, message)| (sha, self.shape.back(&message)));
        let head = remote.head("main").context("no main")?;
        let branches = remote.branches();
        anyhow::ensure!(branches.contains(&format!("serin/status/{CLUSTER}")), "no status branch among {branches:?}");
        Ok(End {
            phases,
            serving,
            log: log.collect(),
            subjects,
            head: self.shape.files_back(remote.files_at(&head)),
            restored: restored.map(|sha| self.shape.files_back(remote.files_at(&sha))),
            branches: branches.iter().map(|branch| self.shape.back(branch)).collect(),
            posted,
            ledger,
        })
    }

    async fn phase(&self, name: &str) -> anyhow::Result<String> {
        let api: Api<Canary> = Api::namespaced(self.bed.admin(), &self.shape.namespace);
        let Some(canary) = api.get_opt(name).await? else { return Ok("gone".to_owned()) };
        let status = serde_json::to_value(canary.status)?;
        Ok(status["phase"].as_str().unwrap_or_default().to_owned())
    }

    async fn version(&self, name: &str) -> anyhow::Result<Option<String>> {
        let api: Api<Deployment> = Api::namespaced(self.bed.admin(), &self.shape.namespace);
        let spec = api.get_opt(name).await?.and_then(|deployment| deployment.spec);
        let image = spec.and_then(|spec| spec.template.spec?.containers.pop()?.image);
        Ok(image.and_then(|image| image.rsplit(':').next().map(str::to_owned)))
    }

    /// The statuses of a commit, oldest first.
    async fn posted(&self, sha: &Sha) -> anyhow::Result<Vec<Posted>> {
        let mut history = self.repository.history(&sha.0).await?;
        history.reverse();
        let posted = history.into_iter().map(|(context, (state, words))| {
            let state: CommitState = serde_json::from_value(state.into())?;
            Ok(Posted::new(sha.clone(), &self.shape.back(&context), CLUSTER, state, self.shape.back(&words)))
        });
        posted.collect()
    }

    async fn ledger(&self) -> anyhow::Result<Ledger> {
        let api: Api<ConfigMap> = Api::namespaced(self.bed.admin(), &self.serin.namespace);
        let data = api.get("serin-apps").await.context("reading the ledger")?.data.unwrap_or_default();
        let text = data.get("ledger.json").context("a ledger without its text")?;
        Ok(Ledger::from_json(&self.shape.back(text))?.0)
    }
}

/// The applications that have users, with their requests a second.
fn users(story: &Story) -> Vec<(String, f64)> {
    if story.load.is_empty() {
        return vec![("shop/web".to_owned(), RATE)];
    }
    story.load.iter().map(|(app, rate)| (app.clone(), *rate)).collect()
}

/// The name in `NAMESPACE/NAME`.
fn app_of(text: &str) -> anyhow::Result<&str> {
    text.split_once('/').map(|(_, name)| name).with_context(|| format!("{text}: expected NAMESPACE/NAME"))
}
