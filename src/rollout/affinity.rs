//! Session affinity: cookies that keep a user on the side that answered first, for as long as a release is on trial.
//!
//! The status carries them, as Flagger's does: the canary's cookie while it has traffic, the one of the run before (which
//! browsers are told to forget), and the primary's. A provider makes its route of [`Cookies`]. Source: Flagger
//! `pkg/router/gateway_api.go`, `istio.go`; RFC 6265 §4.1.
//!
//! What differs from Flagger: a cookie without a name is not made; one that is to be forgotten carries the attributes it
//! was set with, without which browsers keep it; the value is derived, so that a tick that runs twice makes the same
//! cookie.

use super::observation::interval;
use super::tick::Tick;
use crate::api::CanaryView;
use crate::api::canary::SessionAffinity;
use crate::domain::{Weights, sha256_hex};

/// Seconds that a canary's cookie lives when nothing is said: the default of the CRD.
const MAX_AGE: i64 = 86_400;
/// How many letters are random.
const LETTERS: usize = 10;

/// One cookie as a route has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Regular expression for the header `Cookie` of requests that carry it, to be matched in full.
    pub pattern: String,
    /// Value of the header `Set-Cookie`.
    pub set: String,
}

/// The cookies that a route deals with, by the canary's spec and status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cookies {
    /// Who has it stays on the canary; set on answers of the canary.
    pub canary: Option<Cookie>,
    /// Who has it stays on the primary until the next tick; set on answers of the primary.
    pub primary: Option<Cookie>,
    /// Of the run before: `set` makes the browser forget it.
    pub stale: Option<Cookie>,
}

impl Cookies {
    /// The cookies for a route with these weights; `None` when the canary wants no session affinity.
    pub fn of(canary: &CanaryView, weights: Weights) -> Option<Self> {
        let analysis = canary.spec.analysis()?;
        let affinity = analysis.session_affinity.as_ref()?;
        let status = &canary.status;
        let cookie = |stored: &Option<String>, max_age: i64| {
            let stored = stored.as_deref().filter(|stored| !stored.is_empty())?;
            let (name, value) = stored.split_once('=').filter(|(name, _)| !name.is_empty())?;
            let pattern = format!(".*{}.*{}.*", escaped(name), escaped(value));
            Some(Cookie { pattern, set: format!("{stored}; Max-Age={max_age}{}", attributes(affinity)) })
        };
        if weights.canary == 0 {
            return Some(Self { stale: cookie(&status.previous_session_affinity_cookie, -1), ..Self::default() });
        }
        let until_next_tick = i64::try_from(interval(analysis).as_secs()).unwrap_or(i64::MAX);
        let wanted = affinity.primary_cookie_name.as_deref().is_some_and(|name| !name.is_empty());
        Some(Self {
            canary: cookie(&status.session_affinity_cookie, affinity.max_age.unwrap_or(MAX_AGE)),
            primary: cookie(&status.primary_session_affinity_cookie, until_next_tick).filter(|_| wanted),
            stale: None,
        })
    }
}

/// The attributes of a cookie besides its age, in Flagger's order.
fn attributes(affinity: &SessionAffinity) -> String {
    let text = |name: &str, value: &Option<String>| {
        value.as_deref().filter(|value| !value.is_empty()).map(|value| format!("; {name}={value}"))
    };
    let flag = |name: &str, on: bool| on.then(|| format!("; {name}"));
    [
        text("Domain", &affinity.domain),
        flag("HttpOnly", affinity.http_only),
        flag("Partitioned", affinity.partitioned),
        text("Path", &affinity.path),
        text("SameSite", &affinity.same_site),
        flag("Secure", affinity.secure),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A text as a regular expression that matches nothing else. Tokens and letters have no other special characters.
fn escaped(text: &str) -> String {
    let special = |letter: char| "\\.+*?()|[]{}^$".contains(letter);
    text.chars().flat_map(|letter| special(letter).then_some('\\').into_iter().chain([letter])).collect()
}

/// Why these cookies cannot be set.
pub(super) fn refused(affinity: &SessionAffinity) -> Option<String> {
    // RFC 6265 §4.1.1: a name is a token of RFC 2616; an attribute ends at a semicolon and has no control characters.
    let token = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c))
    };
    let primary = affinity.primary_cookie_name.as_deref().filter(|name| !name.is_empty());
    if let Some(name) = [Some(affinity.cookie_name.as_str()), primary].into_iter().flatten().find(|name| !token(name)) {
        return Some(format!("analysis.sessionAffinity: {name:?} is no name for a cookie"));
    }
    if primary == Some(&affinity.cookie_name) {
        return Some("analysis.sessionAffinity.cookieName and primaryCookieName must differ".to_owned());
    }
    let odd = |value: &&String| value.chars().any(|c| c == ';' || c.is_control());
    let value = [&affinity.domain, &affinity.path, &affinity.same_site].into_iter().flatten().find(odd)?;
    Some(format!("analysis.sessionAffinity: {value:?} is no value for an attribute of a cookie"))
}

impl Tick<'_> {
    /// Brings the cookies in the status in line with weights that are about to be set.
    pub(super) fn set_cookies(&mut self, weights: Weights) {
        let Some(affinity) = self.affinity().cloned() else { return };
        if weights.canary == 0 {
            if let Some(cookie) = self.status.session_affinity_cookie.take() {
                self.status.previous_session_affinity_cookie = Some(cookie);
            }
            return;
        }
        let named = |stored: &Option<String>, name: &str| {
            stored.as_deref().and_then(|stored| stored.split_once('=')).is_some_and(|(stored, _)| stored == name)
        };
        if !named(&self.status.session_affinity_cookie, &affinity.cookie_name) {
            self.status.session_affinity_cookie = Some(self.fresh(&affinity.cookie_name));
        }
        let primary = affinity.primary_cookie_name.filter(|name| !name.is_empty());
        match primary {
            Some(name) if !named(&self.status.primary_session_affinity_cookie, &name) => {
                self.status.primary_session_affinity_cookie = Some(self.fresh(&name));
            }
            _ => {}
        }
    }

    fn affinity(&self) -> Option<&SessionAffinity> {
        let wanted = self.routed() && !self.is_ab_test() && self.honours("analysis.sessionAffinity");
        self.analysis.session_affinity.as_ref().filter(|_| wanted)
    }

    /// A cookie that no other run of any canary has.
    fn fresh(&self, name: &str) -> String {
        const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let started = self.run.started.map(|started| started.to_string()).unwrap_or_default();
        let trial = self.status.last_applied_spec.as_deref().unwrap_or_default();
        let (uid, canary) = (&self.canary.uid, self.name());
        let digest = sha256_hex(format!("{uid} {canary} {started} {trial} {name}").as_bytes());
        let letters = digest.as_bytes().chunks(4).map(|digits| {
            let number =
                digits.iter().fold(0, |number, digit| number * 16 + char::from(*digit).to_digit(16).unwrap_or(0));
            ALPHABET.get(number as usize % ALPHABET.len()).map_or('a', |letter| char::from(*letter))
        });
        format!("{name}={}", letters.take(LETTERS).collect::<String>())
    }
}
