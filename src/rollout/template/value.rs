//! Values of a template.

use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nil,
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Map(BTreeMap<String, String>),
}

impl Value {
    /// Go's truth: neither false, zero nor empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Text(text) => !text.is_empty(),
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Bool(truth) => *truth,
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// As Go's `%v` prints it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Nil => "<no value>".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => crate::domain::format_float(*number),
            Self::Bool(truth) => truth.to_string(),
            Self::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }

    /// Name of its Go type.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Text(_) => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Bool(_) => "bool",
            Self::Map(_) => "map[string]string",
        }
    }
}
