//! Git's smart HTTP protocol (gitprotocol-http): one GET for the refs, one POST per round.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION};
use url::Url;

use super::{Endpoint, Failure, program};

/// GitHub and others answer clients that do not call themselves git with a web page.
const USER_AGENT: &str = concat!("git/2.0 (serin ", env!("CARGO_PKG_VERSION"), ")");

/// As many as curl allows by default would be 30; a repository that moved needs one or two.
const MAX_REDIRECTS: usize = 5;

/// The HTTP client of an endpoint, made at the first use on its owner thread, and then kept for its connections.
#[derive(Default)]
pub(super) struct LazyClient(OnceLock<Result<Client, String>>);

impl LazyClient {
    fn get(&self) -> Result<Client, String> {
        self.0.get_or_init(build_client).clone()
    }
}

fn build_client() -> Result<Client, String> {
    // Another part of the process may have chosen the provider already: the first choice stays.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .build()
        .map_err(|error| format!("cannot set up HTTP: {}", with_causes(&error)))
}

/// An error with all its causes; reqwest keeps the interesting part ("connection refused") down there.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// Where requests go now: a redirect of the first request holds for the later ones of the same operation.
#[derive(Clone)]
struct Place {
    base: Url,
    /// Whether this is still the configured origin, which may see our credentials.
    trusted: bool,
}

/// libgit2's transport for one operation.
pub(super) struct HttpTransport {
    endpoint: Arc<Endpoint>,
    place: Arc<Mutex<Place>>,
}

impl HttpTransport {
    pub(super) fn new(endpoint: Arc<Endpoint>, base: Url) -> Self {
        Self { endpoint, place: Arc::new(Mutex::new(Place { base, trusted: true })) }
    }

    /// One request to `git-upload-pack` in version 2 of the protocol.
    pub(super) fn version_2(self) -> HttpStream {
        HttpStream { version_2: true, ..self.stream(Service::UploadPack) }
    }

    fn stream(&self, service: Service) -> HttpStream {
        HttpStream {
            endpoint: Arc::clone(&self.endpoint),
            place: Arc::clone(&self.place),
            service,
            version_2: false,
            request: Vec::new(),
            response: None,
        }
    }
}

impl SmartSubtransport for HttpTransport {
    fn action(&self, _url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        Ok(Box::new(self.stream(service)))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// One request and its answer. What libgit2 writes is kept until it reads: a push is a small pack, and a fetch sends
/// only names of commits. Answers are streamed.
pub(super) struct HttpStream {
    endpoint: Arc<Endpoint>,
    place: Arc<Mutex<Place>>,
    service: Service,
    version_2: bool,
    request: Vec<u8>,
    response: Option<Response>,
}

impl Write for HttpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for HttpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.endpoint.time_left()?;
        let mut response = match self.response.take() {
            Some(response) => response,
            None => self.send()?,
        };
        let count = match response.read(buffer) {
            Ok(count) => count,
            Err(error) => return Err(self.broken(&with_causes(&error), is_timeout(&error))),
        };
        self.response = Some(response);
        self.endpoint.spend(count)?;
        if matches!(self.service, Service::UploadPackLs | Service::ReceivePackLs) {
            self.endpoint.check_advertisement(buffer.get(..count).unwrap_or_default())?;
        }
        Ok(count)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
        || error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<reqwest::Error>())
            .is_some_and(reqwest::Error::is_timeout)
}

impl HttpStream {
    fn broken(&self, message: &str, timeout: bool) -> io::Error {
        if timeout { self.endpoint.timed_out() } else { self.endpoint.fail(Failure::Unavailable(message.to_owned())) }
    }

    fn send(&mut self) -> io::Result<Response> {
        let response = match self.service {
            Service::UploadPackLs | Service::ReceivePackLs => self.get_refs()?,
            Service::UploadPack | Service::ReceivePack => {
                let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let url = extended(&place.base, program(self.service), None);
                let body = std::mem::take(&mut self.request);
                self.exchange(&url, place.trusted, Some(body))?
            }
        };
        if !response.status().is_success() {
            return Err(self.endpoint.fail(self.refusal(response)));
        }
        self.check_headers(&response)?;
        Ok(response)
    }

    /// Asks for the refs, following redirects. Git follows them here only, and so do we: a POST that is redirected is
    /// an error.
    fn get_refs(&self) -> io::Result<Response> {
        let program = program(self.service);
        let start = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let origin = start.base.origin();
        let mut place = start;
        for _ in 0..=MAX_REDIRECTS {
            let url = extended(&place.base, "info/refs", Some(program));
            let response = self.exchange(&url, place.trusted, None)?;
            if !response.status().is_redirection() {
                *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
                return Ok(response);
            }
            let base = redirected(&url, &response)
                .map_err(|why| self.endpoint.fail(Failure::Unavailable(format!("cannot follow a redirect: {why}"))))?;
            // Once somewhere else, credentials stay home even when a later redirect points back.
            let trusted = place.trusted && base.origin() == origin;
            place = Place { base, trusted };
        }
        Err(self.endpoint.fail(Failure::Unavailable(format!("more than {MAX_REDIRECTS} redirects"))))
    }

    fn exchange(&self, url: &Url, trusted: bool, body: Option<Vec<u8>>) -> io::Result<Response> {
        let client = self.endpoint.client.get().map_err(|text| self.endpoint.fail(Failure::Unsupported(text)))?;
        let program = program(self.service);
        let mut request = match body {
            None => client.get(url.clone()).header(ACCEPT, "*/*"),
            Some(body) => client
                .post(url.clone())
                .header(CONTENT_TYPE, format!("application/x-{program}-request"))
                .header(ACCEPT, format!("application/x-{program}-result"))
                .body(body),
        };
        if self.version_2 {
            request = request.header("git-protocol", "version=2");
        }
        if let Some(pair) = self.endpoint.basic_pair().filter(|_| trusted) {
            request = request.header(AUTHORIZATION, self.basic(&pair)?);
        }
        request.timeout(self.endpoint.time_left()?).send().map_err(|error| {
            let timeout = error.is_timeout();
            self.broken(&with_causes(&error.without_url()), timeout)
        })
    }

    fn basic(&self, pair: &str) -> io::Result<HeaderValue> {
        use base64::Engine as _;
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| self.endpoint.fail(Failure::Unsupported("the token cannot stand in a header".to_owned())))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What a status that is not a success means.
    fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let writing = matches!(self.service, Service::ReceivePackLs | Service::ReceivePack);
        let words = plain_words(response);
        match status {
            StatusCode::UNAUTHORIZED => {
                Failure::Unavailable(format!("the remote does not accept our credentials (401){words}"))
            }
            StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE if writing => {
                Failure::Refused(format!("the remote forbids the push ({}){words}", status.as_u16()))
            }
            StatusCode::FORBIDDEN => {
                Failure::Unavailable(format!("our credentials may not read the repository (403){words}"))
            }
            StatusCode::NOT_FOUND => {
                Failure::Unavailable("no such repository (404), or our credentials may not see it".to_owned())
            }
            _ => Failure::Unavailable(format!("the remote answered {status}{words}")),
        }
    }

    fn check_headers(&self, response: &Response) -> io::Result<()> {
        let kind = match self.service {
            Service::UploadPackLs | Service::ReceivePackLs => "advertisement",
            Service::UploadPack | Service::ReceivePack => "result",
        };
        let want = format!("application/x-{}-{kind}", program(self.service));
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let problem = if header(CONTENT_TYPE).split(';').next().map(str::trim) != Some(want.as_str()) {
            "the answer is not Git's smart HTTP protocol: is this the address of a repository?"
        } else if !matches!(header(CONTENT_ENCODING), "" | "identity") {
            "the answer is compressed, which was not asked for"
        } else {
            return Ok(());
        };
        Err(self.endpoint.fail(Failure::Unavailable(problem.to_owned())))
    }
}

/// The first words of a plain-text answer; web pages help nobody in a log line.
fn plain_words(response: Response) -> String {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/plain") {
        return String::new();
    }
    let mut bytes = Vec::new();
    let read = response.take(400).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    if read.is_err() || text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}

fn extended(base: &Url, path: &str, service: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url.set_query(service.map(|service| format!("service={service}")).as_deref());
    url
}

/// The repository's new address after a redirect of `url`: the target without `/info/refs?service=…`.
fn redirected(url: &Url, response: &Response) -> Result<Url, String> {
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).ok_or("it names no target")?;
    let mut target = url.join(target).map_err(|error| error.to_string())?;
    if !matches!(target.scheme(), "http" | "https") || (url.scheme() == "https" && target.scheme() == "http") {
        return Err(format!("it goes from {} to {}", url.scheme(), target.scheme()));
    }
    if target.query() != url.query() {
        return Err("it does not keep the service in the query".to_owned());
    }
    let path = target.path().strip_suffix("/info/refs").ok_or("it does not point at another repository")?.to_owned();
    target.set_path(&path);
    target.set_query(None);
    target.set_fragment(None);
    if target.set_username("").is_err() || target.set_password(None).is_err() {
        return Err("its address cannot be used".to_owned());
    }
    Ok(target)
}
