//! Gitea: a real forge, spoken to by its API as people do it (users, repositories, merges, protection, statuses).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::install::{self, binary};
use super::process::{Process, Processes, output};
use super::world::{Limit, eventually};

/// Its address on the node.
pub(crate) const ADDRESS: &str = "http://127.0.0.1:3000";
/// The organisation that owns the repositories.
pub(crate) const OWNER: &str = "acme";
/// The user by whose token serin works: no administrator.
const ROBOT: &str = "serin-bot";
/// A person, who may do everything.
const PERSON: &str = "ada";
const PASSWORD: &str = "of-the-bed-1";
/// `nobody`: Gitea refuses to run as root.
const USER: u32 = 65534;

/// A running Gitea, or one that was stopped.
pub(crate) struct Gitea {
    folder: PathBuf,
    process: Mutex<Arc<Process>>,
    http: reqwest::Client,
    /// The token of the user that serin is.
    pub(crate) token: String,
}

impl Gitea {
    pub(crate) async fn start(bed: &Path, processes: &Processes, http: reqwest::Client) -> anyhow::Result<Self> {
        let folder = bed.join("gitea");
        let program = folder.join("program");
        std::fs::create_dir_all(&program)?;
        std::fs::create_dir_all(folder.join("data"))?;
        // The cache folder may be one that only root can enter.
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(install::folder("gitea")?).arg(&program);
        output(mount).await?;
        binary("gitea", "gitea")?;
        std::fs::write(folder.join("app.ini"), settings(&folder))?;
        let mut owner = Command::new("chown");
        owner.arg(format!("{USER}:{USER}")).arg(&folder).arg(folder.join("app.ini")).arg(folder.join("data"));
        output(owner).await?;
        output(command(&folder, &["migrate"])).await.context("making Gitea's database")?;
        let person = ["admin", "user", "create", "--admin", "--must-change-password=false", "--username", PERSON];
        let mut create = command(&folder, &person);
        create.args(["--password", PASSWORD, "--email", "ada@example.com"]);
        output(create).await.context("making a user of Gitea")?;
        let process = Mutex::new(processes.keep(process(&folder)?));
        let mut made = Self { folder, process, http, token: String::new() };
        made.ready().await?;
        made.furnish().await.context("furnishing Gitea")?;
        Ok(made)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        eventually("Gitea being ready", Limit::START, async || {
            let answer = self.http.get(format!("{ADDRESS}/api/healthz")).send().await?;
            answer.error_for_status().map(drop).map_err(Into::into)
        })
        .await
    }

    /// The organisation, and the user of serin with a token that may do no more than it needs.
    async fn furnish(&mut self) -> anyhow::Result<()> {
        self.ask(Method::POST, "orgs", Some(json!({"username": OWNER}))).await?;
        let user = json!({"username": ROBOT, "email": "serin@example.com", "password": PASSWORD, "must_change_password": false});
        self.ask(Method::POST, "admin/users", Some(user)).await?;
        let token = json!({"name": "bed", "scopes": ["write:repository"]});
        let asked = self.http.post(format!("{ADDRESS}/api/v1/users/{ROBOT}/tokens"));
        let answer = asked.basic_auth(ROBOT, Some(PASSWORD)).json(&token).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        answer["sha1"].as_str().context("an answer without a token")?.clone_into(&mut self.token);
        Ok(())
    }

    /// One request of the person; an error with Gitea's words unless it succeeds.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut asked = self.http.request(method.clone(), format!("{ADDRESS}/api/v1/{path}"));
        asked = asked.basic_auth(PERSON, Some(PASSWORD));
        if let Some(body) = &body {
            asked = asked.json(body);
        }
        let answer = asked.send().await.with_context(|| format!("asking Gitea: {method} {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("asking Gitea: {method} {path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
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

    /// Makes a private repository with one commit, to which serin's user may push.
    pub(crate) async fn repository(&self, name: &str) -> anyhow::Result<Repository<'_>> {
        self.make(name, true).await
    }

    /// The same without a commit.
    pub(crate) async fn empty_repository(&self, name: &str) -> anyhow::Result<Repository<'_>> {
        self.make(name, false).await
    }

    async fn make(&self, name: &str, init: bool) -> anyhow::Result<Repository<'_>> {
        let wanted = json!({"name": name, "private": true, "auto_init": init, "default_branch": "main"});
        self.ask(Method::POST, &format!("orgs/{OWNER}/repos"), Some(wanted)).await?;
        let right = json!({"permission": "write"});
        self.ask(Method::PUT, &format!("repos/{OWNER}/{name}/collaborators/{ROBOT}"), Some(right)).await?;
        Ok(Repository { gitea: self, name: name.to_owned() })
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "WORK_PATH = {folder}\nRUN_MODE = prod\n\
         [server]\nHTTP_ADDR = 0.0.0.0\nHTTP_PORT = 3000\nROOT_URL = {ADDRESS}/\nSTATIC_ROOT_PATH = {folder}/program\n\
         APP_DATA_PATH = {folder}/data\nDISABLE_SSH = true\nOFFLINE_MODE = true\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {folder}/data/gitea.db\nSQLITE_JOURNAL_MODE = WAL\n\
         [repository]\nROOT = {folder}/data/repositories\nDEFAULT_BRANCH = main\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = only-for-the-bed\nPASSWORD_HASH_ALGO = pbkdf2$1$50\n\
         [service]\nDISABLE_REGISTRATION = true\n\
         [log]\nMODE = console\nLEVEL = warn\n\
         [indexer]\nISSUE_INDEXER_TYPE = db\n[actions]\nENABLED = false\n[cron]\nENABLED = false\n\
         [webhook]\nALLOWED_HOST_LIST = *\n"
    )
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(folder.join("program/gitea"));
    command.args(args).arg("--config").arg(folder.join("app.ini")).uid(USER).gid(USER).current_dir(folder);
    command.env("USER", "nobody").env("HOME", folder.join("data"));
    command
}

fn process(folder: &Path) -> anyhow::Result<Process> {
    Process::start("gitea", &folder.join("gitea.log"), command(folder, &["web"]))
}

/// A repository.
pub(crate) struct Repository<'a> {
    gitea: &'a Gitea,
    /// Its name.
    pub(crate) name: String,
}

/// A status as Gitea has it: state and description.
pub(crate) type Status = (String, String);

impl Repository<'_> {
    /// The address by which it is cloned on the node.
    pub(crate) fn url(&self) -> String {
        format!("{ADDRESS}/{OWNER}/{}.git", self.name)
    }

    /// The same for a person, with name and password.
    pub(crate) fn url_of_a_person(&self) -> String {
        self.url().replace("://", &format!("://{PERSON}:{PASSWORD}@"))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        self.gitea.ask(method, &format!("repos/{OWNER}/{}/{path}", self.name), body).await
    }

    /// A person commits files to a branch, which is made from `main` when it is another.
    async fn put(&self, branch: &str, subject: &str, files: &[(&str, String)]) -> anyhow::Result<String> {
        let mut changes = Vec::new();
        for (path, text) in files {
            let known = self.ask(Method::GET, &format!("contents/{path}?ref=main"), None).await;
            let mut change = json!({"path": path, "content": BASE64.encode(text), "operation": "create"});
            if let Some(sha) = known.ok().as_ref().and_then(|known| known["sha"].as_str()) {
                change["operation"] = "update".into();
                change["sha"] = sha.into();
            }
            changes.push(change);
        }
        let mut body = json!({"branch": "main", "message": subject, "files": changes});
        if branch != "main" {
            body["new_branch"] = branch.into();
        }
        let done = self.ask(Method::POST, "contents", Some(body)).await?;
        Ok(done["commit"]["sha"].as_str().context("an answer without a commit")?.to_owned())
    }

    /// A person commits to `main`.
    pub(crate) async fn commit(&self, subject: &str, files: &[(&str, String)]) -> anyhow::Result<String> {
        self.put("main", subject, files).await
    }

    /// A person opens a pull request and merges it; the merge commit.
    pub(crate) async fn merge(&self, subject: &str, files: &[(&str, String)]) -> anyhow::Result<String> {
        let branch = format!("change-{}", subject.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        self.put(&branch, subject, files).await?;
        let wanted = json!({"head": branch, "base": "main", "title": subject});
        let made = self.ask(Method::POST, "pulls", Some(wanted)).await?;
        let path = format!("pulls/{}", made["number"]);
        // Gitea first looks whether it can be merged, and says "try again later" meanwhile.
        eventually("the pull request being merged", Limit::START, async || {
            self.ask(Method::POST, &format!("{path}/merge"), Some(json!({"Do": "merge", "merge_title_field": subject})))
                .await
        })
        .await?;
        let merged = self.ask(Method::GET, &path, None).await?;
        Ok(merged["merge_commit_sha"].as_str().context("a pull request without a merge commit")?.to_owned())
    }

    /// Nobody but the person may push to `main` any more.
    pub(crate) async fn protect(&self) -> anyhow::Result<()> {
        let rule = json!({"rule_name": "main", "enable_push": true, "enable_push_whitelist": true,
            "push_whitelist_usernames": [PERSON]});
        self.ask(Method::POST, "branch_protections", Some(rule)).await.map(drop)
    }

    /// The commits of `main`: id and message, newest first.
    pub(crate) async fn log(&self) -> anyhow::Result<Vec<(String, String)>> {
        let found =
            self.ask(Method::GET, "commits?sha=main&stat=false&files=false&verification=false&limit=50", None).await?;
        let of = |commit: &Value| {
            Some((commit["sha"].as_str()?.to_owned(), commit["commit"]["message"].as_str()?.to_owned()))
        };
        Ok(found.as_array().into_iter().flatten().filter_map(of).collect())
    }

    /// The files of a commit: path and id of the content. (Gitea has no id of the tree: it gives the commit's for it.)
    pub(crate) async fn tree(&self, commit: &str) -> anyhow::Result<Vec<(String, String)>> {
        let found = self.ask(Method::GET, &format!("git/trees/{commit}?recursive=true&per_page=1000"), None).await?;
        let of = |entry: &Value| Some((entry["path"].as_str()?.to_owned(), entry["sha"].as_str()?.to_owned()));
        Ok(found["tree"].as_array().context("an answer without a tree")?.iter().filter_map(of).collect())
    }

    /// The newest status of each context of a commit.
    pub(crate) async fn statuses(&self, commit: &str) -> anyhow::Result<BTreeMap<String, Status>> {
        let found = self.ask(Method::GET, &format!("commits/{commit}/status?limit=50"), None).await?;
        let text = |status: &Value, field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let all = found["statuses"].as_array().cloned().unwrap_or_default();
        let named =
            all.iter().map(|status| (text(status, "context"), (text(status, "status"), text(status, "description"))));
        Ok(named.collect())
    }

    /// All statuses ever posted on a commit, newest first, with their contexts.
    pub(crate) async fn history(&self, commit: &str) -> anyhow::Result<Vec<(String, Status)>> {
        let found = self.ask(Method::GET, &format!("commits/{commit}/statuses?limit=50"), None).await?;
        let text = |status: &Value, field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let all = found.as_array().cloned().unwrap_or_default();
        let posted = |status: &Value| (text(status, "status"), text(status, "description"));
        Ok(all.iter().map(|status| (text(status, "context"), posted(status))).collect())
    }
}
