//! Prometheus, which scrapes Envoy every second, and Skipper where it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::gateway::STATS;
use super::process::{Process, Processes};
use super::skipper;
use super::world::{Limit, eventually};

/// Its address, on the node and for pods.
pub(crate) const ADDRESS: &str = "http://10.244.0.1:9090";

/// A running Prometheus, or one that was stopped.
pub(crate) struct Prometheus {
    folder: PathBuf,
    process: Mutex<Arc<Process>>,
    http: reqwest::Client,
}

impl Prometheus {
    pub(crate) async fn start(bed: &Path, processes: &Processes, http: reqwest::Client) -> anyhow::Result<Self> {
        let folder = bed.join("prometheus");
        std::fs::create_dir_all(&folder)?;
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             - {{job_name: envoy, metrics_path: /stats/prometheus, static_configs: [{{targets: ['{STATS}']}}]}}\n\
             - {{job_name: skipper, static_configs: [{{targets: ['{}']}}]}}\n",
            skipper::STATS
        );
        std::fs::write(folder.join("prometheus.yml"), text)?;
        let process = Mutex::new(processes.keep(process(&folder)?));
        let made = Self { folder, process, http };
        made.ready().await?;
        Ok(made)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        eventually("Prometheus being ready", Limit::START, async || {
            let answer = self.http.get(format!("{ADDRESS}/-/ready")).send().await?;
            answer.error_for_status().map(drop).map_err(Into::into)
        })
        .await
    }

    /// Ends it. Its data stays.
    pub(crate) async fn stop(&self, processes: &Processes) {
        let process = self.process.lock().await;
        processes.forget(&process);
        process.stop(Duration::from_secs(5)).await;
    }

    /// Starts it again.
    pub(crate) async fn again(&self, processes: &Processes) -> anyhow::Result<()> {
        *self.process.lock().await = processes.keep(process(&self.folder)?);
        self.ready().await
    }

    /// Answers of an instant query: the values, whatever their labels.
    pub(crate) async fn query(&self, query: &str) -> anyhow::Result<Vec<f64>> {
        let asked = self.http.get(format!("{ADDRESS}/api/v1/query")).query(&[("query", query)]);
        let answer: Value = asked.send().await?.error_for_status()?.json().await?;
        let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let number = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        Ok(found.iter().filter_map(number).collect())
    }
}

fn process(folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg("--web.listen-address=0.0.0.0:9090");
    Process::start("prometheus", &folder.join("prometheus.log"), command)
}
