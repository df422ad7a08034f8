//! From a tree to a [`ManifestSet`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::domain::{Object, ObjectKey};

use super::commit::{Config, differences, template_pointer, tracked};
use super::decode::{Document, Refusal, START, documents, is_json};
use super::files::{Files, classify};
use super::objects::{Content, check, check_scope, objects, problem};
use super::old_forms;
use super::places::places;
use super::scope::Scopes;
use super::template::{Engine, Loaded, RESERVED};
use super::{Facts, Input, Manifest, ManifestSet, Place, Problem};

/// Another commit, to see where a rendering depends on it.
const OTHER_COMMIT: &str = "ffffffffffffffffffffffffffffffffffffffff";

/// An object before it is checked against the others.
struct Candidate {
    manifest: Manifest,
    /// Pointers that change with the commit.
    commit_at: Vec<String>,
}

/// A file that was read: its documents with the places of their fields, mapped to the file's own lines.
struct Read {
    documents: Vec<(Document, BTreeMap<String, Place>)>,
    inputs: BTreeSet<String>,
}

/// Renders a source. Total: whatever the tree holds, it returns, with bounded work.
pub fn render(input: &Input<'_>) -> ManifestSet {
    let files = classify(input);
    let mut renderer = Renderer { input, problems: files.problems.clone(), output: 0, candidates: Vec::new() };
    renderer.read_all(&files);
    renderer.finish()
}

struct Renderer<'a, 'i> {
    input: &'a Input<'i>,
    problems: Vec<Problem>,
    output: usize,
    candidates: Vec<Candidate>,
}

impl Renderer<'_, '_> {
    fn read_all(&mut self, files: &Files) {
        let snapshot = self.input.snapshot;
        let limits = self.input.limits;
        let has_templates = files.manifests.iter().any(|file| file.ends_with(".hbs"));
        let values = if has_templates { self.values() } else { None };
        let partials: Vec<_> = files
            .partials
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), file.clone(), snapshot.text(file)?)))
            .collect();
        let values_bytes = self.input.values.and_then(|file| snapshot.text(root_relative(file))).map_or(0, str::len);
        let engine = Engine::new(&partials, values_bytes, &limits);
        for (file, refusal) in engine.broken() {
            self.problems.push(refusal.problem(&file));
        }
        for file in &files.manifests {
            let Some(text) = snapshot.text(file) else {
                let refusal = Refusal::new(START, "the file is not UTF-8 text").help("save it as UTF-8");
                self.problems.push(refusal.problem(file));
                continue;
            };
            if self.candidates.len() >= limits.objects {
                let refusal = Refusal::new(START, format!("the source has more than {} objects", limits.objects));
                self.problems.push(refusal.help("split the source; this file is not read").problem(file));
                return;
            }
            let result = if file.ends_with(".hbs") {
                let Some(values) = &values else { continue };
                self.template(&engine, file, text, values)
            } else {
                plain(text, file, &limits)
                    .map_err(|refusal| (file.clone(), refusal))
                    .and_then(|read| self.keep(file, read, None))
            };
            if let Err((file, refusal)) = result {
                self.problems.push(refusal.problem(&file));
            }
        }
    }

    /// The values of the templates; `None` after a problem, which then stands for all templates.
    fn values(&mut self) -> Option<Map<String, Value>> {
        let Some(file) = self.input.values else { return Some(Map::new()) };
        let file = root_relative(file);
        match read_values(self.input, file) {
            Ok(values) => Some(values),
            Err(refusal) => {
                self.problems.push(refusal.problem(file));
                None
            }
        }
    }

    fn template(
        &mut self,
        engine: &Engine<'_>,
        file: &str,
        text: &str,
        values: &Map<String, Value>,
    ) -> Result<(), (String, Refusal)> {
        if self.output > self.input.limits.total_output_bytes {
            let message = "the templates of the source write too much";
            return Err((file.to_owned(), Refusal::new(START, message).help("split the source")));
        }
        let facts = &self.input.facts;
        let loaded = engine.load(file, text)?;
        let (read, bytes) = self.rendered(engine, &loaded, file, values, facts)?;
        self.output += bytes;
        let other = Facts {
            commit: if facts.commit == OTHER_COMMIT { super::COMMIT_PLACEHOLDER } else { OTHER_COMMIT }.to_owned(),
            ..facts.clone()
        };
        // Only a template that can reach the variable is rendered twice.
        let reaches = |text: &str| ["serin", "this", "@root", "..", "{{.", " ."].iter().any(|word| text.contains(word));
        let partials = read.inputs.iter().filter_map(|file| self.input.snapshot.text(file));
        let again = if reaches(text) || partials.into_iter().any(reaches) {
            Some(self.rendered(engine, &loaded, file, values, &other)?.0)
        } else {
            None
        };
        self.keep(file, read, again)
    }

    fn rendered(
        &self,
        engine: &Engine<'_>,
        loaded: &Loaded<'_>,
        file: &str,
        values: &Map<String, Value>,
        facts: &Facts,
    ) -> Result<(Read, usize), (String, Refusal)> {
        let mut data = values.clone();
        data.insert("serin".to_owned(), serde_json::to_value(facts).unwrap_or_default());
        let rendered = loaded.render(&Value::Object(data))?;
        let at = |refusal: Refusal| {
            let (number, place) = rendered.origins.place(refusal.place);
            (engine.file(number, file).to_owned(), Refusal { place, ..refusal })
        };
        let mut documents = documents(&rendered.text, is_json(file), &self.input.limits).map_err(at)?;
        rendered.tokens.fill(&rendered.text, &mut documents).map_err(at)?;
        // A place in a partial says nothing about this file; the document's own place stands for it.
        let own = |place: Place| {
            let (number, place) = rendered.origins.place(place);
            (engine.file(number, file) == file).then_some(place)
        };
        let mut maps = field_places(&rendered.text, file, &|key| rendered.tokens.text(key)).into_iter();
        let documents = documents
            .into_iter()
            .map(|document| {
                let place = own(document.place).unwrap_or(START);
                let map = maps.next().unwrap_or_default();
                let map = map.into_iter().map(|(pointer, at)| (pointer, own(at).unwrap_or(place))).collect();
                (Document { place, ..document }, map)
            })
            .collect();
        let mut inputs = loaded.partials.clone();
        inputs.insert(file.to_owned());
        inputs.extend(self.input.values.map(|file| root_relative(file).to_owned()));
        Ok((Read { documents, inputs }, rendered.text.len()))
    }

    /// Takes the objects of a file; `again` is the same file rendered for another commit.
    fn keep(&mut self, file: &str, read: Read, again: Option<Read>) -> Result<(), (String, Refusal)> {
        let own = |refusal| (file.to_owned(), refusal);
        let mut others = again.map(|again| again.documents.into_iter());
        let mut kept = Vec::new();
        for (document, map) in read.documents {
            let place = document.place;
            let other = others.as_mut().map(|others| others.next().map(|(document, _)| document));
            let found = match objects(document).map_err(own)? {
                Content::Objects(found) => found,
                Content::Nothing(warning) => {
                    self.problems.push(problem(warning, file, place));
                    continue;
                }
            };
            let mut twins = match other {
                None => None,
                Some(Some(document)) => match objects(document) {
                    Ok(Content::Objects(twins)) => Some(twins.into_iter()),
                    _ => Some(Vec::new().into_iter()),
                },
                Some(None) => Some(Vec::new().into_iter()),
            };
            for (mut object, prefix) in found {
                let commit_at = match &mut twins {
                    None => Vec::new(),
                    Some(twins) => match twins.next() {
                        Some((twin, _)) => differences(&object.0, &twin.0),
                        None => vec![String::new()],
                    },
                };
                let places = own_places(&object, &map, &prefix);
                old_forms::convert(&mut object);
                let manifest = Manifest {
                    places,
                    object: object.into(),
                    file: file.to_owned(),
                    line: map.get(&prefix).map_or(place.line, |place| place.line),
                    inputs: read.inputs.clone(),
                    uses_commit: !commit_at.is_empty(),
                };
                kept.push(Candidate { manifest, commit_at });
            }
        }
        self.candidates.extend(kept);
        Ok(())
    }

    /// Checks the objects one by one and against each other.
    fn finish(mut self) -> ManifestSet {
        let objects = self.candidates.iter().map(|candidate| &*candidate.manifest.object);
        let scopes = Scopes::new(objects.clone(), self.input.scope);
        let tracked = tracked(objects);
        let mut first: BTreeMap<ObjectKey, (String, u32)> = BTreeMap::new();
        let mut manifests = Vec::new();
        for candidate in std::mem::take(&mut self.candidates) {
            let file = candidate.manifest.file.clone();
            match self.admit(candidate, &scopes, &tracked, &mut first) {
                Ok(manifest) => manifests.push(manifest),
                Err(refusal) => self.problems.push(refusal.problem(&file)),
            }
        }
        self.problems
            .sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
        self.problems.dedup();
        ManifestSet { manifests, problems: self.problems }
    }

    fn admit(
        &mut self,
        candidate: Candidate,
        scopes: &Scopes<'_>,
        tracked: &BTreeSet<Config>,
        first: &mut BTreeMap<ObjectKey, (String, u32)>,
    ) -> Result<Manifest, Refusal> {
        let Candidate { mut manifest, commit_at } = candidate;
        let mut object = Object::clone(&manifest.object);
        let place = Place { line: manifest.line, column: 1 };
        let warnings = [
            check(&mut object, &|pointer| manifest.place(pointer))?,
            check_scope(&mut object, scopes, self.input.namespaces, place)?,
        ];
        for warning in warnings.into_iter().flatten() {
            self.problems.push(problem(warning, &manifest.file, place));
        }
        manifest.object = object.into();
        commit_allowed(&manifest, &commit_at, tracked)?;
        let mut key = manifest.object.key();
        key.gvk.version.clear();
        if let Some((file, line)) = first.get(&key) {
            return Err(Refusal::new(place, format!("{key} is defined a second time; the first is {file}:{line}"))
                .help("an object belongs to one file: remove one of them"));
        }
        first.insert(key, (manifest.file.clone(), manifest.line));
        Ok(manifest)
    }
}

fn root_relative(file: &str) -> &str {
    file.trim_start_matches("./").trim_start_matches('/')
}

fn plain(text: &str, file: &str, limits: &super::Limits) -> Result<Read, Refusal> {
    let documents = documents(text, is_json(file), limits)?;
    let mut maps = field_places(text, file, &str::to_owned).into_iter();
    let documents = documents.into_iter().map(|document| (document, maps.next().unwrap_or_default())).collect();
    Ok(Read { documents, inputs: BTreeSet::from([file.to_owned()]) })
}

/// Places of fields, where anybody will ask for them.
fn field_places(text: &str, file: &str, name: &dyn Fn(&str) -> String) -> Vec<BTreeMap<String, Place>> {
    if text.contains("flagger.app") && !is_json(file) { places(text, name) } else { Vec::new() }
}

fn own_places(object: &Object, map: &BTreeMap<String, Place>, prefix: &str) -> BTreeMap<String, Place> {
    if object.gvk().group != "flagger.app" {
        return BTreeMap::new();
    }
    let own = map.iter().filter_map(|(pointer, place)| Some((pointer.strip_prefix(prefix)?.to_owned(), *place)));
    let mut own: BTreeMap<String, Place> = own.collect();
    // Under its old name the analysis is found by its present one, too.
    if object.at("/spec/analysis").is_none() {
        let renamed = own.iter().filter_map(|(pointer, place)| {
            Some((format!("/spec/analysis{}", pointer.strip_prefix("/spec/canaryAnalysis")?), *place))
        });
        let renamed: Vec<_> = renamed.collect();
        own.extend(renamed);
    }
    own
}

fn commit_allowed(manifest: &Manifest, commit_at: &[String], tracked: &BTreeSet<Config>) -> Result<(), Refusal> {
    let object = &manifest.object;
    let kind = object.gvk().kind;
    let refuse = |pointer: &str, what: &str| {
        let place = manifest.place(pointer);
        Refusal::new(
            place,
            format!("`serin.commit` stands in {what} of {}: every commit would be a release", object.key()),
        )
        .help("put it outside, such as in the object's annotations, or use an image tag")
    };
    let within = |at: &String, area: &str| at.starts_with(area) || area.starts_with(at.as_str());
    if let Some(area) = template_pointer(&kind)
        && let Some(at) = commit_at.iter().find(|at| within(at, area))
    {
        return Err(refuse(at, "the pod template"));
    }
    let config = (kind, object.namespace().unwrap_or_default().to_owned(), object.name().to_owned());
    let data = ["/data", "/stringData", "/binaryData"];
    if tracked.contains(&config)
        && let Some(at) = commit_at.iter().find(|at| data.iter().any(|area| within(at, area)))
    {
        return Err(refuse(at, "the data"));
    }
    Ok(())
}

fn read_values(input: &Input<'_>, file: &str) -> Result<Map<String, Value>, Refusal> {
    let Some(text) = input.snapshot.text(file) else {
        let message = match input.snapshot.refused.get(file) {
            Some(reason) => format!("the values file is not read: {reason}"),
            None => "the values file is missing or is not UTF-8 text".to_owned(),
        };
        return Err(Refusal::new(START, message).help("`values` in serin.yaml is relative to the repository's root"));
    };
    if let Some(line) = text.lines().position(|line| line.contains(RESERVED)) {
        let place = Place { line: u32::try_from(line + 1).unwrap_or(u32::MAX), column: 1 };
        return Err(Refusal::new(place, "the values hold a reserved character (U+FDD0 to U+FDEF)").help("remove it"));
    }
    let mut found = documents(text, is_json(file), &input.limits)?;
    let values = match (found.pop(), found.is_empty()) {
        (None, _) => Map::new(),
        (Some(Document { value: Value::Object(values), .. }), true) => values,
        (Some(document), true) => return Err(Refusal::new(document.place, "the values are not a map")),
        (Some(document), false) => {
            return Err(Refusal::new(document.place, "the values file holds more than one document"));
        }
    };
    if values.contains_key("serin") {
        return Err(Refusal::new(START, "the values set `serin`, which is a variable of serin's own")
            .help("choose another name"));
    }
    if Value::Object(values.clone()).to_string().contains(RESERVED) {
        return Err(Refusal::new(START, "the values hold a reserved character (U+FDD0 to U+FDEF)").help("remove it"));
    }
    Ok(values)
}
