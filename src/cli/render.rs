//! `serin render`: the manifests as they would be applied to an empty cluster.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::args::RenderArgs;
use super::check::folder_of;
use super::checkout::Checkout;
use super::config::Config;
use super::output;
use crate::api::CanaryView;
use crate::domain::{Object, ObjectKey};
use crate::manifest::{ManifestSet, encode};
use crate::plan::{COMMIT_ANNOTATION, Change, DIGEST_ANNOTATION, Inventory, Policy, plan, problems_text};

/// Prints manifests on standard output and what is wrong on standard error. Exit code 1 when a file failed.
pub(super) fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let checkout = Checkout::around(&args.path)?;
    let (folder, only) = folder_of(&checkout, &args.path, args.values.as_deref(), config.as_ref())?;
    let set = folder.render(&checkout.snapshot(&folder.prefixes())?, None);
    let wanted = |file: &str| only.as_deref().is_none_or(|only| only == file);
    let problems: Vec<_> = set.problems.iter().filter(|problem| wanted(&problem.file)).cloned().collect();
    for (place, object) in in_order(&set) {
        if wanted(&place.0) {
            output::line(&format!("---\n# {}:{}\n{}", place.0, place.1, encode(&object.0).trim_end()));
        }
    }
    if !problems.is_empty() {
        output::complain(problems_text(&problems).trim_end());
    }
    let failed = problems.iter().any(|problem| problem.severity == crate::manifest::Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Objects wave by wave with the places that they came from. What the engine owns is left out where it always is.
fn in_order(set: &ManifestSet) -> Vec<((String, u32), Object)> {
    let canaries: Vec<CanaryView> = set.manifests.iter().filter_map(|manifest| canary(&manifest.object)).collect();
    let places: BTreeMap<ObjectKey, (String, u32)> =
        set.manifests.iter().map(|manifest| (manifest.object.key(), (manifest.file.clone(), manifest.line))).collect();
    let plan = plan(set, &|_| None, &Inventory::default(), &canaries, &Policy::default(), None);
    let mut objects = Vec::new();
    for change in plan.waves.into_iter().flatten() {
        if let Change::Apply { mut object, .. } = change {
            // They are of the cluster, not of the file.
            without(&mut object, &[COMMIT_ANNOTATION, DIGEST_ANNOTATION]);
            let place = places.get(&object.key()).cloned().unwrap_or_default();
            objects.push((place, object));
        }
    }
    objects
}

fn without(object: &mut Object, names: &[&str]) {
    let Some(metadata) = object.0.get_mut("metadata").and_then(serde_json::Value::as_object_mut) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(serde_json::Value::as_object_mut) else { return };
    for name in names {
        annotations.remove(*name);
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// A Canary of the rendering.
pub(super) fn canary(object: &Object) -> Option<CanaryView> {
    (object.gvk().group_kind() == ("flagger.app", "Canary")).then(|| CanaryView::from_object(object).ok()).flatten()
}
