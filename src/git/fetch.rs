//! Fetching: exactly the wanted refs, over one connection.
//!
//! libgit2 speaks protocol version 0, in which the server lists all its refs first; when the wanted ones point at
//! commits that the mirror has already, the connection ends there and nothing is downloaded. Over HTTP a shorter
//! question goes before, once a fetch has worked (see `transport::poll`).

use std::collections::BTreeMap;
use std::path::Path;

use git2::{AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, Repository};

use super::location::Location;
use super::mirror::{self, Mirror, Polls};
use super::transport::Registered;
use crate::domain::Sha;
use crate::ports::GitError;

impl Mirror {
    /// See [`crate::ports::GitRemote::fetch`].
    pub(super) fn fetch(&mut self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        for reference in references {
            mirror::check_reference(reference)?;
        }
        if self.is_suspect() || self.is_crowded() {
            self.forget();
        }
        match self.fetch_once(references) {
            // A network failure says nothing about the mirror; anything else may come from damage, and a damaged
            // mirror must not stop the daemon for good.
            Err((error, local)) if !local || self.is_sound() => Err(error),
            Err(_) => {
                self.forget();
                self.fetch_once(references).map_err(|(error, _)| error)
            }
            Ok(found) => Ok(found),
        }
    }

    fn fetch_once(&mut self, references: &[String]) -> Result<Vec<Option<Sha>>, (GitError, bool)> {
        let repository = self.repository().map_err(|error| (error, false))?;
        let unchanged = match &self.place.location {
            Location::File(path) => unchanged_here(&repository, path, references),
            Location::Http { .. } | Location::Ssh { .. } => self.unchanged(&repository, references),
        };
        if let Some(found) = unchanged {
            return Ok(found);
        }
        self.check_local().map_err(|error| (error, false))?;
        let endpoint = self.place.read.as_ref();
        let fail = |error: &git2::Error| {
            let network = matches!(error.class(), ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssh);
            (self.error("fetching from", endpoint, error), !network)
        };
        let found =
            transfer(&repository, &self.address(endpoint), endpoint, references).map_err(|error| fail(&error))?;
        // Removals first: nothing keeps a name that another one needs.
        for (reference, target) in references.iter().zip(&found) {
            keep(&repository, &mirror::mirrored(reference), *target).map_err(|error| fail(&error))?;
        }
        let commits = commits(&repository, &found).map_err(|error| fail(&error))?;
        // It worked the long way: from now on, ask the short way first, unless that has just failed.
        self.polls = match self.polls {
            Polls::Trying => Polls::Never,
            Polls::NotYet | Polls::Works => Polls::Works,
            Polls::Never => Polls::Never,
        };
        Ok(commits)
    }

    /// Refuses a local repository that is cut off; the transports see to the others.
    fn check_local(&self) -> Result<(), GitError> {
        let Location::File(path) = &self.place.location else { return Ok(()) };
        match Repository::open(path) {
            Ok(repository) if repository.is_shallow() => {
                Err(GitError::Unsupported(format!("fetching from {}: {}", self.place.shown, mirror::SHALLOW)))
            }
            // What else is wrong with it, libgit2 says.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Asks the short way; `Some` when there is nothing to download.
    fn unchanged(&mut self, repository: &Repository, references: &[String]) -> Option<Vec<Option<Sha>>> {
        if !matches!(self.polls, Polls::Works | Polls::Trying) {
            return None;
        }
        let endpoint = &self.place.read.as_ref()?.endpoint;
        self.polls = Polls::Trying;
        let listed = endpoint.poll(references)?;
        self.polls = Polls::Works;
        let found: Vec<Option<Oid>> = references.iter().map(|reference| listed.get(reference).copied()).collect();
        kept(repository, references, &found)
    }

    /// The address of an endpoint for libgit2; a local repository goes by its path.
    pub(super) fn address(&self, endpoint: Option<&Registered>) -> String {
        match (endpoint, &self.place.location) {
            (Some(registered), _) => registered.address(),
            (None, Location::File(path)) => path.display().to_string(),
            (None, _) => String::new(),
        }
    }
}

/// The commits of refs that point at what the mirror has already; `None` when something must be downloaded.
fn kept(repository: &Repository, references: &[String], found: &[Option<Oid>]) -> Option<Vec<Option<Sha>>> {
    if found.iter().flatten().any(|id| !mirror::has_trees(repository, *id)) {
        return None;
    }
    for (reference, target) in references.iter().zip(found) {
        keep(repository, &mirror::mirrored(reference), *target).ok()?;
    }
    commits(repository, found).ok()
}

/// Reads the refs of a repository of this machine, which spares the listing of all its refs; `Some` when there is
/// nothing to take over.
fn unchanged_here(repository: &Repository, path: &Path, references: &[String]) -> Option<Vec<Option<Sha>>> {
    let remote = Repository::open(path).ok().filter(|remote| !remote.is_shallow())?;
    let target = |reference: &String| match remote.refname_to_id(reference) {
        Ok(id) => Some(Some(id)),
        Err(error) if error.code() == ErrorCode::NotFound => Some(None),
        // What is wrong, the long way says.
        Err(_) => None,
    };
    let found: Vec<Option<Oid>> = references.iter().map(target).collect::<Option<_>>()?;
    kept(repository, references, &found)
}

/// Lists the remote's refs, downloads what is missing, and returns where the wanted ones point.
fn transfer(
    repository: &Repository,
    address: &str,
    endpoint: Option<&Registered>,
    references: &[String],
) -> Result<Vec<Option<Oid>>, git2::Error> {
    if let Some(registered) = endpoint {
        registered.endpoint.begin();
    }
    let mut remote = repository.remote_anonymous(address)?;
    let mut connection = remote.connect_auth(Direction::Fetch, None, None)?;
    let listed: BTreeMap<String, Oid> = connection
        .list()?
        .iter()
        .filter(|head| !head.oid().is_zero())
        .map(|head| (head.name().to_owned(), head.oid()))
        .collect();
    let found: Vec<Option<Oid>> = references.iter().map(|reference| listed.get(reference).copied()).collect();
    let specs: Vec<String> = references
        .iter()
        .zip(&found)
        .filter(|(_, target)| target.is_some_and(|id| !mirror::has_trees(repository, id)))
        .map(|(reference, _)| format!("+{reference}:{reference}"))
        .collect();
    if !specs.is_empty() {
        let mut options = FetchOptions::new();
        options.download_tags(AutotagOption::None);
        connection.remote().download(&specs, Some(&mut options))?;
    }
    Ok(found)
}

/// Points a ref of the mirror at an object, or removes it.
fn keep(repository: &Repository, name: &str, target: Option<Oid>) -> Result<(), git2::Error> {
    match target {
        // Most fetches find nothing new: they write nothing.
        Some(id) if repository.refname_to_id(name).is_ok_and(|kept| kept == id) => Ok(()),
        Some(id) => repository.reference(name, id, true, "fetch").map(drop),
        None => match repository.find_reference(name) {
            Ok(mut reference) => reference.delete(),
            Err(_) => Ok(()),
        },
    }
}

fn commits(repository: &Repository, found: &[Option<Oid>]) -> Result<Vec<Option<Sha>>, git2::Error> {
    found.iter().map(|target| target.map(|id| peeled(repository, id)).transpose()).collect()
}

/// The commit that an object leads to: itself, or the target of a tag.
fn peeled(repository: &Repository, id: Oid) -> Result<Sha, git2::Error> {
    let commit = repository.find_object(id, None)?.peel_to_commit()?;
    commit.tree()?;
    Ok(mirror::sha(commit.id()))
}
