//! Words of the outside made fit for people: without credentials, with causes, not endless.

/// What stands in place of a credential.
const MASK: &str = "***";

/// Masks the user information of every URL in a text, and every one of the given secrets.
///
/// Secrets shorter than four characters are left alone: masking them would shred the text and hide nothing.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = mask_user_information(text);
    for secret in secrets {
        let secret = secret.trim();
        if secret.len() >= 4 {
            out = out.replace(secret, MASK);
        }
    }
    out
}

fn mask_user_information(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).unwrap_or(tail.len());
        let (authority, after) = tail.split_at(end);
        // The last `@` separates: an unescaped one in a password must not leave its second half behind.
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Cuts a text to at most `limit` characters, with `…` in place of what was cut.
pub fn truncate(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(limit.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// An error with the chain of its causes: the outer text alone often says no more than "error sending request".
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_information_and_secrets_are_masked() {
        for (text, secrets, want) in [
            ("POST http://u:p4ss@host:80/x?y failed", &[][..], "POST http://***@host:80/x?y failed"),
            ("https://tok@a/ and https://b/c@d", &[], "https://***@a/ and https://b/c@d"),
            ("http://u:p@ss@host", &[], "http://***@host"),
            ("Bearer s3cr3t, s3cr3t", &["s3cr3t\n"], "Bearer ***, ***"),
            ("a b", &["b"], "a b"),
            ("no url", &[""], "no url"),
        ] {
            assert_eq!(redact(text, secrets.iter().copied()), want);
        }
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(truncate("äöü", 3), "äöü");
        assert_eq!(truncate("äöüß", 3), "äö…");
    }
}
