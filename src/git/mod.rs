//! The adapter of [`GitRemote`]: git2 on one owner thread per repository, over https, ssh and local files.
//!
//! libgit2 holds the objects and speaks the pack protocol; the bytes go over reqwest (rustls) and russh, registered as
//! a libgit2 transport under a private scheme, so that no OpenSSL is needed, libgit2 never sees an address with
//! credentials, and two repositories with different credentials cannot mix (see `transport`).
//!
//! Nothing is ever checked out, no hook runs, and no Git configuration of the user or the machine is read. On `file`
//! addresses libgit2's push neither compares the old value nor runs hooks, so the adapter writes objects and moves the
//! ref by itself (see `local`).
#![expect(clippy::disallowed_types, reason = "shell")]

mod commit;
mod fetch;
mod history;
mod local;
mod location;
mod mirror;
mod options;
mod push;
mod redact;
mod snapshot;
mod transport;
mod worker;

pub use options::{Auth, Limits, Options};
pub use redact::redact;
pub use snapshot::read_revision;

use std::sync::Arc;

use crate::domain::sha256_hex;
use crate::ports::{Clock, GitError, GitRemote};
use location::Location;
use mirror::Place;
use transport::{Endpoint, Registered};

/// Opens one repository: starts its owner thread. The mirror is made at the first use, so an unreachable remote is not
/// an error here.
///
/// # Errors
/// [`GitError::Unsupported`] when the address or the credentials cannot be used at all.
pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn GitRemote>, GitError> {
    let Options { url, auth, write_auth, cache_dir, limits } = options;
    transport::set_up().map_err(GitError::Unsupported)?;
    let location = Location::parse(&url)?;
    let endpoint = |auth| Endpoint::new(location.clone(), auth, limits).map(Registered::new);
    let (read, write) = match &location {
        Location::File(_) => (None, None),
        Location::Http { .. } | Location::Ssh { .. } => (Some(endpoint(auth)?), write_auth.map(endpoint).transpose()?),
    };
    let digest = sha256_hex(url.as_bytes());
    let folder = format!("{}.git", digest.get(..24).unwrap_or(&digest));
    let place = Place { shown: redact(&url), path: cache_dir.join(folder), location, read, write, limits };
    Ok(Arc::new(worker::Worker::start(place, clock)?))
}
