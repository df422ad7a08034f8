//! Errors as the API words them: `Status` objects.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

/// Why a request was refused.
#[derive(Debug, Clone, Default, PartialEq, thiserror::Error)]
#[error("{message} ({code} {reason})")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`; may be empty.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the Status object; null when there are none.
    pub details: Value,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for one object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::about(404, "NotFound", group, plural, name, format!("{} \"{name}\" not found", qualified(group, plural)))
    }

    /// 404 for a path that is not served.
    pub fn no_such_path() -> Self {
        Self { details: json!({}), ..Self::new(404, "NotFound", "the server could not find the requested resource") }
    }

    /// 409: someone else was faster.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, plural));
        Self::about(409, "Conflict", group, plural, name, message)
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, plural));
        Self::about(409, "AlreadyExists", group, plural, name, message)
    }

    /// 422 with one cause per invalid field.
    pub fn invalid(group: &str, kind: &str, name: &str, problems: &[Problem]) -> Self {
        let mut texts: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        let listed = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
        let kind_name = qualified(group, kind);
        let mut details = json!({ "name": name, "group": group, "kind": kind });
        if let Some(details) = details.as_object_mut() {
            details.retain(|_, text| text != "");
        }
        details["causes"] =
            problems.iter().map(|p| json!({ "reason": p.reason, "message": p.message, "field": p.field })).collect();
        Self { details, ..Self::new(422, "Invalid", format!("{kind_name} \"{name}\" is invalid: {listed}")) }
    }

    /// 410: the revision is forgotten.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 501: real, but not simulated.
    pub fn not_simulated(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not simulated by the sandbox"))
    }

    /// Adds or replaces `details`.
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    fn about(code: u16, reason: &'static str, group: &str, plural: &str, name: &str, message: String) -> Self {
        let mut details = json!({ "name": name, "group": group, "kind": plural });
        if group.is_empty() {
            details.as_object_mut().map(|d| d.remove("group"));
        }
        Self { details, ..Self::new(code, reason, message) }
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body::from(self.status().to_string());
        (code, [("content-type", "application/json")], body).into_response()
    }
}

/// One invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field: `spec.replicas`.
    pub field: String,
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: &'static str,
    /// What is wrong, beginning with the kind of problem.
    pub message: String,
}

impl Problem {
    /// `Invalid value: …`.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        let shown = match value {
            Value::Object(_) | Value::Array(_) => value.to_string(),
            scalar => scalar.to_string(),
        };
        Self { field: field.into(), reason: "FieldValueInvalid", message: format!("Invalid value: {shown}: {why}") }
    }

    /// `Required value`.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// `Invalid value: …: must be of type …`.
    pub fn type_invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        let shown = match value {
            Value::String(_) => "\"string\"",
            Value::Bool(_) => "\"boolean\"",
            Value::Number(n) if n.is_f64() => "\"number\"",
            Value::Number(_) => "\"integer\"",
            Value::Array(_) => "\"array\"",
            Value::Object(_) => "\"object\"",
            Value::Null => "\"null\"",
        };
        Self { field: field.into(), reason: "FieldValueTypeInvalid", message: format!("Invalid value: {shown}: {why}") }
    }

    /// `Duplicate value: …`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { field: field.into(), reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}") }
    }

    /// `Unsupported value: …`.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let list: Vec<String> = supported.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }
}

/// `plural.group`, or the plural alone for the core group.
pub(crate) fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}
