//! Forges: GitHub, Gitea and Forgejo, and one that keeps what was posted. GitLab comes with the forge issue.

mod answer;
mod gitea;
mod github;
mod local;

pub use answer::SetupError;
pub use gitea::GiteaForge;
pub use github::GithubForge;
pub use local::LocalForge;
