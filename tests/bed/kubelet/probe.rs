//! Probes: an HTTP request, a connection, or a command, with the thresholds of the Kubernetes API.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{Process, output};

/// A probe with what it has seen.
#[derive(Debug)]
pub(super) struct Probing {
    how: How,
    next: Instant,
    period: Duration,
    limit: Duration,
    successes_needed: i32,
    failures_needed: i32,
    successes: i32,
    failures: i32,
    passed: bool,
}

#[derive(Debug)]
enum How {
    Http { port: u16, path: String, headers: Vec<(String, String)> },
    Tcp { port: u16 },
    Exec { command: Vec<String> },
}

impl Probing {
    pub(super) fn new(probe: &Probe, container: &Container) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let how = if let Some(http) = &probe.http_get {
            let headers = http.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
            let path = http.path.clone().unwrap_or_else(|| "/".to_owned());
            How::Http { port: port(&http.port, container), path, headers: headers.collect() }
        } else if let Some(tcp) = &probe.tcp_socket {
            How::Tcp { port: port(&tcp.port, container) }
        } else {
            let command = probe.exec.as_ref().and_then(|exec| exec.command.clone());
            How::Exec { command: command.unwrap_or_default() }
        };
        Self {
            how,
            next: Instant::now() + seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            limit: seconds(probe.timeout_seconds, 1),
            successes_needed: probe.success_threshold.unwrap_or(1),
            failures_needed: probe.failure_threshold.unwrap_or(3),
            successes: 0,
            failures: 0,
            passed: false,
        }
    }

    /// Whether it counts as passed now.
    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    /// Whether it failed as often as it may.
    pub(super) fn failed(&self) -> bool {
        self.failures >= self.failures_needed
    }

    /// Asks when it is time to.
    pub(super) async fn ask(&mut self, http: &reqwest::Client, ip: &str, process: &Process) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let well = timeout(self.limit, self.how.ask(http, ip, process)).await.unwrap_or(false);
        // Until the first success a second is long enough to wait: starting up is what tests wait for.
        self.next = now + if self.passed { self.period } else { self.period.min(Duration::from_secs(1)) };
        (self.successes, self.failures) = if well { (self.successes + 1, 0) } else { (0, self.failures + 1) };
        if self.successes >= self.successes_needed {
            self.passed = true;
        } else if self.failed() {
            self.passed = false;
        }
    }
}

impl How {
    async fn ask(&self, http: &reqwest::Client, ip: &str, process: &Process) -> bool {
        match self {
            Self::Http { port, path, headers } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                let mut request = http.get(format!("http://{ip}:{port}{slash}{path}"));
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = request.send().await;
                answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection())
            }
            Self::Tcp { port } => TcpStream::connect((ip, *port)).await.is_ok(),
            Self::Exec { command } => {
                let id = process.pid();
                let mut inside = Command::new("nsenter");
                inside.args([
                    "--net",
                    "--mount",
                    "--uts",
                    "--target",
                    &id.to_string(),
                    &format!("--root=/proc/{id}/root"),
                ]);
                inside.args(command);
                output(inside).await.is_ok()
            }
        }
    }
}

fn port(port: &IntOrString, container: &Container) -> u16 {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok()).unwrap_or(0)
        }
    };
    u16::try_from(number).unwrap_or(0)
}
