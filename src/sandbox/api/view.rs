//! Objects as an answer shows them: whole, metadata only, or as rows of a table.

use std::sync::Arc;

use serde_json::{Value, json};

use super::types::Resource;
use super::{convert, table, watch};
use crate::domain::Object;
use crate::ports::Clock;

/// The form that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Full,
    Metadata,
    /// A table; whole objects, metadata or nothing stand in its rows.
    Table(Include),
}

/// What stands in a table's rows besides the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Object,
    Metadata,
    None,
}

/// How to show objects of one type.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) res: Arc<Resource>,
    pub(crate) version: String,
    pub(crate) format: Format,
    pub(crate) clock: Arc<dyn Clock>,
}

impl View {
    fn api_version(&self) -> String {
        self.res.api_version(&self.version)
    }

    /// One object as JSON text.
    pub(crate) fn object(&self, object: &Object) -> String {
        match self.format {
            Format::Full => convert::from_storage(&self.res, &self.version, object).to_string(),
            Format::Metadata => convert::metadata_only(object).to_string(),
            Format::Table(_) => self.table(std::iter::once(object), object.resource_version(), None).to_string(),
        }
    }

    /// A list as JSON text.
    pub(crate) fn list<'a>(
        &self,
        items: impl Iterator<Item = &'a Object>,
        revision: &str,
        more: Option<(String, usize)>,
    ) -> String {
        if let Format::Table(_) = self.format {
            return self.table(items, revision, more).to_string();
        }
        let mut meta = json!({ "resourceVersion": revision });
        if let Some((token, remaining)) = more {
            meta["continue"] = token.into();
            meta["remainingItemCount"] = remaining.into();
        }
        let (kind, api_version) = match self.format {
            Format::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (format!("{}List", self.res.kind), self.api_version()),
        };
        let mut text =
            format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[");
        for (i, object) in items.enumerate() {
            if i > 0 {
                text.push(',');
            }
            // Items of built-in lists do not repeat their type.
            if self.format == Format::Full && self.res.custom.is_none() {
                let mut value = convert::from_storage(&self.res, &self.version, object);
                if let Some(map) = value.as_object_mut() {
                    map.remove("kind");
                    map.remove("apiVersion");
                }
                text.push_str(&value.to_string());
            } else {
                text.push_str(&self.object(object));
            }
        }
        text.push_str("]}");
        text
    }

    fn table<'a>(
        &self,
        items: impl Iterator<Item = &'a Object>,
        revision: &str,
        more: Option<(String, usize)>,
    ) -> Value {
        let columns = table::columns(&self.res, &self.version);
        let now = self.clock.now();
        let rows: Vec<Value> = items
            .map(|object| {
                let mut row = json!({ "cells": table::cells(&self.res, &columns, object, now) });
                match self.format {
                    Format::Table(Include::Object) => {
                        row["object"] = convert::from_storage(&self.res, &self.version, object);
                    }
                    Format::Table(Include::None) => {}
                    _ => row["object"] = convert::metadata_only(object),
                }
                row
            })
            .collect();
        let mut meta = json!({ "resourceVersion": revision });
        if let Some((token, remaining)) = more {
            meta["continue"] = token.into();
            meta["remainingItemCount"] = remaining.into();
        }
        let definitions: Vec<Value> = columns
            .iter()
            .map(|c| {
                json!({
                    "name": c.name, "type": c.type_, "format": c.format,
                    "description": c.description, "priority": c.priority,
                })
            })
            .collect();
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
            "columnDefinitions": definitions, "rows": rows,
        })
    }

    /// A bookmark's object as JSON text.
    pub(crate) fn bookmark(&self, revision: u64, initial_end: bool) -> String {
        match self.format {
            Format::Table(_) => {
                let mut table = self.table(std::iter::empty(), &revision.to_string(), None);
                let object = watch::bookmark(&self.api_version(), &self.res.kind, revision, initial_end);
                table["rows"] = json!([{ "cells": [], "object": convert::metadata_only(&Object(object)) }]);
                table.to_string()
            }
            Format::Metadata => {
                watch::bookmark("meta.k8s.io/v1", "PartialObjectMetadata", revision, initial_end).to_string()
            }
            Format::Full => watch::bookmark(&self.api_version(), &self.res.kind, revision, initial_end).to_string(),
        }
    }
}
