//! Smart HTTP on loopback, in front of the `git` program.
#![expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use tokio::sync::oneshot;

use super::Repo;

/// A request of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// A few refs, asked by version 2 of the protocol.
    Poll,
    /// The refs, asked to fetch.
    FetchRefs,
    /// The pack.
    Fetch,
    /// The refs, asked to push.
    PushRefs,
    /// The push.
    Push,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An answer with this status and plain text.
    Status(u16, String),
    /// A redirect to this base address (the rest of the request's path is kept).
    Redirect(String),
    /// The request is served, and its answer is lost.
    LoseAnswer,
    /// The request is served, and half of the answer arrives.
    Truncate,
    /// Nothing is answered.
    Hang,
    /// A web page with status 200.
    WebPage,
    /// The pack is taken, the ref is refused with these words, the second ones are shown to people.
    RefuseRef(String, String),
}

/// What was asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) on: On,
    /// User name and password of basic authentication.
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) status: u16,
}

type Hook = Box<dyn FnOnce(&Repo) + Send>;

/// Something that happens to requests of one kind, after `skip` of them, `times` times.
struct Planned<T> {
    on: On,
    what: T,
    skip: usize,
    times: usize,
}

impl<T> Planned<T> {
    /// Counts a request; whether it is one that this is meant for.
    fn due(&mut self, on: On) -> bool {
        if self.on != on || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

struct Shared {
    repo: Repo,
    tokens: Mutex<Option<Vec<(String, bool)>>>,
    faults: Mutex<Vec<Planned<Fault>>>,
    hooks: Mutex<Vec<Planned<Hook>>>,
    asked: Mutex<Vec<Asked>>,
}

/// A repository served over smart HTTP until this is dropped.
pub(crate) struct HttpServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl HttpServer {
    /// Serves a repository to everybody.
    pub(crate) fn start(repo: &Repo) -> Self {
        let shared = Arc::new(Shared {
            repo: repo.clone(),
            tokens: Mutex::new(None),
            faults: Mutex::default(),
            hooks: Mutex::default(),
            asked: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { shared, address, stop: Some(stop) }
    }

    /// Address of the repository.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/acme/apps.git", self.address)
    }

    /// From now on only these tokens are accepted; `true`: for pushes too. Called again, credentials are rotated.
    pub(crate) fn require(&self, tokens: &[(&str, bool)]) {
        let tokens = tokens.iter().map(|(token, write)| ((*token).to_owned(), *write)).collect();
        *self.shared.tokens.lock().unwrap() = Some(tokens);
    }

    /// The next request of this kind goes wrong.
    pub(crate) fn fault(&self, on: On, fault: Fault) {
        self.faults(on, fault, 1);
    }

    /// The next so many requests of this kind go wrong.
    pub(crate) fn faults(&self, on: On, fault: Fault, times: usize) {
        self.shared.faults.lock().unwrap().push(Planned { on, what: fault, skip: 0, times });
    }

    /// The request of this kind that comes after `skip` others goes wrong.
    pub(crate) fn fault_later(&self, on: On, skip: usize, fault: Fault) {
        self.shared.faults.lock().unwrap().push(Planned { on, what: fault, skip, times: 1 });
    }

    /// Runs something in the repository just before the next request of this kind is served. `On::Push` is the moment
    /// between the refs that a push saw and `git receive-pack`: a person's push there is a race.
    pub(crate) fn before(&self, on: On, hook: impl FnOnce(&Repo) + Send + 'static) {
        self.before_later(on, 0, hook);
    }

    /// The same for the request of this kind that comes after `skip` others.
    pub(crate) fn before_later(&self, on: On, skip: usize, hook: impl FnOnce(&Repo) + Send + 'static) {
        self.shared.hooks.lock().unwrap().push(Planned { on, what: Box::new(hook), skip, times: 1 });
    }

    /// What was asked so far; forgets it.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // A server that has ended already needs no word.
        let _told = self.stop.take().map(|stop| stop.send(()));
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(on) = kind(&request) else { return StatusCode::NOT_FOUND.into_response() };
    let credentials = basic(&request);
    let path = request.uri().path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let response = answer(&shared, on, credentials.as_ref(), &path, body).await;
    let status = response.status().as_u16();
    shared.asked.lock().unwrap().push(Asked { on, credentials, status });
    response
}

fn kind(request: &Request) -> Option<On> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), query) {
        (&Method::GET, "service=git-upload-pack") if path.ends_with("/info/refs") => Some(On::FetchRefs),
        (&Method::GET, "service=git-receive-pack") if path.ends_with("/info/refs") => Some(On::PushRefs),
        (&Method::POST, "") if path.ends_with("/git-upload-pack") && request.headers().contains_key("git-protocol") => {
            Some(On::Poll)
        }
        (&Method::POST, "") if path.ends_with("/git-upload-pack") => Some(On::Fetch),
        (&Method::POST, "") if path.ends_with("/git-receive-pack") => Some(On::Push),
        _ => None,
    }
}

fn basic(request: &Request) -> Option<(String, String)> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).ok()?).ok()?;
    pair.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

async fn answer(
    shared: &Arc<Shared>,
    on: On,
    credentials: Option<&(String, String)>,
    path: &str,
    body: Bytes,
) -> Response {
    if let Some(tokens) = &*shared.tokens.lock().unwrap() {
        let known = tokens.iter().find(|(token, _)| credentials.is_some_and(|(_, password)| password == token));
        let writing = matches!(on, On::PushRefs | On::Push);
        match known {
            None => return (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
            Some((token, false)) if writing => {
                return (StatusCode::FORBIDDEN, format!("token {token} may not write")).into_response();
            }
            Some(_) => {}
        }
    }
    let fault = take_fault(shared, on);
    match &fault {
        Some(Fault::Status(status, text)) => {
            return (StatusCode::from_u16(*status).unwrap(), text.clone()).into_response();
        }
        Some(Fault::Redirect(base)) => {
            let rest = path.find("/info/refs").or_else(|| path.rfind('/')).map_or("", |at| &path[at..]);
            return (StatusCode::FOUND, [(header::LOCATION, format!("{base}{rest}"))]).into_response();
        }
        Some(Fault::WebPage) => return axum::response::Html("<h1>Sign in</h1>").into_response(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::RefuseRef(words, people)) => return refuse_reference(on, &body, words, people),
        Some(Fault::LoseAnswer | Fault::Truncate) | None => {}
    }
    let worker = Arc::clone(shared);
    let bytes = tokio::task::spawn_blocking(move || run(&worker, on, &body)).await.unwrap();
    match fault {
        Some(Fault::LoseAnswer) => broken(on, Vec::new()),
        Some(Fault::Truncate) => broken(on, bytes[..bytes.len() / 2].to_vec()),
        _ => typed(on, Body::from(bytes)),
    }
}

fn take_fault(shared: &Shared, on: On) -> Option<Fault> {
    let mut faults = shared.faults.lock().unwrap();
    faults.iter_mut().find_map(|planned| planned.due(on).then(|| planned.what.clone()))
}

/// Runs git for a request. Blocking, on a thread of its own, because hooks of tests block too.
fn run(shared: &Shared, on: On, body: &[u8]) -> Vec<u8> {
    let hooks: Vec<Hook> = {
        let mut hooks = shared.hooks.lock().unwrap();
        hooks.extract_if(.., |planned| planned.due(on)).map(|planned| planned.what).collect()
    };
    for hook in hooks {
        hook(&shared.repo);
    }
    let service = service(on);
    let mut command = shared.repo.command("git");
    command.arg(service).arg("--stateless-rpc");
    let refs = matches!(on, On::FetchRefs | On::PushRefs);
    if on == On::Poll {
        command.env("GIT_PROTOCOL", "version=2");
    }
    if refs {
        command.arg("--http-backend-info-refs");
    }
    command.arg(".").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.to_vec();
    // A refused push may end before it has read everything.
    let writer = std::thread::spawn(move || drop(input.write_all(&body)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let mut bytes = Vec::new();
    if refs {
        bytes.extend(packet(format!("# service=git-{service}\n").as_bytes()));
        bytes.extend(b"0000");
    }
    bytes.extend(output.stdout);
    bytes
}

fn service(on: On) -> &'static str {
    match on {
        On::Poll | On::FetchRefs | On::Fetch => "upload-pack",
        On::PushRefs | On::Push => "receive-pack",
    }
}

fn typed(on: On, body: Body) -> Response {
    let kind = if matches!(on, On::FetchRefs | On::PushRefs) { "advertisement" } else { "result" };
    let kind = format!("application/x-git-{}-{kind}", service(on));
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// An answer whose connection breaks after these bytes.
fn broken(on: On, bytes: Vec<u8>) -> Response {
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = vec![Ok(bytes), Err(std::io::Error::other("broken"))];
    typed(on, Body::from_stream(futures::stream::iter(chunks)))
}

/// A line of the protocol.
fn packet(content: &[u8]) -> Vec<u8> {
    let mut line = format!("{:04x}", content.len() + 4).into_bytes();
    line.extend(content);
    line
}

/// What a server says that takes the pack and refuses the ref, as forges with protected branches do.
fn refuse_reference(on: On, body: &[u8], words: &str, people: &str) -> Response {
    let head = String::from_utf8_lossy(body);
    let reference = head.split(' ').nth(2).unwrap_or_default().split('\0').next().unwrap_or_default().to_owned();
    let mut report = packet(b"unpack ok\n");
    report.extend(packet(format!("ng {reference} {words}\n").as_bytes()));
    report.extend(b"0000");
    let mut bytes = packet(&[b"\x02", people.as_bytes(), b"\n"].concat());
    bytes.extend(packet(&[b"\x01".as_slice(), &report].concat()));
    bytes.extend(b"0000");
    typed(on, Body::from(bytes))
}
