//! The custom resources of `flagger.app/v1beta1` as data: what users write, what we report.
//!
//! Source: Flagger `pkg/apis/flagger/v1beta1` and its published CRDs. The CRDs in `crds/` are generated from here.

mod analysis;
pub mod canary;
pub mod crd;
pub mod number;
mod old_forms;
pub mod providers;
mod schema;
pub mod status;

pub use canary::{Analysis, Canary, CanarySpec, CanaryView, Metric, Service, TargetRef, Webhook, WebhookType};
pub use old_forms::old_forms;
pub use providers::{AlertProvider, AlertProviderSpec, MetricTemplate, MetricTemplateSpec};
pub use status::{CanaryCondition, CanaryStatus, Phase};

/// The API version of all three kinds.
pub const API_VERSION: &str = "flagger.app/v1beta1";
