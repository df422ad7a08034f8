//! Knative Services: which of their revisions is the primary is an annotation of the Service.

use serde_json::{Value, json};

use super::{ActError, Actor, VERSION_ANNOTATION};
use crate::controller::canary::observe::{recorded_version, target_key};
use crate::domain::{FieldManager, Weights};
use crate::rollout::objects::knative;
use crate::rollout::{Version, same};

impl Actor<'_> {
    /// Takes the latest revision for the primary one, and all traffic to it, in one write.
    pub(super) async fn create_knative(&self) -> Result<(), ActError> {
        let service = self.target()?;
        if knative::primary_revision(service).is_some() {
            return Ok(());
        }
        let revision = self.latest()?;
        let notes = [(VERSION_ANNOTATION, text(&self.target_version()?)?)];
        let mut patch = knative::primary_patch(revision, &notes);
        patch["spec"] = json!({"traffic": knative::traffic(service, revision, Weights::PRIMARY)});
        self.patch_target(&patch).await
    }

    /// The analysed revision becomes the primary one; its traffic follows in a step of its own.
    pub(super) async fn promote_knative(&self, version: &Version) -> Result<(), ActError> {
        let service = self.target()?;
        if recorded_version(service).as_ref() == Some(version) {
            return Ok(());
        }
        let mut notes = vec![(VERSION_ANNOTATION, text(version)?)];
        if let (Some(revision), Some(carried)) = (knative::primary_revision(service), recorded_version(service)) {
            notes.push((knative::FORMER_REVISION, json!([revision, carried]).to_string()));
        }
        self.patch_target(&knative::primary_patch(self.latest()?, &notes)).await
    }

    /// Makes the revision primary again that users had before.
    pub(super) async fn restore_knative(&self, version: &Version) -> Result<(), ActError> {
        let service = self.target()?;
        if recorded_version(service).is_some_and(|carried| same(&carried, version)) {
            return Ok(());
        }
        let former = service.annotation(knative::FORMER_REVISION).and_then(|text| serde_json::from_str(text).ok());
        let (revision, carried): (String, Version) =
            former.ok_or_else(|| ActError::Impossible("the former revision is not known".to_owned()))?;
        if !same(&carried, version) {
            return Err(ActError::Impossible(format!("revision {revision} is of another version")));
        }
        self.patch_target(&knative::primary_patch(&revision, &[(VERSION_ANNOTATION, text(&carried)?)])).await
    }

    fn latest(&self) -> Result<&str, ActError> {
        let missing = || ActError::Impossible(format!("{} has no revision yet", target_key(self.canary)));
        knative::latest_revision(self.target()?).ok_or_else(missing)
    }

    async fn patch_target(&self, patch: &Value) -> Result<(), ActError> {
        self.context.ports.cluster.patch(&target_key(self.canary), None, patch, FieldManager::Engine).await?;
        Ok(())
    }
}

fn text(version: &Version) -> Result<String, ActError> {
    serde_json::to_string(version).map_err(|error| ActError::Impossible(error.to_string()))
}
