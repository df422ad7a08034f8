//! Addresses without credentials.

use std::sync::LazyLock;

use regex::Regex;

/// User information of an address, and values of query parameters that forges use for tokens.
static SECRETS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i)(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s'\x22]*@|(?P<key>[?&](?:access_token|private_token|token|password|key|secret)=)[^&\s'\x22]+",
    )
    .ok()
});

/// The text with the credentials of every address in it (`https://USER:TOKEN@HOST/…`, `?access_token=…`) replaced by
/// `***`. A user name alone, as in `ssh://git@host`, goes too.
pub fn redact(text: &str) -> String {
    let Some(pattern) = SECRETS.as_ref() else { return "***".to_owned() };
    pattern
        .replace_all(text, |found: &regex::Captures<'_>| match (found.name("scheme"), found.name("key")) {
            (Some(scheme), _) => format!("{}***@", scheme.as_str()),
            (_, Some(key)) => format!("{}***", key.as_str()),
            _ => "***".to_owned(),
        })
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn credentials_in_addresses_are_hidden() {
        for (text, want) in [
            ("https://u:CANARY@git.example.com/a.git", "https://***@git.example.com/a.git"),
            ("https://CANARY@git.example.com/a.git", "https://***@git.example.com/a.git"),
            ("https://u:CAN@ARY@git.example.com/a.git", "https://***@git.example.com/a.git"),
            ("cannot read 'http://x:CANARY@h:80/a' now", "cannot read 'http://***@h:80/a' now"),
            ("https://h/a?access_token=CANARY&b=1", "https://h/a?access_token=***&b=1"),
            ("https://h/a.git", "https://h/a.git"),
            ("https://h/a@b", "https://h/a@b"),
            ("ssh://git@h/a", "ssh://***@h/a"),
            ("mail a@b.c", "mail a@b.c"),
        ] {
            assert_eq!(redact(text), want);
        }
    }
}
