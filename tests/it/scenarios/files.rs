//! The files of a story's repository, and what a person's commit makes of them.

use std::collections::{BTreeMap, BTreeSet};

use serin::domain::Sha;
use serin::sim::example;
use serin::sim::person::Remote;

use super::story::{Change, Story};

const VALUES: &str = "values/demo.yaml";

/// Text files by path.
pub(crate) type Files = BTreeMap<String, String>;
/// What a commit writes; `None` removes a file.
pub(crate) type Changed = BTreeMap<String, Option<String>>;

/// The first commit: the example repository, changed as the story says.
pub(crate) fn first(story: &Story) -> Result<Files, String> {
    let mut files = example::FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    change(&mut files, &story.first)?;
    Ok(files)
}

/// What a commit writes on top of these files: only what changed.
pub(crate) fn changed(before: &Files, wanted: &Change) -> Result<Changed, String> {
    let mut after = before.clone();
    change(&mut after, wanted)?;
    Ok(between(before, &after))
}

/// What leads from some files to others.
fn between(before: &Files, after: &Files) -> Changed {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    differing.map(|path| (path.clone(), after.get(path).cloned())).collect()
}

/// What takes a commit of `main` back, as `git revert` does where nothing else touched its files.
pub(crate) fn reverting(remote: &Remote, bad: &Sha) -> Result<Changed, String> {
    let log = remote.log("main");
    let index = log.iter().position(|(sha, _)| sha == bad).ok_or("the commit is not on main")?;
    let (parent, _) = log.get(index + 1).ok_or("the first commit cannot be reverted")?;
    Ok(between(&remote.files_at(bad), &remote.files_at(parent)))
}

fn change(files: &mut Files, wanted: &Change) -> Result<(), String> {
    let missing = |path: &str| format!("{path} is no file");
    for (old, new) in &wanted.rename {
        let text = files.remove(old).ok_or_else(|| missing(old))?;
        files.insert(new.clone(), text);
    }
    files.extend(wanted.files.clone());
    for path in &wanted.remove {
        files.remove(path).ok_or_else(|| missing(path))?;
    }
    for (path, edits) in &wanted.edit {
        let text = files.get_mut(path).ok_or_else(|| missing(path))?;
        for (old, new) in edits {
            let count = text.matches(old.as_str()).count();
            if count != 1 {
                return Err(format!("`{old}` stands {count} times in {path}, expected once"));
            }
            *text = text.replace(old.as_str(), new);
        }
    }
    for (path, value) in &wanted.set {
        let text = files.get_mut(VALUES).ok_or_else(|| missing(VALUES))?;
        *text = set(text, path, value)?;
    }
    Ok(())
}

/// Sets a value of a YAML file of two levels, by dotted path; a missing one is added.
fn set(text: &str, path: &str, value: &str) -> Result<String, String> {
    let (part, name) = path.split_once('.').ok_or_else(|| format!("{path}: expected PART.NAME"))?;
    let value = format!("  {name}: {}", serde_json::Value::from(value));
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
    Ok(lines.join("\n") + "\n")
}
