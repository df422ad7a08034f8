//! Where the fields of documents stand in their text.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::Place;

enum Frame {
    Map { pointer: String, key: Option<(String, Place)> },
    List { pointer: String, index: usize },
}

/// Places by JSON pointer, for each document that is not empty. The text was read before, so it is known to be in
/// order and within the limits. `name` turns the text of a key into the key.
pub(super) fn places(text: &str, name: &dyn Fn(&str) -> String) -> Vec<BTreeMap<String, Place>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut current = BTreeMap::new();
    let mut stack: Vec<Frame> = Vec::new();
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        let place = Place { line: small(span.start.line()), column: small(span.start.col() + 1) };
        match event {
            Event::DocumentStart(..) => {
                current = BTreeMap::new();
                stack.clear();
            }
            Event::DocumentEnd if current.is_empty() => {}
            Event::DocumentEnd => documents.push(std::mem::take(&mut current)),
            Event::Scalar(text, style, _, tag) => {
                let empty = style == ScalarStyle::Plain
                    && tag.is_none()
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                if !(stack.is_empty() && empty) {
                    node(&mut stack, &mut current, Some(name(&text)), place);
                }
            }
            Event::Alias(_) => {
                node(&mut stack, &mut current, None, place);
            }
            Event::MappingStart(..) => {
                let pointer = node(&mut stack, &mut current, None, place);
                stack.push(Frame::Map { pointer, key: None });
            }
            Event::SequenceStart(..) => {
                let pointer = node(&mut stack, &mut current, None, place);
                stack.push(Frame::List { pointer, index: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
            }
            _ => {}
        }
    }
    documents
}

/// Notes a node: a key waits for its value, a value gets the place of its key.
fn node(stack: &mut [Frame], places: &mut BTreeMap<String, Place>, text: Option<String>, place: Place) -> String {
    let (pointer, place) = match stack.last_mut() {
        None => (String::new(), place),
        Some(Frame::Map { pointer, key }) => match key.take() {
            None => {
                *key = Some((text.unwrap_or_default(), place));
                return pointer.clone();
            }
            Some((name, place)) => (format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), place),
        },
        Some(Frame::List { pointer, index }) => {
            *index += 1;
            (format!("{pointer}/{}", *index - 1), place)
        }
    };
    places.insert(pointer.clone(), place);
    pointer
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}
