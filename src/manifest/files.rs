//! Which files of a tree are manifests, templates, partials, or none of these.

use globset::{GlobBuilder, GlobMatcher};

use crate::domain::Snapshot;

use super::decode::{Refusal, START};
use super::{Input, Problem, Severity};

/// The files of a source by what they are.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Manifests and templates, in order.
    pub(super) manifests: Vec<String>,
    /// Partials: name and file.
    pub(super) partials: Vec<(String, String)>,
    pub(super) problems: Vec<Problem>,
}

/// The source's folder without slashes around it; empty for the whole repository.
pub(super) fn folder(path: &str) -> &str {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path == "." { "" } else { path }
}

fn under<'a>(file: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() { Some(file) } else { file.strip_prefix(folder)?.strip_prefix('/') }
}

/// Sorts the files of a source.
pub(super) fn classify(input: &Input<'_>) -> Files {
    let folder = folder(input.path);
    let values = input.values.map(|values| values.trim_start_matches("./").trim_start_matches('/'));
    let mut files = Files::default();
    let ignore = Ignore::read(input.snapshot, folder, &mut files.problems);
    let mut seen = false;
    for file in input.snapshot.files.keys() {
        let Some(relative) = under(file, folder) else { continue };
        seen = true;
        if hidden(relative) || Some(file.as_str()) == values || ignore.matches(relative) {
            continue;
        }
        if let Some(partial) = relative.strip_prefix("partials/") {
            if let Some(name) = partial.strip_suffix(".hbs") {
                let name = [".yaml", ".yml", ".json"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                files.partials.push((name.to_owned(), file.clone()));
            }
            continue;
        }
        if !is_manifest(relative) {
            continue;
        }
        match alternative(relative) {
            Some((message, help)) => files.problems.push(warning(file, message, help)),
            None => files.manifests.push(file.clone()),
        }
    }
    if !seen && !folder.is_empty() {
        let refusal = Refusal::new(START, "the source's path holds no file");
        files.problems.push(refusal.help("check `path` of the source in serin.yaml").problem(folder));
    }
    refused(input.snapshot, folder, &ignore, &mut files.problems);
    if files.manifests.len() > input.limits.files {
        let message = format!("the source has {} manifest files", files.manifests.len());
        let refusal = Refusal::new(START, message).help(format!("the limit is {}", input.limits.files));
        files.problems.push(refusal.problem(if folder.is_empty() { "." } else { folder }));
        files.manifests.truncate(input.limits.files);
    }
    files
}

fn refused(snapshot: &Snapshot, folder: &str, ignore: &Ignore, problems: &mut Vec<Problem>) {
    for (file, reason) in &snapshot.refused {
        let Some(relative) = under(file, folder) else { continue };
        if hidden(relative) || ignore.matches(relative) {
            continue;
        }
        // A link or a submodule may stand for a folder of manifests; a large picture does not.
        let name = relative.rsplit('/').next().unwrap_or(relative);
        if is_manifest(relative) || !name.contains('.') {
            let refusal = Refusal::new(START, format!("not read: {reason}"));
            let help = if reason.contains("bytes") { "split it" } else { "replace it by a regular file" };
            problems.push(refusal.help(format!("{help}, or list it in .serinignore")).problem(file));
        } else {
            problems.push(warning(file, &format!("not read: {reason}"), "it is no manifest by its name"));
        }
    }
}

fn hidden(relative: &str) -> bool {
    relative.split('/').any(|part| part.starts_with('.'))
}

fn is_manifest(relative: &str) -> bool {
    [".yaml", ".yml", ".json", ".hbs"].iter().any(|end| relative.ends_with(end))
}

/// Files of other tools, and what to do instead.
fn alternative(relative: &str) -> Option<(&'static str, &'static str)> {
    let name = relative.rsplit('/').next().unwrap_or(relative);
    match name {
        "kustomization.yaml" | "kustomization.yml" => Some((
            "a kustomization is not applied",
            "every manifest of the folder is read; for variants use .hbs templates with values, or commit the output of `kustomize build`",
        )),
        "Chart.yaml" => Some((
            "a Helm chart is not rendered",
            "commit the output of `helm template`, and list the chart's folder in .serinignore",
        )),
        _ => None,
    }
}

pub(super) fn warning(file: &str, message: &str, help: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 1,
        column: 1,
        severity: Severity::Warning,
        message: message.to_owned(),
        help: Some(help.to_owned()),
    }
}

/// The patterns of `.serinignore`, which are those of `.gitignore`: the last one that matches decides.
#[derive(Debug, Default)]
struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    glob: GlobMatcher,
    folder_only: bool,
    keep: bool,
}

impl Ignore {
    fn read(snapshot: &Snapshot, folder: &str, problems: &mut Vec<Problem>) -> Self {
        let file = if folder.is_empty() { ".serinignore".to_owned() } else { format!("{folder}/.serinignore") };
        let mut rules = Vec::new();
        for (index, line) in snapshot.text(&file).unwrap_or_default().lines().enumerate().take(1_000) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match Rule::parse(line) {
                Ok(rule) => rules.push(rule),
                Err(message) => problems.push(Problem {
                    line: u32::try_from(index + 1).unwrap_or(u32::MAX),
                    ..warning(&file, &message, "see the patterns of .gitignore")
                }),
            }
        }
        Self { rules }
    }

    fn matches(&self, relative: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            if rule.matches(relative) {
                ignored = !rule.keep;
            }
        }
        ignored
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Self, String> {
        let (keep, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix('\\').unwrap_or(line)),
        };
        let folder_only = pattern.ends_with('/');
        let pattern = pattern.trim_end_matches('/');
        let anchored = pattern.contains('/');
        let pattern = pattern.trim_start_matches('/');
        let pattern = if anchored { pattern.to_owned() } else { format!("**/{pattern}") };
        let glob = GlobBuilder::new(&pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| format!("reading the pattern: {error}"))?;
        Ok(Self { glob: glob.compile_matcher(), folder_only, keep })
    }

    /// Whether the rule matches the file or a folder that it is in.
    fn matches(&self, relative: &str) -> bool {
        let folders = relative.match_indices('/').filter_map(|(at, _)| relative.get(..at));
        (!self.folder_only && self.glob.is_match(relative)) || folders.into_iter().any(|f| self.glob.is_match(f))
    }
}
