//! Outgoing HTTP clients of the adapters: with and without verification of certificates, each made once. No redirect is
//! followed: neither a payload nor credentials go anywhere but where the user sent them.

#![expect(clippy::disallowed_types, reason = "shell")]

use std::sync::OnceLock;
use std::time::Duration;

use url::Url;

/// The clients, made when they are first needed.
#[derive(Default)]
pub(crate) struct Clients {
    slots: [OnceLock<Result<reqwest::Client, String>>; 6],
}

impl Clients {
    /// A client for the given URL that verifies certificates unless `insecure`.
    pub(crate) fn get(&self, url: &Url, insecure: bool) -> Result<reqwest::Client, String> {
        let tls = match (url.scheme(), insecure) {
            ("http", _) => Tls::None,
            (_, false) => Tls::Verified,
            (_, true) => Tls::Unverified,
        };
        let direct = is_local(url);
        let index = tls as usize + if direct { 3 } else { 0 };
        let slot = self.slots.get(index).ok_or("preparing the HTTP client: no such client")?;
        slot.get_or_init(|| build(tls, direct)).clone()
    }

    /// A client that reaches the given URL through a proxy. It is made anew at each call: few use one, and seldom.
    pub(crate) fn proxied(&self, url: &Url, proxy: &str) -> Result<reqwest::Client, String> {
        let tls = if url.scheme() == "http" { Tls::None } else { Tls::Verified };
        let proxy = reqwest::Proxy::all(proxy).map_err(|error| format!("reading the address of the proxy: {error}"))?;
        finished(builder(tls).proxy(proxy))
    }
}

/// What a client does about certificates. Reading the machine's certificate store takes longer than all the rest, so a
/// client for plain HTTP does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    None,
    Verified,
    Unverified,
}

/// Whether a URL stays on this machine, or its link (where clouds keep credentials). A proxy named by the environment has
/// no business with it, as Go's HTTP client has it too.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn build(tls: Tls, direct: bool) -> Result<reqwest::Client, String> {
    let builder = builder(tls);
    finished(if direct { builder.no_proxy() } else { builder })
}

fn builder(tls: Tls) -> reqwest::ClientBuilder {
    // Somebody else may have installed it already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let builder = reqwest::Client::builder()
        .user_agent("serin")
        .connect_timeout(Duration::from_secs(5))
        // What a burst of ticks opened is not kept for long: each connection has its buffers.
        .pool_max_idle_per_host(16)
        .redirect(reqwest::redirect::Policy::none());
    match tls {
        Tls::None => builder.tls_certs_only([]),
        Tls::Verified => builder,
        Tls::Unverified => builder.tls_danger_accept_invalid_certs(true),
    }
}

fn finished(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, String> {
    builder.build().map_err(|error| format!("preparing the HTTP client: {error}"))
}
