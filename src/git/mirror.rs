//! The bare mirror of one repository, on its owner thread.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use git2::{ErrorClass, ErrorCode, Oid, Repository, RepositoryInitOptions};

use super::location::Location;
use super::options::Limits;
use super::transport::{Failure, Registered};
use crate::domain::{Sha, sha256_hex};
use crate::ports::GitError;

/// Why a shallow repository is refused.
pub(super) const SHALLOW: &str = "the repository is a shallow clone, whose history is cut off: use a full one";

/// Two files a pack. git tidies up at 50 packs; a fresh copy costs more than that, so it is made later.
const MAX_PACK_FILES: usize = 2 * 400;

/// git tidies up at 6,700 loose objects.
const MAX_LOOSE: usize = 20_000;

/// What the owner thread is started with.
pub(super) struct Place {
    /// Where the repository is.
    pub(super) location: Location,
    /// Its address without credentials, for errors.
    pub(super) shown: String,
    /// Endpoint to read from; `None` for a local repository.
    pub(super) read: Option<Registered>,
    /// Endpoint to push to, where it differs.
    pub(super) write: Option<Registered>,
    /// The mirror's folder.
    pub(super) path: PathBuf,
    /// Limits.
    pub(super) limits: Limits,
}

/// The mirror, opened at the first use.
pub(super) struct Mirror {
    /// Addresses and limits.
    pub(super) place: Place,
    repository: Option<Rc<Repository>>,
    /// An object that must be there was missing or unreadable: the mirror is checked before the next fetch.
    suspect: bool,
    /// Whether the short way of asking for refs is taken.
    pub(super) polls: Polls,
}

/// What is known of a server's answer to the short poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polls {
    /// Nothing was fetched yet.
    NotYet,
    /// It may be asked.
    Works,
    /// It was asked and did not answer: when the long way works now, the server does not know the short one.
    Trying,
    /// It does not know it.
    Never,
}

impl Mirror {
    /// A mirror that is not opened yet.
    pub(super) fn new(place: Place) -> Self {
        Self { place, repository: None, suspect: false, polls: Polls::NotYet }
    }

    /// The repository; made when it is missing, made again when it cannot be opened.
    pub(super) fn repository(&mut self) -> Result<Rc<Repository>, GitError> {
        if let Some(repository) = &self.repository {
            return Ok(Rc::clone(repository));
        }
        let repository = match Repository::open_bare(&self.place.path) {
            Ok(repository) => repository,
            Err(_) => self.create()?,
        };
        let repository = Rc::new(repository);
        self.repository = Some(Rc::clone(&repository));
        Ok(repository)
    }

    fn create(&self) -> Result<Repository, GitError> {
        let path = &self.place.path;
        let cannot =
            |message: String| GitError::Unavailable { doing: format!("making the mirror {}", path.display()), message };
        if path.exists() {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.map_err(|error| cannot(error.to_string()))?;
        }
        fs::create_dir_all(path).map_err(|error| cannot(error.to_string()))?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).no_reinit(true).external_template(false).initial_head("refs/heads/none");
        Repository::init_opts(path, &options).map_err(|error| cannot(error.message().to_owned()))
    }

    /// Whether the mirror holds so many files that a fresh copy is better than living on with it: every fetch that
    /// brings something adds a pack, every commit of ours adds loose objects, and libgit2 does not tidy up.
    pub(super) fn is_crowded(&self) -> bool {
        let count =
            |folder: &str| fs::read_dir(self.place.path.join("objects").join(folder)).map_or(0, Iterator::count);
        // Objects spread evenly over 256 folders, so one of them tells; git looks at the same one.
        count("pack") > MAX_PACK_FILES || count("17") > MAX_LOOSE / 256
    }

    /// Throws the mirror away; the next use makes a new one.
    pub(super) fn forget(&mut self) {
        self.repository = None;
        self.suspect = false;
        // What cannot be removed is found again, and reported, when the mirror is made.
        drop(fs::remove_dir_all(&self.place.path));
    }

    /// Notes that the mirror may be broken.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
        self.repository = None;
    }

    /// Whether a broken object was met since the last fetch.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether everything that our refs name can be read, down to the trees. An interrupted or damaged mirror fails
    /// here.
    pub(super) fn is_sound(&mut self) -> bool {
        self.repository = None;
        let Ok(repository) = self.repository() else { return false };
        let Ok(references) = repository.references_glob("refs/*") else { return false };
        for reference in references {
            let target = reference.ok().and_then(|reference| reference.target());
            if !target.is_some_and(|target| has_trees(&repository, target)) {
                return false;
            }
        }
        true
    }

    /// Turns an error of libgit2, and what the transport knows about it, into ours.
    pub(super) fn error(&self, doing: &str, endpoint: Option<&Registered>, error: &git2::Error) -> GitError {
        let doing = format!("{doing} {}", self.place.shown);
        match endpoint.and_then(|registered| registered.endpoint.take_failure()) {
            Some(Failure::Unsupported(text)) => GitError::Unsupported(format!("{doing}: {text}")),
            Some(Failure::Unavailable(message) | Failure::Refused(message)) => GitError::Unavailable { doing, message },
            None => {
                let text = error.message();
                let message = endpoint.map_or_else(|| super::redact(text), |known| known.endpoint.scrub(text));
                if ["objectformat", "object format"].iter().any(|words| message.contains(words)) {
                    return GitError::Unsupported(format!("{doing}: SHA-256 object names are not supported"));
                }
                GitError::Unavailable { doing, message }
            }
        }
    }

    /// An error while reading an object of a commit that the mirror has: the mirror is broken, not the caller wrong.
    pub(super) fn broken(&mut self, sha: &Sha, error: &git2::Error) -> GitError {
        self.suspect();
        GitError::Unavailable {
            doing: format!("reading {} of {}", sha.short(), self.place.shown),
            message: format!("the mirror is damaged and is made again at the next fetch: {}", error.message()),
        }
    }
}

/// Whether a commit and its top tree can be read, and those of its parents are there.
pub(super) fn has_trees(repository: &Repository, id: Oid) -> bool {
    let commit = repository.find_object(id, None).and_then(|object| object.peel_to_commit());
    commit.is_ok_and(|commit| {
        commit.tree().is_ok() && commit.parent_ids().all(|parent| repository.find_commit(parent).is_ok())
    })
}

/// A commit by its id.
pub(super) fn commit<'a>(repository: &'a Repository, sha: &Sha) -> Result<git2::Commit<'a>, GitError> {
    let missing = || GitError::Missing(format!("the repository has no commit {} here", super::redact(&sha.0)));
    let id = Oid::from_str(&sha.0).map_err(|_| missing())?;
    repository.find_commit(id).map_err(|error| match (error.code(), error.class()) {
        (ErrorCode::NotFound, _) | (_, ErrorClass::Invalid) => missing(),
        _ => GitError::Unavailable {
            doing: format!("reading commit {}", sha.short()),
            message: error.message().to_owned(),
        },
    })
}

/// Our name for an object id.
pub(super) fn sha(id: Oid) -> Sha {
    Sha(id.to_string())
}

/// Where the mirror keeps what a ref of the remote points at. Flat, so that a branch `a` that became `a/b` is no
/// conflict here.
pub(super) fn mirrored(reference: &str) -> String {
    let digest = sha256_hex(reference.as_bytes());
    format!("refs/mirror/{digest}")
}

/// Checks a full ref name.
pub(super) fn check_reference(name: &str) -> Result<(), GitError> {
    if name.starts_with("refs/") && git2::Reference::is_valid_name(name) {
        return Ok(());
    }
    Err(GitError::Unsupported(format!("{name:?} is not a full ref name")))
}
