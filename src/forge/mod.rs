//! Forges: GitHub, and one that keeps what was posted. Gitea and GitLab come with the forge issue.

mod github;
mod local;

pub use github::{GithubForge, SetupError};
pub use local::LocalForge;
