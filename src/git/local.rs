//! Pushing to a repository of this machine.
//!
//! libgit2's local push compares no old value and runs no hooks. So the objects are written into the other repository,
//! and its ref is moved by libgit2's compare-and-swap, under the same lock file that git takes. We run no hooks here
//! either; a repository whose `pre-receive` or `update` hook would have had a say is refused, since passing over a
//! protection in silence is worse than not pushing. `post-receive` and `post-update` do not run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Odb, Oid, Repository, RepositoryOpenFlags, Tree};

use super::mirror;
use super::push::{Expected, descends};
use crate::ports::PushOutcome;

/// Writes what is missing and moves the ref.
pub(super) fn push(
    from: &Repository,
    path: &Path,
    reference: &str,
    new: Oid,
    expected: Expected,
    force: bool,
) -> Result<PushOutcome, git2::Error> {
    let none: [&Path; 0] = [];
    let to = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none)?;
    if let Some(why) = obstacle(&to, reference) {
        return Ok(PushOutcome::Refused(why));
    }
    let current = target(&to, reference)?;
    if current == Some(new) {
        return Ok(PushOutcome::Pushed(mirror::sha(new)));
    }
    if !expected.allows(current) {
        return Ok(PushOutcome::Moved);
    }
    if current.is_some_and(|old| !force && !descends(from, new, old)) {
        return Ok(PushOutcome::Moved);
    }
    copy(from, &to, new)?;
    let message = "push by serin";
    let moved = match current {
        Some(old) => to.reference_matching(reference, new, true, old, message),
        None => to.reference(reference, new, false, message),
    };
    match moved {
        Ok(_) => Ok(PushOutcome::Pushed(mirror::sha(new))),
        Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists | ErrorCode::Locked) => {
            // A name that is taken by a folder, or the other way round, reads as "exists" too, and never clears up.
            if target(&to, reference)? == current && error.code() == ErrorCode::Exists {
                return Ok(PushOutcome::Refused(error.message().to_owned()));
            }
            Ok(PushOutcome::Moved)
        }
        Err(error) => Err(error),
    }
}

fn target(repository: &Repository, reference: &str) -> Result<Option<Oid>, git2::Error> {
    match repository.refname_to_id(reference) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What forbids the push, as git would see it.
fn obstacle(repository: &Repository, reference: &str) -> Option<String> {
    if !repository.is_bare() && repository.find_reference("HEAD").ok()?.symbolic_target().ok()? == Some(reference) {
        return Some(format!("{reference} is checked out there; push to a bare repository"));
    }
    let configured = repository.config().ok().and_then(|config| config.get_path("core.hooksPath").ok());
    let folder: PathBuf =
        configured.map_or_else(|| repository.path().join("hooks"), |path| repository.path().join(path));
    let hook = ["pre-receive", "update"].into_iter().find(|name| is_executable(&folder.join(name)))?;
    Some(format!("the repository has the hook {hook}, and hooks do not run on a file address: use ssh or https"))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Writes a commit and all that it needs and the other side lacks, needed objects first.
fn copy(from: &Repository, to: &Repository, commit: Oid) -> Result<(), git2::Error> {
    let (source, target) = (from.odb()?, to.odb()?);
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = vec![commit];
    while let Some(id) = next.pop() {
        if !seen.insert(id) || target.exists(id) {
            continue;
        }
        order.push(id);
        next.extend(from.find_commit(id)?.parent_ids());
    }
    for id in order.into_iter().rev() {
        copy_tree(from, &source, &target, &from.find_commit(id)?.tree()?)?;
        copy_object(&source, &target, id)?;
    }
    Ok(())
}

fn copy_tree(from: &Repository, source: &Odb<'_>, target: &Odb<'_>, tree: &Tree<'_>) -> Result<(), git2::Error> {
    if target.exists(tree.id()) {
        return Ok(());
    }
    for entry in tree {
        match entry.kind() {
            Some(git2::ObjectType::Tree) => copy_tree(from, source, target, &from.find_tree(entry.id())?)?,
            Some(git2::ObjectType::Blob) => copy_object(source, target, entry.id())?,
            // A submodule's commit belongs to another repository.
            _ => {}
        }
    }
    copy_object(source, target, tree.id())
}

fn copy_object(source: &Odb<'_>, target: &Odb<'_>, id: Oid) -> Result<(), git2::Error> {
    if target.exists(id) {
        return Ok(());
    }
    let object = source.read(id)?;
    target.write(object.kind(), object.data()).map(drop)
}
