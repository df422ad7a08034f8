//! The bed itself: its parts answer.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::bed_test;
use crate::runner::Test;
use crate::world::{Bed, Parts, expect};

pub(crate) fn tests() -> Vec<Test> {
    vec![bed_test!(Parts::API, rights_are_real)]
}

/// A user without rights is refused, so that the rights a test grants mean something.
async fn rights_are_real(bed: Arc<Bed>) -> anyhow::Result<()> {
    bed.namespace("rights").await?;
    let theirs: Api<ConfigMap> = Api::namespaced(bed.client("nobody").await?, "rights");
    let refused = theirs.create(&PostParams::default(), &ConfigMap::default()).await;
    let code = match refused {
        Err(kube::Error::Api(status)) => status.code,
        other => anyhow::bail!("expected a refusal, got {other:?}"),
    };
    expect("code of a request without rights", &code, &403)
}
