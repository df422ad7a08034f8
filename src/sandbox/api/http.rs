//! Requests in, answers out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::convert;
use super::delete::{DeleteOptions, Deleted, Propagation};
use super::error::{ApiError, qualified};
use super::options;
use super::route::{self, Target, agent, document, json_response, target};
use super::selector::Selector;
use super::state::State;
use super::types::Resource;
use super::view::{Format, Include, View};
use super::watch::{Frame, WatchStream, Watcher};
use super::write::{FieldCheck, Part, PatchKind, Write};
use crate::domain::Object;
use crate::sandbox::store::{EventKind, Fault, FaultAction, RequestKind, Store};

const MAX_BODY: usize = 8 * 1024 * 1024;

/// One request, read.
struct Call {
    method: Method,
    target: Target,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
    waited_for: bool,
}

/// Where requests come in.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) store: Store,
    /// Whether a simulated clock waits for the watches behind it. A stalled client elsewhere must not stop the clock.
    pub(crate) waited_for: bool,
}

/// Answers any request to the API.
pub(crate) async fn answer(Extract(door): Extract<Door>, request: Request) -> Response {
    let Door { store, waited_for } = door;
    let (parts, body) = request.into_parts();
    let _busy = store.clock().in_flight();
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(e) => return ApiError::new(413, "RequestEntityTooLarge", e.to_string()).into_response(),
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let query: BTreeMap<String, String> = url::form_urlencoded::parse(query).into_owned().collect();
    let decoded = |s: &str| -> String {
        // A plus sign stands for itself in a path.
        let escaped = s.replace('+', "%2B");
        url::form_urlencoded::parse(escaped.as_bytes()).map(|(k, _)| k.into_owned()).collect()
    };
    let segments: Vec<String> = parts.uri.path().split('/').filter(|s| !s.is_empty()).map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let path = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => target("", version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => target(group, version, rest),
        other => return document(&store, other, &parts.headers),
    };
    let Some(target) = path else { return ApiError::no_such_path().into_response() };
    if !target.group.is_empty() && !store.serves(&target.group) && !LEFT_OUT.contains(&target.group.as_str()) {
        return route::no_page();
    }
    let call = Call { method: parts.method, target, query, headers: parts.headers, body, waited_for };
    match call.run(&store) {
        Ok(response) => response,
        Err(e) => e.into_response(),
    }
}

/// What a fault left to do after the request was carried out.
enum After {
    Answer,
    Drop,
}

impl Call {
    fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn manager(&self) -> &str {
        match self.param("fieldManager") {
            "" => agent(&self.headers),
            manager => manager,
        }
    }

    fn verb(&self) -> &'static str {
        let one = !self.target.name.is_empty();
        let applies = self.header(header::CONTENT_TYPE).starts_with("application/apply-patch");
        match self.method {
            Method::GET if self.flag("watch") => "watch",
            Method::GET if one => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH if applies => "apply",
            Method::PATCH => "patch",
            Method::DELETE if one => "delete",
            Method::DELETE => "deletecollection",
            _ => "other",
        }
    }

    fn run(&self, store: &Store) -> Result<Response, ApiError> {
        let target = &self.target;
        let mut resource = qualified(&target.group, &target.plural);
        if !target.sub.is_empty() {
            resource = format!("{resource}/{}", target.sub);
        }
        let mut state = store.lock_counted(self.verb(), &resource, self.manager());
        let after = match state.fault(self.verb(), &resource, &target.name) {
            Some(Fault { action: FaultAction::Answer(code), .. }) => return Err(injected(code)),
            Some(Fault { action: FaultAction::DropAfterApplying, .. }) => After::Drop,
            None => After::Answer,
        };
        let answer = self.handle(&mut state);
        match after {
            After::Answer => answer,
            After::Drop => {
                let broken =
                    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by the sandbox");
                let body = futures::stream::once(std::future::ready(Err::<Bytes, _>(broken)));
                Ok(Response::new(Body::from_stream(body)))
            }
        }
    }

    fn handle(&self, state: &mut State) -> Result<Response, ApiError> {
        let target = &self.target;
        let res = state.registry.plural(&target.group, &target.version, &target.plural).cloned();
        let res = res.ok_or_else(|| unserved(target))?;
        let part = match target.sub.as_str() {
            "" => Part::Main,
            "status" if res.status => Part::Status,
            "scale" if res.scale.is_some() => Part::Scale,
            other => {
                let what = format!("{} of {}", other, res.plural);
                let known = res.custom.is_none() && !matches!(other, "status" | "scale");
                return Err(match known {
                    true => ApiError::not_simulated(&what),
                    false if res.custom.is_some() => ApiError::not_found(&res.group, &res.plural, &target.name),
                    false => ApiError::no_such_path(),
                });
            }
        };
        // Apply has no default manager.
        let manager = if self.verb() == "apply" { self.param("fieldManager") } else { self.manager() };
        options::check(self.verb(), &self.query)?;
        self.check_accept()?;
        let write = Write {
            part,
            dry_run: !self.param("dryRun").is_empty(),
            force: self.flag("force"),
            fields: match self.param("fieldValidation") {
                "Strict" => FieldCheck::Strict,
                "Ignore" => FieldCheck::Ignore,
                _ => FieldCheck::Warn,
            },
            ..Write::new(&res, &target.version, &target.ns, &target.name, manager)
        };
        let answer = match self.verb() {
            "watch" => self.watch(state, &res),
            "get" => {
                let object = state.live(&write)?;
                Ok(json_response(StatusCode::OK, self.shown(state, &res, part, &object)))
            }
            "list" => self.list(state, &res),
            // A POST to an object or its parts, a PUT or PATCH to all of a type.
            "create" if !target.name.is_empty() => Err(self.not_allowed()),
            "update" | "patch" | "apply" if target.name.is_empty() => Err(self.not_allowed()),
            "create" => {
                let object = state.create(&write, self.read_body()?)?;
                Ok(json_response(StatusCode::CREATED, self.shown(state, &res, part, &object)))
            }
            "update" => {
                let body = self.read_body()?;
                require_version(&res, &write, &body)?;
                let object = state.update(&write, body)?;
                Ok(json_response(StatusCode::OK, self.shown(state, &res, part, &object)))
            }
            "patch" | "apply" => {
                let existed = state.get(&res, &target.ns, &target.name).is_some();
                let kind = self.patch_kind(&res)?;
                let object = state.patch(&write, kind, &self.read_body()?)?;
                let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
                Ok(json_response(code, self.shown(state, &res, part, &object)))
            }
            "delete" => self.delete(state, &res),
            "deletecollection" if res.is("", "Namespace") => Err(self.not_allowed()),
            "deletecollection" => self.delete_collection(state, &res),
            _ => Err(self.not_allowed()),
        };
        answer.map(|mut answer| {
            for warning in write.warnings.take() {
                let text = format!("299 - {}", Value::from(warning));
                answer.headers_mut().extend(text.parse().ok().map(|value| (header::WARNING, value)));
            }
            answer
        })
    }

    fn not_allowed(&self) -> ApiError {
        let message = "the server does not allow this method on the requested resource";
        ApiError::new(405, "MethodNotAllowed", message).with_details(json!({}))
    }

    fn check_accept(&self) -> Result<(), ApiError> {
        let accept = self.header(header::ACCEPT);
        if accept.is_empty()
            || ["json", "yaml", "protobuf", "*/*", "application/*"].iter().any(|known| accept.contains(known))
        {
            return Ok(());
        }
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        Err(ApiError::new(406, "NotAcceptable", message).with_details(json!({})))
    }

    fn read_body(&self) -> Result<Value, ApiError> {
        if self.header(header::CONTENT_TYPE).contains("protobuf") {
            let read = super::protobuf::read(&self.body);
            return read.map_err(|message| ApiError::new(415, "UnsupportedMediaType", message));
        }
        let kind = self.header(header::CONTENT_TYPE);
        if !kind.contains("json") && !kind.contains("yaml") && !kind.is_empty() {
            return Err(unknown_format(&[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ]));
        }
        let json = serde_json::from_slice(&self.body);
        if json.is_ok() || !kind.contains("yaml") {
            return json
                .map_err(|e| ApiError::bad_request(format!("couldn't get version/kind; json parse error: {e}")));
        }
        let text = std::str::from_utf8(&self.body).map_err(|e| ApiError::bad_request(e.to_string()))?;
        serde_saphyr::from_str(text).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))
    }

    fn patch_kind(&self, res: &Resource) -> Result<PatchKind, ApiError> {
        let kind = self.header(header::CONTENT_TYPE);
        Ok(match kind.split(';').next().unwrap_or_default() {
            "application/apply-patch+yaml" => PatchKind::Apply,
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" if res.custom.is_none() => PatchKind::Strategic,
            "application/strategic-merge-patch+json" => {
                let known =
                    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
                return Err(unknown_format(&known));
            }
            _ => {
                let error = ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
                return Err(error.with_details(json!({})));
            }
        })
    }

    fn view(&self, state: &State, res: &Arc<Resource>) -> View {
        let accept = self.header(header::ACCEPT);
        let format = if accept.contains("as=Table") {
            Format::Table(match self.param("includeObject") {
                "Object" => Include::Object,
                "None" => Include::None,
                _ => Include::Metadata,
            })
        } else if accept.contains("as=PartialObjectMetadata") {
            Format::Metadata
        } else {
            Format::Full
        };
        View { res: res.clone(), version: self.target.version.clone(), format, clock: state.clock.clone() }
    }

    fn shown(&self, state: &State, res: &Arc<Resource>, part: Part, object: &Object) -> String {
        match part {
            Part::Scale => convert::scale(res, object).to_string(),
            _ => self.view(state, res).object(object),
        }
    }

    fn selector(&self, res: &Resource) -> Result<Selector, ApiError> {
        let name = &self.target.name;
        let fields = match self.param("fieldSelector") {
            "" if !name.is_empty() => format!("metadata.name={name}"),
            fields => fields.to_owned(),
        };
        Selector::parse(res, self.param("labelSelector"), &fields)
    }

    fn list(&self, state: &State, res: &Arc<Resource>) -> Result<Response, ApiError> {
        let selector = self.selector(res)?;
        let cursor = self.cursor(state)?;
        let asked = options::revision(self.param("resourceVersion"))?;
        if asked > state.revision {
            return Err(too_large(asked, state.revision));
        }
        if self.param("resourceVersionMatch") == "Exact" && asked < state.floor() {
            return Err(ApiError::expired(format!("The resourceVersion for the provided list is too old: {asked}")));
        }
        let revision = cursor.as_ref().map_or(state.revision, |c| c.0);
        let after = |object: &&Arc<Object>| {
            let place = (object.namespace().unwrap_or_default(), object.name());
            cursor.as_ref().is_none_or(|(_, ns, name)| place > (ns.as_str(), name.as_str()))
        };
        let chosen = state.list(res, &self.target.ns).filter(after).filter(|o| selector.matches(o));
        let mut items: Vec<&Object> = chosen.map(AsRef::as_ref).collect();
        let limit = self.param("limit").parse::<usize>().ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
        let mut more = None;
        if items.len() > limit {
            let remaining = items.len() - limit;
            items.truncate(limit);
            let last = items.last().map(|o| json!([revision, o.namespace().unwrap_or_default(), o.name()]));
            more = last.map(|token| (URL_SAFE_NO_PAD.encode(token.to_string()), remaining));
        }
        let body = self.view(state, res).list(items.into_iter(), &revision.to_string(), more);
        Ok(json_response(StatusCode::OK, body))
    }

    /// Where the page before ended.
    fn cursor(&self, state: &State) -> Result<Option<(u64, String, String)>, ApiError> {
        let token = self.param("continue");
        if token.is_empty() {
            return Ok(None);
        }
        let read = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok();
        let cursor: (u64, String, String) = read().ok_or_else(|| {
            ApiError::bad_request(
                "invalid continue token: continue key is not valid: illegal base64 data at input byte 0",
            )
        })?;
        if cursor.0 < state.floor() {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
            return Err(ApiError::expired(message));
        }
        Ok(Some(cursor))
    }

    fn watch(&self, state: &mut State, res: &Arc<Resource>) -> Result<Response, ApiError> {
        let selector = self.selector(res)?;
        let initial = self.flag("sendInitialEvents");
        let from = options::revision(self.param("resourceVersion")).map_err(|error| ApiError {
            code: 500,
            reason: "",
            message: error.message.replace("invalid resource version: ", ""),
            ..error
        })?;
        let bookmarks = self.flag("allowWatchBookmarks");
        let pending = if self.waited_for { state.pending.clone() } else { Arc::default() };
        let watcher = Arc::new(Watcher::new(res, &self.target.ns, selector.clone(), pending));
        if initial || from == 0 {
            for object in state.list(res, &self.target.ns).filter(|o| selector.matches(o)) {
                watcher.send(Frame::Object(EventKind::Added, object.clone()));
            }
            if initial && bookmarks {
                watcher.send(Frame::Bookmark(state.revision, true));
            }
            state.add_watcher(&watcher);
        } else if state.replay(from, &watcher) {
            state.add_watcher(&watcher);
        } else {
            let message = format!("too old resource version: {from} ({})", state.floor());
            watcher.send(Frame::Error(ApiError::expired(message).status()));
            watcher.close();
        }
        watcher.at_revision(state.revision.max(from));
        let seconds = self.param("timeoutSeconds").parse::<u64>().ok().filter(|s| *s > 0);
        let seconds = seconds.unwrap_or_else(|| state.jitter(1_800, 3_600));
        let clock = state.clock.clone();
        let until = clock.now().checked_add(Duration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
        let stream = WatchStream {
            watcher,
            view: self.view(state, res),
            bookmarks,
            deadline: Box::pin(async move { clock.sleep_until(until).await }),
            in_hand: 0,
            over: false,
        };
        Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
    }

    fn delete_options(&self) -> Result<DeleteOptions, ApiError> {
        let body = if self.body.is_empty() { Value::Null } else { self.read_body()? };
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let policy = text("/propagationPolicy").unwrap_or_else(|| self.param("propagationPolicy").to_owned());
        let orphan = body.get("orphanDependents") == Some(&Value::Bool(true)) || self.flag("orphanDependents");
        let propagation = match policy.as_str() {
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            _ if orphan => Propagation::Orphan,
            _ => Propagation::Background,
        };
        let dry = body.get("dryRun").and_then(Value::as_array).is_some_and(|d| !d.is_empty());
        Ok(DeleteOptions {
            propagation,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: dry || !self.param("dryRun").is_empty(),
        })
    }

    fn delete(&self, state: &mut State, res: &Arc<Resource>) -> Result<Response, ApiError> {
        let options = self.delete_options()?;
        let body = match state.delete(res, &self.target.ns, &self.target.name, &options)? {
            Deleted::Waiting(object) => self.view(state, res).object(&object),
            Deleted::Gone(object) => {
                let mut details = json!({ "name": object.name(), "kind": res.plural, "uid": object.uid() });
                if !res.group.is_empty() {
                    details["group"] = res.group.clone().into();
                }
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                });
                status.to_string()
            }
        };
        Ok(json_response(StatusCode::OK, body))
    }

    fn delete_collection(&self, state: &mut State, res: &Arc<Resource>) -> Result<Response, ApiError> {
        let (selector, options) = (self.selector(res)?, self.delete_options()?);
        let all = state.list(res, &self.target.ns).filter(|o| selector.matches(o));
        let all: Vec<Arc<Object>> = all.cloned().collect();
        for object in &all {
            // An owner earlier in the list may have taken this one along.
            state.delete(res, object.namespace().unwrap_or_default(), object.name(), &options).ok();
        }
        let body = self.view(state, res).list(all.iter().map(AsRef::as_ref), &state.revision.to_string(), None);
        Ok(json_response(StatusCode::OK, body))
    }
}

fn unknown_format(known: &[&str]) -> ApiError {
    let known = known.join(", ");
    let message = format!("the body of the request was in an unknown format - accepted media types include: {known}");
    ApiError::new(415, "UnsupportedMediaType", message)
}

/// Groups and core types of real servers that the sandbox leaves out.
const LEFT_OUT: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "node.k8s.io",
    "resource.k8s.io",
    "bindings",
    "componentstatuses",
    "podtemplates",
    "replicationcontrollers",
];

fn unserved(target: &Target) -> ApiError {
    let known = if target.group.is_empty() { &target.plural } else { &target.group };
    if LEFT_OUT.contains(&known.as_str()) {
        ApiError::not_simulated(&qualified(&target.group, &target.plural))
    } else {
        ApiError::no_such_path()
    }
}

/// Custom types cannot be replaced without saying what is replaced.
fn require_version(res: &Resource, write: &Write<'_>, body: &Value) -> Result<(), ApiError> {
    let version = body.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    if res.custom.is_none() || write.part == Part::Scale || !version.is_empty() {
        return Ok(());
    }
    let message = "Invalid value: 0: must be specified for an update".to_owned();
    let field = "metadata.resourceVersion".to_owned();
    let problem = super::error::Problem { field, reason: "FieldValueInvalid", message };
    Err(ApiError::invalid(&res.group, &res.plural, write.name, &[problem]))
}

fn too_large(asked: u64, current: u64) -> ApiError {
    let causes = json!([{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }]);
    ApiError::new(504, "Timeout", format!("Timeout: Too large resource version: {asked}, current: {current}"))
        .with_details(json!({ "causes": causes, "retryAfterSeconds": 1 }))
}

fn injected(code: u16) -> ApiError {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    ApiError::new(code, reason, format!("injected fault: HTTP {code}"))
}

/// Counts one request.
pub(crate) fn count(state: &mut State, verb: &str, resource: &str, agent: &str) {
    let kind = RequestKind { verb: verb.to_owned(), resource: resource.to_owned(), agent: agent.to_owned() };
    let events = resource == "events" || resource == "events.events.k8s.io";
    let counts = if events { &mut state.counts.events } else { &mut state.counts.requests };
    *counts.entry(kind).or_default() += 1;
}
