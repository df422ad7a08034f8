//! The stories of `tests/scenarios`, played on a real cluster: the files that the sandbox plays, with the same words for
//! what happens and the same look at the end.
//!
//! The repository lies in Gitea, the pods are podinfo with faults in place of `web.behaviour`, users come in by Envoy, and
//! all of them must be answered. A story says with `bed` that it is played here.

mod gate;
mod people;
mod shape;
mod stage;
mod witness;

#[path = "../../it/scenarios/end.rs"]
mod end;
#[path = "../../it/scenarios/files.rs"]
mod files;
#[path = "../../it/scenarios/story.rs"]
#[expect(dead_code, reason = "what only the sandbox reads")]
mod story;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use self::story::{Often, Story};
use crate::runner::Test;
use crate::world::Parts;

/// The stories that the bed plays, each a test.
pub(crate) fn tests() -> anyhow::Result<Vec<Test>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut tests = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file)?;
        let story: Story =
            serde_saphyr::from_str(&text).with_context(|| format!("reading the story {}", file.display()))?;
        let Some(how) = story.bed.clone() else { continue };
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // As long as the harness runs.
        let name: &'static str = Box::leak(format!("stories::{stem}").into_boxed_str());
        let story = Arc::new(story);
        let run = move |bed| {
            let (story, stem) = (story.clone(), stem.clone());
            let played: futures::future::LocalBoxFuture<'static, anyhow::Result<()>> =
                Box::pin(async move { stage::play(&bed, &story, &stem, number).await });
            played
        };
        tests.push(Test::new(name, Parts::ALL, run).when_asked(how.when == Often::Asked));
    }
    Ok(tests)
}
