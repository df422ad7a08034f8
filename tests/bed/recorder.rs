//! What the conformance suite shares with the bed: how a run is watched, put into normal form, driven and compared, all of
//! which does not know which API server it talks to; and the sandbox, for what is compared with it.

#[path = "../conformance/api.rs"]
pub(crate) mod api;
#[path = "../conformance/canon.rs"]
pub(crate) mod canon;
#[path = "../conformance/compare.rs"]
pub(crate) mod compare;
#[path = "../conformance/differences.rs"]
pub(crate) mod differences;
#[path = "../conformance/drive.rs"]
pub(crate) mod drive;
#[path = "../conformance/flags.rs"]
mod flags;
#[path = "../conformance/log.rs"]
pub(crate) mod log;
#[path = "../conformance/recording.rs"]
pub(crate) mod recording;
#[path = "../conformance/render.rs"]
pub(crate) mod render;
#[path = "../conformance/scenario.rs"]
pub(crate) mod scenario;
#[path = "../conformance/servers.rs"]
pub(crate) mod servers;
#[path = "../conformance/sim.rs"]
pub(crate) mod sim;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serin::ports::Clock;

/// The clock on the wall.
pub(crate) struct Wall;

#[async_trait]
impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        tokio::time::sleep(Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default()).await;
    }
}
