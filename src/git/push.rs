//! Pushing by compare-and-swap.
//!
//! libgit2 sends, as the old value of a ref, what the server listed on the same connection; the server compares it
//! under its lock. So the ref is compared with what the caller expects right after connecting, and from there on the
//! server guards it, for forced pushes too: there is no moment in which somebody else's commit could be overwritten.
//! What came of it is read three ways: the server's word on the ref, its messages, and the ref itself, read again over
//! a new connection. libgit2 alone says "ok" when a server took the pack and refused the ref.

use std::collections::BTreeSet;

use git2::{Direction, Oid, PushOptions, RemoteCallbacks, Repository};

use super::commit;
use super::location::Location;
use super::mirror::{self, Mirror};
use super::transport::{Failure, Registered};
use crate::domain::Sha;
use crate::ports::{GitError, PushOutcome, Update};

/// Most bytes of the server's messages that are kept.
const MAX_WORDS: usize = 4096;

/// What a ref must point at before it is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Anything from which the new commit descends; with force, anything.
    Any,
    /// Exactly this; `None`: nothing.
    Exactly(Option<Oid>),
}

impl Expected {
    /// Whether a ref that points there may be moved.
    pub(super) fn allows(self, current: Option<Oid>) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(want) => want == current,
        }
    }
}

/// What the server said about a push.
#[derive(Default)]
struct Answer {
    /// Where the ref pointed when the push began; the outer `None`: we never got so far.
    before: Option<Option<Oid>>,
    /// The per-ref result: `Some(None)` is ok.
    reference: Option<Option<String>>,
    /// Its messages to people.
    words: Vec<u8>,
    /// The error of the operation.
    error: Option<git2::Error>,
}

/// What the per-ref words mean.
#[derive(Debug, PartialEq, Eq)]
enum Reason {
    /// Somebody else was there first.
    Raced,
    /// The server had a mishap.
    Mishap,
    /// The server does not want this.
    Unwanted,
}

/// Sorts the reason of a refused ref. The words are those of git's receive-pack and of the forges.
fn reason(reference: &str, messages: &str) -> Reason {
    let text = reference.to_lowercase();
    let messages = messages.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if any(&["hook declined", "protected", "prohibited", "denied", "not allowed", "deny "]) {
        Reason::Unwanted
    } else if messages.contains("exists; cannot create") {
        // A branch whose name is a folder of another branch's name: waiting does not help.
        Reason::Unwanted
    } else if any(&[
        "non-fast-forward",
        "fetch first",
        "stale info",
        "lock",
        "failed to update ref",
        "already exists",
        "old value",
        "incorrect old",
    ]) {
        Reason::Raced
    } else if any(&["unpack", "internal", "timeout", "timed out", "temporar", "unavailable"]) {
        Reason::Mishap
    } else {
        Reason::Unwanted
    }
}

impl Mirror {
    /// See [`crate::ports::GitRemote::commit_and_push`].
    pub(super) fn commit_and_push(&mut self, update: &Update) -> Result<PushOutcome, GitError> {
        mirror::check_reference(&update.reference)?;
        let repository = self.repository()?;
        let parent = update.parent.as_ref().map(|sha| mirror::commit(&repository, sha)).transpose()?;
        let expected = update.expected.as_ref().map(id).transpose()?;
        let new = commit::make(&repository, parent.as_ref(), update)?;
        if let Some(old) = expected.filter(|old| !update.force && !descends(&repository, new, *old)) {
            let message =
                format!("pushing to {}: the commit does not descend from {old} and force is not set", update.reference);
            return Err(GitError::Unsupported(message));
        }
        self.push(&repository, &update.reference, new, Expected::Exactly(expected), update.force)
    }

    /// See [`crate::ports::GitRemote::push_ref`].
    pub(super) fn push_ref(&mut self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        mirror::check_reference(reference)?;
        let repository = self.repository()?;
        let new = mirror::commit(&repository, sha)?.id();
        self.push(&repository, reference, new, Expected::Any, force)
    }

    /// See [`crate::ports::GitRemote::push_refs`]. What does not go through together is pushed one by one, to learn why.
    pub(super) fn push_refs(&mut self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        let together = match &self.place.location {
            Location::Http { .. } | Location::Ssh { .. } if refs.len() > 1 => self.push_together(refs, force),
            _ => BTreeSet::new(),
        };
        let mut down: Option<GitError> = None;
        let mut push = |(reference, sha): &(String, Sha)| {
            if together.contains(reference.as_str()) {
                return Ok(PushOutcome::Pushed(sha.clone()));
            }
            if let Some(error) = &down {
                return Err(error.clone());
            }
            let outcome = self.push_ref(reference, sha, force);
            if let Err(error @ GitError::Unavailable { .. }) = &outcome {
                down = Some(error.clone());
            }
            outcome
        };
        refs.iter().map(&mut push).collect()
    }

    /// Pushes refs over one connection, and reads back over another which of them point where they should.
    fn push_together<'a>(&mut self, refs: &'a [(String, Sha)], force: bool) -> BTreeSet<&'a str> {
        let Ok(repository) = self.repository() else { return BTreeSet::new() };
        let known = |(reference, sha): &'a (String, Sha)| {
            mirror::check_reference(reference).ok()?;
            Some((reference.as_str(), mirror::commit(&repository, sha).ok()?.id()))
        };
        let wanted: Vec<(&str, Oid)> = refs.iter().filter_map(known).collect();
        let connected = |specs: Option<&[String]>| {
            let writer = self.writer();
            if let Some(registered) = writer {
                registered.endpoint.begin();
            }
            let mut remote = repository.remote_anonymous(&self.address(writer))?;
            let mut connection = remote.connect_auth(Direction::Push, None, None)?;
            if let Some(specs) = specs {
                let mut options = PushOptions::new();
                options.packbuilder_parallelism(1);
                connection.remote().push(specs, Some(&mut options))?;
                return Ok(Vec::new());
            }
            let heads = connection.list()?;
            let there = wanted.iter().filter(|(reference, new)| listed(heads, reference) == Some(*new));
            Ok::<_, git2::Error>(there.map(|(reference, _)| *reference).collect())
        };
        let sign = if force { "+" } else { "" };
        let specs: Vec<String> = wanted.iter().map(|(reference, new)| format!("{sign}{new}:{reference}")).collect();
        // Whatever it says, what counts is where the refs point afterwards; a failure is met again one by one.
        drop(connected(Some(&specs)));
        let there = connected(None);
        self.writer().and_then(|registered| registered.endpoint.take_failure());
        there.unwrap_or_default().into_iter().collect()
    }

    fn push(
        &self,
        repository: &Repository,
        reference: &str,
        new: Oid,
        expected: Expected,
        force: bool,
    ) -> Result<PushOutcome, GitError> {
        if let Location::File(path) = &self.place.location {
            return super::local::push(repository, path, reference, new, expected, force)
                .map_err(|error| self.error(&format!("pushing {reference} to"), None, &error));
        }
        let writer = self.writer();
        let mut answer = Answer::default();
        let early = self.send(repository, writer, reference, new, expected, force, &mut answer);
        let failure = writer.and_then(|registered| registered.endpoint.take_failure());
        match (early, &answer.error) {
            (Some(outcome), None) => Ok(outcome),
            (_, Some(error)) if error.code() == git2::ErrorCode::NotFastForward && failure.is_none() => {
                Ok(PushOutcome::Moved)
            }
            _ => self.judge(repository, reference, new, force, answer, failure),
        }
    }

    /// Connects, compares and pushes. `Some` when the answer is clear without a push.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    fn send(
        &self,
        repository: &Repository,
        writer: Option<&Registered>,
        reference: &str,
        new: Oid,
        expected: Expected,
        force: bool,
        answer: &mut Answer,
    ) -> Option<PushOutcome> {
        if let Some(registered) = writer {
            registered.endpoint.begin();
        }
        let result = (|| {
            let mut remote = repository.remote_anonymous(&self.address(writer))?;
            let mut connection = remote.connect_auth(Direction::Push, None, None)?;
            let before = listed(connection.list()?, reference);
            answer.before = Some(before);
            if before == Some(new) {
                return Ok(Some(PushOutcome::Pushed(mirror::sha(new))));
            }
            if !expected.allows(before) {
                return Ok(Some(PushOutcome::Moved));
            }
            let spec = format!("{}{new}:{reference}", if force { "+" } else { "" });
            let Answer { reference: told, words, .. } = answer;
            let mut callbacks = RemoteCallbacks::new();
            callbacks.push_update_reference(|_, status| {
                *told = Some(status.map(str::to_owned));
                Ok(())
            });
            callbacks.sideband_progress(|data| {
                let room = MAX_WORDS.saturating_sub(words.len());
                words.extend(data.iter().take(room));
                true
            });
            let mut options = PushOptions::new();
            options.remote_callbacks(callbacks).packbuilder_parallelism(1);
            connection.remote().push(&[spec], Some(&mut options)).map(|()| None)
        })();
        result.unwrap_or_else(|error: git2::Error| {
            answer.error = Some(error);
            None
        })
    }

    /// Reads the ref again and decides what became of the push.
    fn judge(
        &self,
        repository: &Repository,
        reference: &str,
        new: Oid,
        force: bool,
        answer: Answer,
        failure: Option<Failure>,
    ) -> Result<PushOutcome, GitError> {
        let doing = format!("pushing {reference} to {}", self.place.shown);
        let unavailable = |message: String| GitError::Unavailable { doing: doing.clone(), message };
        let messages = self.shown(&String::from_utf8_lossy(&answer.words));
        match (&answer.reference, failure) {
            (_, Some(Failure::Refused(words))) => return Ok(PushOutcome::Refused(words)),
            (_, Some(Failure::Unsupported(text))) => return Err(GitError::Unsupported(format!("{doing}: {text}"))),
            (None, Some(Failure::Unavailable(text))) => {
                // The answer was lost, or never given: the ref tells.
                return match (answer.before, self.read_back(repository, reference)) {
                    (Some(_), Ok(now)) if now == Some(new) => Ok(PushOutcome::Pushed(mirror::sha(new))),
                    (Some(before), Ok(now)) if now != before => Ok(PushOutcome::Moved),
                    _ => Err(unavailable(text)),
                };
            }
            _ => {}
        }
        let Some(before) = answer.before else {
            let error = answer.error.as_ref().map_or("no connection", |error| error.message());
            return Err(unavailable(self.shown(error)));
        };
        let now = self.read_back(repository, reference);
        if matches!(now, Ok(now) if now == Some(new)) {
            return Ok(PushOutcome::Pushed(mirror::sha(new)));
        }
        match (&answer.reference, now) {
            // It said yes; the second look failed. Its word is enough.
            (Some(None), Err(_)) => Ok(PushOutcome::Pushed(mirror::sha(new))),
            (Some(None), Ok(now)) if now == before => {
                Err(unavailable("the remote took the push, but the ref still shows the old commit".to_owned()))
            }
            (_, Ok(now)) if now != before => Ok(PushOutcome::Moved),
            (Some(Some(words)), _) => {
                let words = self.shown(words);
                let whole = if messages.is_empty() { words.clone() } else { format!("{words}: {messages}") };
                match reason(&words, &messages) {
                    Reason::Unwanted => Ok(PushOutcome::Refused(whole)),
                    // It descends from what the ref still points at, so this is the server's rule, not a race.
                    Reason::Raced if force && words.contains("non-fast-forward") => Ok(PushOutcome::Refused(whole)),
                    Reason::Raced => Ok(PushOutcome::Moved),
                    Reason::Mishap => Err(unavailable(whole)),
                }
            }
            (Some(None) | None, _) => {
                let error = answer.error.as_ref().map_or("the remote gave no result", |error| error.message());
                let error = self.shown(error);
                Err(unavailable(if messages.is_empty() { error } else { format!("{error}: {messages}") }))
            }
        }
    }

    /// Where a ref of the remote points now. Asked as for a push: a server may hide refs from readers, or answer
    /// readers from a copy that lags behind.
    fn read_back(&self, repository: &Repository, reference: &str) -> Result<Option<Oid>, git2::Error> {
        let writer = self.writer();
        if let Some(registered) = writer {
            registered.endpoint.begin();
        }
        let mut remote = repository.remote_anonymous(&self.address(writer))?;
        let connection = remote.connect_auth(Direction::Push, None, None)?;
        Ok(listed(connection.list()?, reference))
    }

    fn writer(&self) -> Option<&Registered> {
        self.place.write.as_ref().or(self.place.read.as_ref())
    }

    /// Words of the remote, fit to be shown.
    fn shown(&self, text: &str) -> String {
        let mut text = super::redact(text);
        for registered in [&self.place.read, &self.place.write].into_iter().flatten() {
            text = registered.endpoint.scrub(&text);
        }
        text.trim().to_owned()
    }
}

fn listed(heads: &[git2::RemoteHead<'_>], reference: &str) -> Option<Oid> {
    heads.iter().find(|head| head.name() == reference).map(git2::RemoteHead::oid).filter(|id| !id.is_zero())
}

/// Whether a commit is another one or comes after it.
pub(super) fn descends(repository: &Repository, new: Oid, old: Oid) -> bool {
    new == old || repository.graph_descendant_of(new, old).unwrap_or(false)
}

fn id(sha: &Sha) -> Result<Oid, GitError> {
    Oid::from_str(&sha.0).map_err(|_| GitError::Unsupported(format!("{:?} is not a commit id", sha.0)))
}

#[cfg(test)]
mod tests {
    use super::{Reason, reason};

    #[test]
    fn reasons() {
        for (words, messages, want) in [
            ("non-fast-forward", "", Reason::Raced),
            ("fetch first", "", Reason::Raced),
            ("stale info", "", Reason::Raced),
            ("failed to update ref", "error: cannot lock ref 'refs/heads/main': is at a but expected b", Reason::Raced),
            ("cannot lock ref 'refs/heads/main'", "", Reason::Raced),
            ("failed to update ref", "'refs/heads/serin' exists; cannot create 'refs/heads/serin/a'", Reason::Unwanted),
            ("pre-receive hook declined", "", Reason::Unwanted),
            ("protected branch hook declined", "GH006: Protected branch update failed", Reason::Unwanted),
            ("hook declined", "", Reason::Unwanted),
            ("push declined due to repository rule violations", "", Reason::Unwanted),
            ("branch is currently checked out", "", Reason::Unwanted),
            ("unpacker error", "", Reason::Mishap),
            ("Internal Server Error", "", Reason::Mishap),
            ("something new", "", Reason::Unwanted),
        ] {
            assert_eq!(reason(words, messages), want, "{words}");
        }
    }
}
