//! Holding a canary at its promoted release while all else follows the head.

use std::sync::Arc;

use super::Rendered;
use super::identity::{CONFIG_FIELDS, own_objects};
use crate::domain::CanaryKey;

/// The head's objects with the own objects of a canary as the promoted commit renders them. Used while a condemned
/// release is at the head, and while a rebuilt cluster has no primary yet: then the promoted release is what the primary
/// is made from. `None` when one of the two renders no such canary, or the target is another one now.
pub fn hold(head: &Rendered, promoted: &Rendered, canary: &CanaryKey) -> Option<Rendered> {
    let (now, then) = (own_objects(head, canary)?, own_objects(promoted, canary)?);
    if now.target != then.target {
        return None;
    }
    let mut held = head.clone();
    let old = promoted.objects.get(&then.target)?;
    let target = held.objects.get_mut(&then.target)?;
    if let Some(template) = old.object.at("/spec/template") {
        *Arc::make_mut(&mut target.object).0.pointer_mut("/spec/template")? = template.clone();
    } else {
        *Arc::make_mut(&mut target.object).0.get_mut("spec")? = old.object.at("/spec")?.clone();
    }
    target.inputs.extend(old.inputs.iter().cloned());
    for key in then.configs.keys() {
        let old = promoted.objects.get(key)?;
        let config = held.objects.entry(key.clone()).or_insert_with(|| old.clone());
        let Some(fields) = Arc::make_mut(&mut config.object).0.as_object_mut() else { continue };
        for field in CONFIG_FIELDS {
            match old.object.0.get(field) {
                Some(value) => fields.insert(field.to_owned(), value.clone()),
                None => fields.remove(field),
            };
        }
    }
    Some(held)
}
