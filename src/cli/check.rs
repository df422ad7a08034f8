//! `serin check`: everything that can be said about manifests without a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::args::{CheckArgs, CheckOutput};
use super::checkout::{Checkout, Folder};
use super::config::{Config, ConfigErrors};
use super::{output, support};
use crate::domain::ObjectKey;
use crate::manifest::{ManifestSet, Problem, Severity};
use crate::plan::{lint, problems_github, problems_json, problems_text};

/// One thing to check: a folder, or one file of it.
struct Job {
    checkout: Checkout,
    folder: Folder,
    /// Traffic provider of canaries that name none, when a configuration tells.
    provider: Option<String>,
    /// Only the problems of this file are wanted.
    only: Option<String>,
}

/// What was found.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    objects: usize,
    /// Folders that were rendered, for people.
    folders: Vec<String>,
    /// Objects of the sources so far, with their places: one object has one source.
    claimed: BTreeMap<ObjectKey, (String, String)>,
    /// A template failed, and nothing said where its values are.
    wants_values: bool,
}

/// Checks folders, or the sources of a configuration. Exit code 1 when an error was found.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut found = Found::default();
    let config = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config,
        Err(errors) => {
            found.problems = configuration(&errors);
            return Ok(tell(args, found));
        }
    };
    for job in jobs(args, config.as_ref())? {
        check(&job, &mut found).with_context(|| format!("checking {}", shown(&job.folder.path)))?;
    }
    found
        .problems
        .sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    found.problems.dedup();
    Ok(tell(args, found))
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

/// The problems of a configuration in the form of those of manifests.
fn configuration(errors: &ConfigErrors) -> Vec<Problem> {
    let number = |place: u64| u32::try_from(place).unwrap_or(u32::MAX);
    let problem = |problem: &super::config::Problem| Problem {
        file: problem.file.clone(),
        line: problem.place.map_or(1, |(line, _)| number(line)),
        column: problem.place.map_or(1, |(_, column)| number(column)),
        severity: Severity::Error,
        message: problem.message.clone(),
        help: None,
    };
    errors.problems.iter().map(problem).collect()
}

fn jobs(args: &CheckArgs, config: Option<&Config>) -> anyhow::Result<Vec<Job>> {
    let Some(config) = config else {
        let here = [PathBuf::from(".")];
        let paths = if args.paths.is_empty() { &here[..] } else { &args.paths };
        return paths.iter().map(|path| job(path, args.values.as_deref(), None)).collect();
    };
    if !args.paths.is_empty() {
        return args.paths.iter().map(|path| job(path, args.values.as_deref(), Some(config))).collect();
    }
    let mut jobs = Vec::new();
    for source in &config.sources {
        let checkout = Checkout::around(Path::new("."))?;
        let mut folder = Folder::of(config, source);
        if checkout.root.join(&folder.path).is_dir() {
            folder.values = values(&checkout, args.values.as_deref())?.or(folder.values);
            jobs.push(Job { checkout, folder, provider: Some(config.provider.clone()), only: None });
        } else {
            let path = shown(&folder.path);
            output::complain(&format!(
                "source `{}` is not checked: there is no folder {path} in this checkout",
                source.name
            ));
        }
    }
    if jobs.is_empty() && !config.sources.is_empty() {
        bail!("no source has its `path` in this checkout: run this in a checkout of the source's repository");
    }
    Ok(jobs)
}

/// A folder or file that was named, with the settings of the source that holds it.
pub(super) fn folder_of(
    checkout: &Checkout,
    path: &Path,
    given: Option<&str>,
    config: Option<&Config>,
) -> anyhow::Result<(Folder, Option<String>)> {
    let relative = checkout.relative(path)?;
    let only = path.is_file().then(|| relative.clone());
    let sources =
        config.into_iter().flat_map(|config| config.sources.iter().map(move |source| Folder::of(config, source)));
    // Of two sources, one within the other, the inner one is meant.
    let source = sources.filter(|folder| folder.holds(&relative)).max_by_key(|folder| folder.path.len());
    let mut folder = match source {
        Some(source) if only.is_some() => source,
        Some(source) => Folder { path: relative, ..source },
        None => {
            let parent = relative.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
            Folder { path: if only.is_some() { parent } else { relative }, ..Folder::default() }
        }
    };
    folder.values = values(checkout, given)?.or(folder.values);
    Ok((folder, only))
}

fn job(path: &Path, values: Option<&str>, config: Option<&Config>) -> anyhow::Result<Job> {
    let checkout = Checkout::around(path)?;
    let (folder, only) = folder_of(&checkout, path, values, config)?;
    let provider = config.map(|config| config.provider.clone());
    Ok(Job { checkout, folder, provider, only })
}

/// The values file as the tree names it: given from here, or from the root.
fn values(checkout: &Checkout, given: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(given) = given else { return Ok(None) };
    if Path::new(given).is_file() {
        return checkout.relative(Path::new(given)).map(Some);
    }
    if checkout.root.join(given).is_file() {
        return Ok(Some(given.to_owned()));
    }
    bail!("there is no values file {given}, neither here nor in {}", checkout.root.display())
}

fn check(job: &Job, found: &mut Found) -> anyhow::Result<()> {
    let snapshot = job.checkout.snapshot(&job.folder.prefixes())?;
    let set = job.folder.render(&snapshot, None);
    let mut problems = set.problems.clone();
    problems.extend(lint(&set, &[]));
    problems.extend(support::check(&set, job.provider.as_deref()));
    problems.extend(claims(&job.folder, &set, &mut found.claimed));
    if let Some(only) = &job.only {
        problems.retain(|problem| problem.file == *only);
    }
    let failed = |problem: &Problem| problem.severity == Severity::Error && problem.file.ends_with(".hbs");
    found.wants_values |= job.folder.values.is_none() && problems.iter().any(failed);
    found.problems.extend(problems);
    found.objects += match &job.only {
        Some(only) => set.manifests.iter().filter(|manifest| manifest.file == *only).count(),
        None => set.manifests.len(),
    };
    found.folders.push(shown(job.only.as_ref().unwrap_or(&job.folder.path)).to_owned());
    Ok(())
}

/// Objects that an earlier source holds too.
fn claims(folder: &Folder, set: &ManifestSet, claimed: &mut BTreeMap<ObjectKey, (String, String)>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if folder.source.is_empty() {
        return problems;
    }
    for manifest in &set.manifests {
        let mut key = manifest.object.key();
        // An object is the same in every version.
        key.gvk.version.clear();
        let place = format!("{}:{}", manifest.file, manifest.line);
        let (source, first) = claimed.entry(key).or_insert_with(|| (folder.source.clone(), place.clone()));
        if *source != folder.source {
            problems.push(Problem {
                file: manifest.file.clone(),
                line: manifest.line,
                column: 1,
                severity: Severity::Error,
                message: format!("{} belongs to source {source} already, by {first}", manifest.object.key()),
                help: Some("an object has one source: remove it here or there".to_owned()),
            });
        }
    }
    problems
}

fn tell(args: &CheckArgs, found: Found) -> ExitCode {
    let text = match args.output {
        CheckOutput::Text => problems_text(&found.problems),
        CheckOutput::Json => problems_json(&found.problems),
        CheckOutput::Github => problems_github(&found.problems),
    };
    if args.output == CheckOutput::Text && !found.folders.is_empty() {
        let objects = if found.objects == 1 { "1 object".to_owned() } else { format!("{} objects", found.objects) };
        output::line(&format!("{text}{objects} in {}", found.folders.join(", ")));
    } else if !text.is_empty() {
        output::line(text.trim_end());
    }
    if found.wants_values {
        output::complain(
            "templates were rendered without values: name the values file by --values, or by -c serin.yaml",
        );
    }
    let failed = found.problems.iter().any(|problem| problem.severity == Severity::Error);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
