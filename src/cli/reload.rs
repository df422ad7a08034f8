//! Noticing that `serin.yaml`, or a file that it names a secret in, has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::compose;
use super::config::{Auth, Config, ConfigErrors, SecretRef};
use crate::domain::sha256_hex;
use crate::ports::Clock;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the configuration as it is now.
type Load<'a> = &'a (dyn Fn() -> Result<Config, ConfigErrors> + Sync);

/// Returns when another configuration, or another secret, is there and can be used: its files have been the same for two
/// looks, since editors write in pieces. One that cannot be used is reported once, and the present one stays.
pub(super) async fn changed(file: &Path, config: &Config, load: Load<'_>, clock: &dyn Clock) -> Box<Config> {
    let mut files = files(file, config);
    let mut known = fingerprint(&files);
    let mut before = known.clone();
    loop {
        clock.sleep_until(clock.now().checked_add(LOOK).unwrap_or(Timestamp::MAX)).await;
        let seen = fingerprint(&files);
        if seen == known || seen != before {
            before = seen;
            continue;
        }
        match usable(load) {
            Ok(new) => return Box::new(new),
            Err(error) => tracing::error!("going on with the configuration of before: {error}"),
        }
        // A secret that it names and that is not there yet may come later.
        if let Ok(new) = load() {
            files = self::files(file, &new);
        }
        known = fingerprint(&files);
        before.clone_from(&known);
    }
}

fn usable(load: Load<'_>) -> Result<Config, String> {
    let config = load().map_err(|errors| errors.to_string())?;
    compose::secrets(&config).map_err(|error| error.to_string())?;
    Ok(config)
}

/// The configuration and the files of its secrets.
fn files(file: &Path, config: &Config) -> BTreeSet<PathBuf> {
    let references = config.sources.iter().flat_map(|source| {
        let auths = std::iter::once(&source.auth).chain(&source.write_auth);
        let auths = auths.flat_map(|Auth { token_from, ssh_key_from, known_hosts_from }| {
            token_from.iter().chain(ssh_key_from).chain(known_hosts_from)
        });
        auths.chain(&source.forge.token_from).chain(source.webhook.as_ref().map(|webhook| &webhook.secret_from))
    });
    let secrets = references.chain(compose::outgoing_secrets(config)).filter_map(|reference| match reference {
        SecretRef::File(path) => Some(path.clone()),
        SecretRef::Env(_) | SecretRef::Given(_) => None,
    });
    std::iter::once(file.to_owned()).chain(secrets).collect()
}

/// What is in the files, without keeping it.
fn fingerprint(files: &BTreeSet<PathBuf>) -> Vec<Option<String>> {
    files.iter().map(|file| std::fs::read(file).ok().map(|content| sha256_hex(&content))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    /// Acts before each look, and stops the test when nothing came of it.
    struct Script(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

    #[async_trait]
    impl Clock for Script {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        async fn sleep_until(&self, _: Timestamp) {
            let next = self.0.lock().expect("unpoisoned").pop();
            match next {
                Some(act) => act(),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_change_counts_when_it_stands_still_and_can_be_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, token) = (folder.path().join("serin.yaml"), folder.path().join("token"));
        let text = |cluster: &str| {
            let path = token.display();
            format!(
                "cluster: {cluster}\nsources: [{{name: s, url: 'https://h/r', auth: {{tokenFrom: {{file: {path}}}}}}}]"
            )
        };
        let write = |path: &Path, text: String| -> Box<dyn FnOnce() + Send> {
            let path = path.to_owned();
            Box::new(move || std::fs::write(path, text).expect("writing"))
        };
        let nothing = || -> Box<dyn FnOnce() + Send> { Box::new(|| {}) };
        write(&file, text("a"))();
        write(&token, "one".to_owned())();
        let config = Config::load(&file).expect("a configuration");
        let watch = async |mut steps: Vec<Box<dyn FnOnce() + Send>>| {
            steps.reverse();
            let clock = Script(Mutex::new(steps));
            let limit = Duration::from_millis(50);
            let new = tokio::time::timeout(limit, changed(&file, &config, &|| Config::load(&file), &clock)).await;
            new.ok().map(|new| new.cluster)
        };
        assert_eq!(watch(vec![nothing(), nothing()]).await, None);
        assert_eq!(watch(vec![write(&file, text("b"))]).await, None, "it may be in the middle of a write");
        write(&file, text("a"))();
        assert_eq!(watch(vec![write(&file, text("b")), nothing()]).await.as_deref(), Some("b"));
        write(&file, text("a"))();
        assert_eq!(watch(vec![write(&file, "cluster: [".to_owned()), nothing(), nothing()]).await, None);
        let mended = vec![write(&file, "cluster: [".to_owned()), nothing(), write(&file, text("c")), nothing()];
        assert_eq!(watch(mended).await.as_deref(), Some("c"));
        write(&file, text("a"))();
        assert_eq!(watch(vec![write(&token, "two".to_owned()), nothing()]).await.as_deref(), Some("a"), "rotated");
        assert_eq!(watch(vec![write(&token, String::new()), nothing(), nothing()]).await, None, "an empty secret");
    }
}
