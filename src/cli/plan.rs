//! `serin plan`: what applying a source would change, and which canaries that would start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kube::core::ApiResource;

use super::args::PlanArgs;
use super::checkout::{Checkout, Folder};
use super::clock::SystemClock;
use super::config::{Config, Source};
use super::kube::Direct;
use super::memory::Memory;
use super::render::canary;
use super::{compose, output};
use crate::api::CanaryView;
use crate::controller::rendered;
use crate::domain::{CanaryKey, Gvk, Object, ObjectKey, Sha, Snapshot, format_duration};
use crate::git;
use crate::manifest::{ManifestSet, Severity};
use crate::plan::{Change, Inventory, Plan, Policy, allows_prune, plan, problems_text, timeline};
use crate::ports::Clock;
use crate::release::own_objects;

/// Exit code when something would change.
const CHANGES: u8 = 3;

/// What is compared with what.
enum Question {
    /// The head of the source's branch with the cluster.
    Head,
    /// A revision of this checkout with the cluster.
    Revision(String),
    /// Two revisions of this checkout.
    Revisions(String, String),
}

impl Question {
    fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        let Some(text) = text else { return Ok(Self::Head) };
        let end = |text: &str| if text.is_empty() { "HEAD".to_owned() } else { text.to_owned() };
        match text.split_once("..") {
            Some((_, to)) if to.starts_with('.') => bail!("`--rev {text}` has three dots: give A..B"),
            Some((from, to)) => Ok(Self::Revisions(end(from), end(to))),
            None => Ok(Self::Revision(end(text))),
        }
    }
}

/// A source before and after, ready to be planned.
struct Sides {
    set: ManifestSet,
    live: BTreeMap<ObjectKey, Arc<Object>>,
    memory: Memory,
    /// The present releases by the canary's name, where there is no ledger to tell.
    before: Option<ManifestSet>,
    revision: Option<Sha>,
    allowed: bool,
}

/// Prints the plan of every source. Exit code 0 when nothing would change, 3 when something would, 1 on errors.
pub(super) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let question = Question::parse(args.rev.as_deref())?;
    let sources: Vec<&Source> =
        config.sources.iter().filter(|source| args.source.as_ref().is_none_or(|name| *name == source.name)).collect();
    if config.sources.is_empty() {
        bail!("{} has no sources: nothing would be applied", args.config.display());
    }
    if sources.is_empty() {
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
        bail!("there is no such source in {}, there is: {}", args.config.display(), names.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let code = runtime.block_on(async {
        let (mut changes, mut errors) = (false, false);
        for source in sources {
            let sides = sides(args, &config, source, &question).await;
            let sides = sides.with_context(|| format!("planning source `{}`", source.name))?;
            let outcome = tell(source, &sides);
            changes |= outcome.0;
            errors |= outcome.1;
        }
        anyhow::Ok(if errors {
            1
        } else if changes {
            CHANGES
        } else {
            0
        })
    });
    runtime.shutdown_background();
    Ok(ExitCode::from(code?))
}

async fn sides(args: &PlanArgs, config: &Config, source: &Source, question: &Question) -> anyhow::Result<Sides> {
    let folder = Folder::of(config, source);
    let here = || Checkout::around(Path::new("."));
    let read = |revision: &str| {
        let checkout = here()?;
        git::read_revision(&checkout.root, revision, &folder.prefixes(), git::Limits::default())
            .context("in the checkout around this folder")
    };
    match question {
        Question::Revisions(from, to) => {
            let (before, _) = read(from)?;
            let (after, message) = read(to)?;
            let allowed = allows_prune(&message, &source.name);
            let set = folder.render(&after, None);
            Ok(Sides { allowed, ..between(folder.render(&before, None), set, after.revision) })
        }
        Question::Revision(revision) => {
            let (snapshot, message) = read(revision)?;
            let allowed = allows_prune(&message, &source.name);
            against_cluster(args, config, &folder, snapshot, allowed).await
        }
        Question::Head => {
            let (snapshot, allowed) = head(source, &folder).await?;
            against_cluster(args, config, &folder, snapshot, allowed).await
        }
    }
}

/// The tree of the source's branch, and whether its last commit allows a mass deletion.
async fn head(source: &Source, folder: &Folder) -> anyhow::Result<(Snapshot, bool)> {
    // The daemon's own mirror has one owner.
    let cache =
        tempfile::Builder::new().prefix("serin-plan-").tempdir().context("making a folder for the repository")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let remote = compose::Remotes::default().open(source, cache.path(), &clock)?;
    let branch = format!("refs/heads/{}", source.branch);
    let head = remote.fetch(&[branch]).await?.into_iter().next().flatten();
    let head = head.with_context(|| format!("the branch {} does not exist", source.branch))?;
    let snapshot = remote.snapshot(&head, &folder.prefixes()).await?;
    let commit = remote.history(None, &head, 1).await?.unwrap_or_default();
    let allowed = commit.first().is_some_and(|commit| allows_prune(&commit.message, &source.name));
    Ok((snapshot, allowed))
}

/// Two renderings, the earlier one in the place of the cluster.
fn between(before: ManifestSet, after: ManifestSet, revision: Option<Sha>) -> Sides {
    let mut live = BTreeMap::new();
    let was = plan(&before, &|_| None, &Inventory::default(), &[], &Policy::default(), None);
    for change in was.waves.into_iter().flatten() {
        if let Change::Apply { object, .. } = change {
            live.insert(object.key(), Arc::new(object));
        }
    }
    let inventory = Inventory { entries: live.keys().cloned().collect(), ..Inventory::default() };
    let memory = Memory { inventory, ..Memory::default() };
    Sides { set: after, live, memory, before: Some(before), revision, allowed: false }
}

async fn against_cluster(
    args: &PlanArgs,
    config: &Config,
    folder: &Folder,
    snapshot: Snapshot,
    allowed: bool,
) -> anyhow::Result<Sides> {
    let direct = Direct::connect(&args.cluster).await?;
    let memory = Memory::of(&direct, &config.leader_election.namespace, &folder.source).await?.unwrap_or_default();
    let mut kinds = Kinds { direct: &direct, known: BTreeMap::new() };
    let first = folder.render(&snapshot, None);
    for gvk in first.manifests.iter().map(|manifest| manifest.object.gvk()).collect::<BTreeSet<Gvk>>() {
        kinds.find(&gvk).await?;
    }
    let scopes: BTreeMap<Gvk, bool> =
        kinds.known.iter().filter_map(|(gvk, found)| Some((gvk.clone(), found.as_ref()?.1))).collect();
    let set = folder.render(&snapshot, Some(&|gvk: &Gvk| scopes.get(gvk).copied()));
    let mut live = BTreeMap::new();
    for key in set.manifests.iter().map(|manifest| manifest.object.key()).chain(memory.inventory.entries.clone()) {
        if let Some((resource, _)) = kinds.find(&key.gvk).await?
            && let Some(object) = direct.fetch(&key, &resource).await?
        {
            live.insert(key, Arc::new(object));
        }
    }
    Ok(Sides { set, live, memory, before: None, revision: snapshot.revision, allowed })
}

/// The cluster's types, each asked for once.
struct Kinds<'a> {
    direct: &'a Direct,
    known: BTreeMap<Gvk, Option<(ApiResource, bool)>>,
}

impl Kinds<'_> {
    async fn find(&mut self, gvk: &Gvk) -> anyhow::Result<Option<(ApiResource, bool)>> {
        if let Some(known) = self.known.get(gvk) {
            return Ok(known.clone());
        }
        let found = self.direct.kind(gvk).await?;
        self.known.insert(gvk.clone(), found.clone());
        Ok(found)
    }
}

/// Prints one source. Whether anything would change, and whether anything is wrong.
fn tell(source: &Source, sides: &Sides) -> (bool, bool) {
    let Sides { set, live, memory, revision, .. } = sides;
    let canaries: Vec<CanaryView> = set
        .manifests
        .iter()
        .filter_map(|manifest| {
            let object = live.get(&manifest.object.key()).map_or(manifest.object.as_ref(), |live| live.as_ref());
            canary(&manifest.object).and_then(|_| canary(object))
        })
        .collect();
    let confirmed = revision
        .as_ref()
        .zip(memory.confirmed.as_ref())
        .is_some_and(|(sha, said)| said.len() >= 7 && sha.0.starts_with(said.as_str()));
    let policy = Policy {
        source: &source.name,
        prune: source.prune,
        prune_confirmed: sides.allowed || confirmed,
        suspended: source.suspend,
        claims: None,
    };
    let lookup = |key: &ObjectKey| live.get(key).cloned();
    let plan = plan(set, &lookup, &memory.inventory, &canaries, &policy, revision.as_ref());
    let at = revision.as_ref().map_or_else(String::new, |sha| format!(" at {}", sha.short()));
    output::line(&format!("source {}{at}", source.name));
    output::line(text(&plan, set, sides).trim_end());
    let problems: Vec<_> = set.problems.iter().chain(&plan.problems).cloned().collect();
    if !problems.is_empty() {
        output::complain(problems_text(&problems).trim_end());
    }
    (changes(&plan), problems.iter().any(|problem| problem.severity == Severity::Error))
}

/// Whether anything would change, or waits for a person to let it change.
fn changes(plan: &Plan) -> bool {
    plan.changes_anything() || plan.guard.is_some()
}

/// The plan and the canaries that it moves.
fn text(plan: &Plan, set: &ManifestSet, sides: &Sides) -> String {
    let mut text = plan.to_string();
    if !changes(plan) {
        text.push_str("no changes\n");
    }
    let after = rendered(set);
    let before = sides.before.as_ref().map(rendered);
    for view in set.manifests.iter().filter_map(|manifest| canary(&manifest.object)) {
        let Some(own) = own_objects(&after, &view.key) else { continue };
        let digest = own.digest();
        let record = sides.memory.ledger.canaries.get(&view.key).cloned().unwrap_or_default();
        let known = match &before {
            Some(before) => own_objects(before, &view.key).map(|own| own.digest()),
            None => record.applied.as_ref().map(|applied| applied.digest.clone()),
        };
        let condemned = sides.memory.ledger.condemned(&view.key, &digest, None);
        match known {
            None => {
                writeln!(text, "canary {} would be initialised: the primary is made, nothing is analysed", view.key)
                    .ok()
            }
            Some(known) if known == digest => None,
            Some(_) if record.promoted.as_ref().is_some_and(|promoted| promoted.is(&digest)) => {
                writeln!(text, "canary {} would go back to what is promoted, without a run", view.key).ok()
            }
            Some(_) => match condemned {
                Some(condemned) => refused(&mut text, &view.key, &condemned.why),
                None => would_start(&mut text, &view),
            },
        };
    }
    text
}

fn refused(text: &mut String, key: &CanaryKey, why: &str) -> Option<()> {
    writeln!(text, "canary {key} would not start: this version is condemned ({why}); `serin retry {key}` lifts that")
        .ok()
}

fn would_start(text: &mut String, view: &CanaryView) -> Option<()> {
    writeln!(text, "canary {} would start:", view.key).ok();
    for (after, what) in timeline(&view.spec) {
        writeln!(text, "  {:>8}  {what}", format!("+{}", format_duration(after))).ok();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_one_or_two() {
        let parse = |text| Question::parse(Some(text));
        assert!(matches!(Question::parse(None), Ok(Question::Head)));
        assert!(matches!(parse("main"), Ok(Question::Revision(rev)) if rev == "main"));
        assert!(matches!(parse("a..b"), Ok(Question::Revisions(a, b)) if a == "a" && b == "b"));
        assert!(matches!(parse("a.."), Ok(Question::Revisions(a, b)) if a == "a" && b == "HEAD"));
        assert!(parse("a...b").is_err());
    }
}
