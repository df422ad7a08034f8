//! Push webhooks of forges. The payload means "look now" and nothing else, so a replay is harmless and nothing in it is
//! parsed; still it must be signed, and is read only up to a limit, because anybody can send one.
//!
//! Source: GitHub "Validating webhook deliveries", Gitea and GitLab webhook documentation.

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::Endpoints;

/// Largest payload that is read.
const BODY_LIMIT: usize = 1 << 20;

/// `POST /hooks/{source}`.
pub(super) async fn receive(
    State(endpoints): State<Endpoints>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> (StatusCode, &'static str) {
    let Some(secret) = endpoints.hooks.get(&source) else {
        return (StatusCode::NOT_FOUND, "no such source, or it has no webhook\n");
    };
    let Some(proof) = Proof::of(&headers) else {
        return (StatusCode::UNAUTHORIZED, "neither a signature nor a token\n");
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > BODY_LIMIT) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "too large\n");
    }
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "too large, or broken off\n");
    };
    if !proof.holds(secret, &body) {
        return (StatusCode::UNAUTHORIZED, "wrong signature or token\n");
    }
    // A full channel holds a trigger that has not been looked at yet: one look serves both.
    endpoints.triggers.try_send(source).ok();
    (StatusCode::ACCEPTED, "looking\n")
}

/// How a forge proves that it knows the secret.
enum Proof<'a> {
    /// HMAC-SHA256 of the body in hexadecimal (GitHub, Gitea, Forgejo).
    Signature(&'a str),
    /// The secret itself (GitLab).
    Token(&'a str),
}

impl<'a> Proof<'a> {
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        if let Some(value) = text("x-hub-signature-256") {
            return Some(Self::Signature(value.strip_prefix("sha256=")?));
        }
        if let Some(value) = text("x-gitea-signature").or_else(|| text("x-forgejo-signature")) {
            return Some(Self::Signature(value));
        }
        text("x-gitlab-token").map(Self::Token)
    }

    /// Compares in constant time. An empty secret proves nothing.
    fn holds(&self, secret: &SecretString, body: &[u8]) -> bool {
        let secret = secret.expose_secret().as_bytes();
        if secret.is_empty() {
            return false;
        }
        let tag = match self {
            Self::Signature(hex) => decode_hex(hex),
            // Equal tags under one key mean equal texts, and comparing the tags tells nothing about their contents.
            Self::Token(token) => keyed(secret, token.as_bytes()).map(|mac| mac.finalize().into_bytes().to_vec()),
        };
        let wanted = match self {
            Self::Signature(_) => keyed(secret, body),
            Self::Token(_) => keyed(secret, secret),
        };
        tag.zip(wanted).is_some_and(|(tag, wanted)| wanted.verify_slice(&tag).is_ok())
    }
}

/// HMAC-SHA256 that has read the text. It takes keys of every length, so it is never `None`.
fn keyed(key: &[u8], text: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text);
    Some(mac)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_holds_and_variations_do_not() {
        // GitHub documentation, "Testing the webhook payload validation".
        const TAG: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = SecretString::from("It's a Secret to Everybody");
        let body = b"Hello, World!";
        assert!(Proof::Signature(TAG).holds(&secret, body));
        assert!(Proof::Signature(&TAG.to_uppercase()).holds(&secret, body));
        assert!(!Proof::Signature(TAG).holds(&secret, b"Hello, World?"));
        assert!(!Proof::Signature(TAG).holds(&SecretString::from("another"), body));
        assert!(!Proof::Signature(TAG.get(..62).expect("ascii")).holds(&secret, body));
        assert!(!Proof::Signature("").holds(&secret, body));
        assert!(!Proof::Signature("zz").holds(&secret, body));
        assert!(Proof::Token("It's a Secret to Everybody").holds(&secret, body));
        assert!(!Proof::Token("It's a Secret").holds(&secret, body));
        assert!(!Proof::Token("").holds(&SecretString::from(""), body));
    }
}
