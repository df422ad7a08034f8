//! Server keys as OpenSSH keeps them in `known_hosts` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::{PublicKey, parse_public_key_base64};
use sha1::Sha1;

use crate::ports::GitError;

/// What the lines say about a server and its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The key is listed for this host.
    Known,
    /// The host is not listed at all.
    UnknownHost,
    /// The host is listed with other keys only.
    Mismatch,
    /// The key is listed as revoked.
    Revoked,
}

struct Line<'a> {
    revoked: bool,
    hosts: &'a str,
    key: PublicKey,
}

/// Lines that can be used; comments, certificate authorities and key types we cannot read are passed over, as
/// OpenSSH does.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().peekable();
        let revoked = match words.peek()? {
            word if word.starts_with('#') => return None,
            &"@revoked" => words.next().is_some(),
            word if word.starts_with('@') => return None,
            _ => false,
        };
        let (hosts, _kind, key) = (words.next()?, words.next()?, words.next()?);
        Some(Line { revoked, hosts, key: parse_public_key_base64(key).ok()? })
    })
}

/// Refuses a text that lists no server at all: nothing could ever connect.
pub(super) fn check(text: &str) -> Result<(), GitError> {
    if lines(text).any(|line| !line.revoked) {
        return Ok(());
    }
    Err(GitError::Unsupported("the known hosts list no server key; ssh-keyscan HOST makes such lines".to_owned()))
}

/// The keys listed for a server.
pub(super) fn keys(text: &str, host: &str, port: u16) -> Vec<PublicKey> {
    lines(text).filter(|line| !line.revoked && matches(line.hosts, host, port)).map(|line| line.key).collect()
}

/// What the lines say about this key of this server.
pub(super) fn standing(text: &str, host: &str, port: u16, key: &PublicKey) -> Standing {
    let same = |other: &PublicKey| other.key_data() == key.key_data();
    if lines(text).any(|line| line.revoked && same(&line.key) && matches(line.hosts, host, port)) {
        return Standing::Revoked;
    }
    let keys = keys(text, host, port);
    match keys.iter().any(same) {
        true => Standing::Known,
        false if keys.is_empty() => Standing::UnknownHost,
        false => Standing::Mismatch,
    }
}

/// Whether a comma-separated list of patterns names the server; a negated pattern that fits wins.
fn matches(patterns: &str, host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    let name = if port == 22 { host } else { format!("[{host}]:{port}") };
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if fits(negated, &name) => return false,
            Some(_) => {}
            None => found |= fits(pattern, &name),
        }
    }
    found
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("|1|") {
        Some(hashed) => hashed_fits(hashed, name).unwrap_or(false),
        None => glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
    }
}

/// `SALT|HASH`, base64, hash = HMAC-SHA1 of the name with the salt as key.
fn hashed_fits(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let mut mac = Hmac::<Sha1>::new_from_slice(&decode(salt)?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&decode(hash)?).is_ok())
}

/// `*` and `?`, as OpenSSH's patterns have them; linear in both texts.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::{Standing, glob, parse_public_key_base64, standing};

    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    /// `example.com`, hashed; the vector that OpenSSH-compatible clients test with.
    const HASHED: &str = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";

    fn ask(list: &str, host: &str, port: u16) -> Standing {
        let text = list.replace("ONE", ONE).replace("TWO", TWO).replace("HASHED", HASHED);
        standing(&text, host, port, &parse_public_key_base64(TWO).expect("key"))
    }

    #[test]
    fn standings() {
        use Standing::{Known, Mismatch, Revoked, UnknownHost};
        for (list, host, port, want) in [
            ("h ssh-ed25519 TWO", "h", 22, Known),
            ("h ssh-ed25519 TWO comment", "H", 22, Known),
            ("h ssh-ed25519 TWO", "h", 2222, UnknownHost),
            ("[h]:2222 ssh-ed25519 TWO", "h", 2222, Known),
            ("[h]:2222 ssh-ed25519 TWO", "h", 22, UnknownHost),
            ("h ssh-ed25519 ONE", "h", 22, Mismatch),
            ("h ssh-ed25519 ONE\nh,10.0.0.1 ssh-ed25519 TWO", "10.0.0.1", 22, Known),
            ("HASHED ssh-ed25519 TWO", "example.com", 22, Known),
            ("HASHED ssh-ed25519 TWO", "example.org", 22, UnknownHost),
            ("HASHED ssh-ed25519 ONE", "example.com", 22, Mismatch),
            ("*.h ssh-ed25519 TWO", "git.h", 22, Known),
            ("*.h,!bad.h ssh-ed25519 TWO", "bad.h", 22, UnknownHost),
            ("h ssh-ed25519 TWO\n@revoked * ssh-ed25519 TWO", "h", 22, Revoked),
            ("@cert-authority * ssh-ed25519 TWO", "h", 22, UnknownHost),
            ("# h ssh-ed25519 TWO", "h", 22, UnknownHost),
            ("#h ssh-ed25519 TWO", "h", 22, UnknownHost),
            ("", "h", 22, UnknownHost),
        ] {
            assert_eq!(ask(list, host, port), want, "{list:?} {host}:{port}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.a.*", "x.a.y", true),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }
}
