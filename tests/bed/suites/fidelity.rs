//! The real API server answers as the transcripts say that the sandbox is compared with: `tests/fidelity`.

#[path = "../../fidelity/mod.rs"]
#[expect(dead_code, reason = "the sandbox's side of the comparison is in `tests/it`")]
mod conversations;

use std::sync::Arc;

use crate::bed_test;
use crate::control_plane::STORE;
use crate::runner::Test;
use crate::world::{Bed, Parts};

pub(crate) fn tests() -> Vec<Test> {
    vec![bed_test!(Parts::API, the_real_server_answers_as_recorded).alone()]
}

/// `INSTA_UPDATE=always` writes the transcripts anew.
async fn the_real_server_answers_as_recorded(bed: Arc<Bed>) -> anyhow::Result<()> {
    conversations::real(bed.admin(), STORE).await
}
