//! Where a repository is: the forms of address that are understood.

use std::path::PathBuf;

use url::Url;

use super::redact;
use crate::ports::GitError;

/// A repository's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Smart HTTP; without user information, query and fragment.
    Http {
        /// The address.
        base: Url,
        /// User name of the address.
        user: Option<String>,
    },
    /// SSH.
    Ssh {
        /// User name of the address.
        user: Option<String>,
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Path on the server, as it is given to the remote command.
        path: String,
    },
    /// A repository of this machine.
    File(PathBuf),
}

fn refuse(url: &str, why: &str) -> GitError {
    GitError::Unsupported(format!("the repository address {} cannot be used: {why}", redact(url)))
}

impl Location {
    /// Takes an address apart. A password in it is refused: credentials come from files or the environment, and an
    /// address is shown to people.
    pub(super) fn parse(text: &str) -> Result<Self, GitError> {
        if text.chars().any(char::is_control) {
            return Err(refuse("(hidden)", "it holds a control character"));
        }
        if text.starts_with('/') {
            return Ok(Self::File(PathBuf::from(text)));
        }
        if !text.contains("://") {
            return scp_form(text).ok_or_else(|| refuse(text, "want https, ssh, USER@HOST:PATH or file"));
        }
        let url = Url::parse(text).map_err(|error| refuse(text, &error.to_string()))?;
        if url.password().is_some() {
            return Err(refuse(text, "it holds a password; use tokenFrom"));
        }
        match url.scheme() {
            "http" | "https" => http(text, url),
            "ssh" | "git+ssh" | "ssh+git" => ssh(text, &url),
            "file" => url.to_file_path().map(Self::File).map_err(|()| refuse(text, "want file:///ABSOLUTE/PATH")),
            other => Err(refuse(text, &format!("{other} is not one of https, ssh, file"))),
        }
    }
}

fn http(text: &str, mut url: Url) -> Result<Location, GitError> {
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse(text, "it has a query or a fragment"));
    }
    let user = Some(url.username().to_owned()).filter(|user| !user.is_empty());
    if url.set_username("").is_err() || url.host_str().is_none() {
        return Err(refuse(text, "it has no host"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(Location::Http { base: url, user })
}

fn ssh(text: &str, url: &Url) -> Result<Location, GitError> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse(text, "it has no host"))?;
    let user = Some(url.username().to_owned()).filter(|user| !user.is_empty());
    // `ssh://host/~user/repo` means the user's home, as for git.
    let path = match url.path().strip_prefix("/~") {
        Some(rest) => format!("~{rest}"),
        None => url.path().to_owned(),
    };
    if path.len() < 2 {
        return Err(refuse(text, "it has no path"));
    }
    Ok(Location::Ssh {
        user,
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(22),
        path: percent_decoded(&path),
    })
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

/// `USER@HOST:PATH`, the short form of ssh addresses.
fn scp_form(text: &str) -> Option<Location> {
    let (host, path) = text.split_once(':')?;
    let (user, host) = host.rsplit_once('@').map_or((None, host), |(user, host)| (Some(user.to_owned()), host));
    let plain = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['/', ' ', ':']);
    (plain(host) && user.as_deref().is_none_or(plain) && !path.is_empty() && !path.starts_with('-'))
        .then(|| Location::Ssh { user, host: host.to_owned(), port: 22, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::Location;

    fn show(text: &str) -> String {
        match Location::parse(text) {
            Ok(Location::Http { base, user }) => format!("http {base} {}", user.unwrap_or_default()),
            Ok(Location::Ssh { user, host, port, path }) => {
                format!("ssh {} {host} {port} {path}", user.unwrap_or_default())
            }
            Ok(Location::File(path)) => format!("file {}", path.display()),
            Err(error) => format!("error {error}"),
        }
    }

    #[test]
    fn addresses() {
        for (text, want) in [
            ("https://git.example.com/acme/apps.git", "http https://git.example.com/acme/apps.git "),
            ("https://bob@git.example.com:8443/a/", "http https://git.example.com:8443/a bob"),
            ("ssh://git@git.example.com/acme/apps.git", "ssh git git.example.com 22 /acme/apps.git"),
            ("ssh://git.example.com:2222/~bob/my%20apps", "ssh  git.example.com 2222 ~bob/my apps"),
            ("ssh://git@[::1]:2222/a", "ssh git ::1 2222 /a"),
            ("git@git.example.com:acme/apps.git", "ssh git git.example.com 22 acme/apps.git"),
            ("file:///srv/apps.git", "file /srv/apps.git"),
            ("/srv/apps.git", "file /srv/apps.git"),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
    }

    #[test]
    fn refused_addresses_say_why_and_hide_passwords() {
        for (text, want) in [
            ("https://u:CANARY@h/a", "password"),
            ("https://h/a?token=CANARY", "query"),
            ("ftp://h/a", "ftp is not one of"),
            ("ssh://h", "no path"),
            ("file://host/a", "ABSOLUTE"),
            ("-oProxyCommand=CANARY:x", "want https"),
            ("relative/path", "want https"),
            ("https://h/a\nb", "control"),
        ] {
            let shown = show(text);
            assert!(shown.starts_with("error ") && shown.contains(want), "{text}: {shown}");
            assert!(!shown.contains("u:CANARY") && !shown.contains("token=CANARY"), "{shown}");
        }
    }
}
