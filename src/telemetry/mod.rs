//! Metrics of our own, and logs.

mod logging;
mod metrics;
mod secrets;

pub use logging::{LogFormat, LogSetupError, init_logging};
pub use metrics::{CONTENT_TYPE, Telemetry};
pub use secrets::{Line, LogSecrets, Redacting};
