//! The one place where libgit2's process-wide state is set: its configuration paths and our transport.
//!
//! libgit2 chooses a transport by the scheme of an address, for the whole process. Ours is a private scheme, and an
//! address under it is only a number: `serin-git://17/`. The number leads to an [`Endpoint`] that belongs to one
//! repository and one right (read or write). So credentials never pass through libgit2, two repositories cannot get
//! each other's, and an endpoint whose repository is closed cannot be reached any more.
#![expect(
    unsafe_code,
    reason = "libgit2 sets transports and search paths process-wide, by calls that git2 marks unsafe"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use git2::ConfigLevel;
use git2::transport::Transport;

use super::Endpoint;

const SCHEME: &str = "serin-git";

static ENDPOINTS: Mutex<(u64, BTreeMap<u64, Weak<Endpoint>>)> = Mutex::new((0, BTreeMap::new()));

/// Sets libgit2 up, once for the process.
///
/// No configuration file of the machine or the user is read from here on. Git's own wall against repositories of
/// other users stays on.
pub(in crate::git) fn set_up() -> Result<(), String> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            // SAFETY: `OnceLock` lets one thread in, and every use of libgit2 in this crate comes after this call.
            unsafe { git2::opts::set_search_path(level, "") }.map_err(|error| error.message().to_owned())?;
        }
        // SAFETY: as above; no remote exists yet, so no transport is being looked up.
        unsafe { git2::transport::register(SCHEME, connect) }.map_err(|error| error.message().to_owned())
    })
    .clone()
}

fn connect(remote: &git2::Remote<'_>) -> Result<Transport, git2::Error> {
    let address = remote.url()?;
    let endpoint = address
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.strip_prefix("://"))
        .and_then(|rest| rest.trim_end_matches('/').parse().ok())
        .and_then(|number: u64| {
            ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner).1.get(&number).and_then(Weak::upgrade)
        })
        .ok_or_else(|| git2::Error::from_str("the repository is closed"))?;
    endpoint.transport(remote)
}

/// A registered endpoint: reachable by libgit2 for as long as this lives.
pub(in crate::git) struct Registered {
    number: u64,
    /// The endpoint.
    pub(in crate::git) endpoint: Arc<Endpoint>,
}

impl Registered {
    pub(in crate::git) fn new(endpoint: Endpoint) -> Self {
        let endpoint = Arc::new(endpoint);
        let mut endpoints = ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.0 += 1;
        let number = endpoints.0;
        endpoints.1.insert(number, Arc::downgrade(&endpoint));
        Self { number, endpoint }
    }

    /// The address to give to libgit2.
    pub(in crate::git) fn address(&self) -> String {
        format!("{SCHEME}://{}/", self.number)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use git2::ConfigLevel;

    use super::{ENDPOINTS, Registered, set_up};
    use crate::git::location::Location;
    use crate::git::options::{Auth, Limits};
    use crate::git::transport::Endpoint;

    #[test]
    fn no_configuration_of_the_machine_is_read() {
        set_up().expect("libgit2");
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            // SAFETY: nothing in this crate writes the paths after `set_up`.
            let path = unsafe { git2::opts::get_search_path(level) }.expect("search path");
            assert!(path.is_empty(), "{level:?}: {path:?}");
        }
        assert!(
            git2::Config::open_default()
                .is_ok_and(|config| { config.entries(None).is_ok_and(|mut entries| entries.next().is_none()) })
        );
    }

    #[test]
    fn an_address_ends_with_its_repository() {
        set_up().expect("libgit2");
        let folder = tempfile::tempdir().expect("folder");
        let repository = git2::Repository::init_bare(folder.path()).expect("repository");
        let location = Location::parse("http://127.0.0.1:1/a").expect("address");
        let limits = Limits { timeout: Duration::from_secs(1), ..Limits::default() };
        let registered = Registered::new(Endpoint::new(location, Auth::None, limits).expect("endpoint"));
        let address = registered.address();
        let try_it = || {
            let mut remote = repository.remote_anonymous(&address).expect("remote");
            remote.connect(git2::Direction::Fetch).expect_err("nobody listens").message().to_owned()
        };
        registered.endpoint.begin();
        assert!(!try_it().contains("is closed"));
        let number = registered.number;
        drop(registered);
        assert!(!ENDPOINTS.lock().expect("endpoints").1.contains_key(&number));
        assert!(repository.remote_anonymous(&address).expect("remote").connect(git2::Direction::Fetch).is_err());
    }
}
