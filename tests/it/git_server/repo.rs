//! A bare repository, changed by the `git` program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken test bed stops the test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

/// Who commits in tests.
pub(crate) const AUTHOR: &str = "Alice <alice@example.com>";

/// One change to a tree.
pub(crate) enum Edit<'a> {
    /// Writes a regular file.
    Write(&'a str, &'a str),
    /// Writes an entry of any mode (`100755`, `120000`, …) and content.
    Entry(&'a str, &'a str, &'a [u8]),
    /// Makes a submodule entry.
    Submodule(&'a str),
    /// Removes a file or folder.
    Remove(&'a str),
    /// Renames a file or folder.
    Rename(&'a str, &'a str),
}

/// A bare repository in a temporary folder, which goes away with the last copy of this handle.
#[derive(Clone)]
pub(crate) struct Repo {
    folder: Arc<TempDir>,
    path: PathBuf,
    time: Arc<AtomicI64>,
}

impl Repo {
    /// An empty repository with the unborn branch `main`.
    pub(crate) fn new() -> Self {
        Self::with_format("sha1")
    }

    /// The same with another object format.
    pub(crate) fn with_format(format: &str) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let path = folder.path().join("repo.git");
        let repo = Self { folder, path: path.clone(), time: Arc::new(AtomicI64::new(1_700_000_000)) };
        std::fs::create_dir(&path).unwrap();
        repo.git(&["init", "--quiet", "--bare", "--template=", "-b", "main", &format!("--object-format={format}")]);
        repo
    }

    /// The repository's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its `file` address.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// A command in the repository, with nothing of the machine's or user's settings.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .env("GIT_DIR", &self.path);
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Alice")
                .env(format!("GIT_{role}_EMAIL"), "alice@example.com")
                .env(format!("GIT_{role}_DATE"), "1700000000 +0000");
        }
        command
    }

    /// Runs git and returns its output without the last line end; a failure stops the test.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    /// Runs git with input.
    pub(crate) fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command("git");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            panic!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Commits files on a branch (made when missing) and returns the commit.
    pub(crate) fn commit(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> String {
        let edits: Vec<_> = files.iter().map(|(path, text)| Edit::Write(path, text)).collect();
        self.edit(branch, message, &edits)
    }

    /// Commits any edits on a branch.
    pub(crate) fn edit(&self, branch: &str, message: &str, edits: &[Edit<'_>]) -> String {
        let parents: Vec<String> = self.head(branch).into_iter().collect();
        self.commit_on(branch, message, &parents, edits)
    }

    /// Commits on a branch with the given parents, whatever the branch pointed at before: none makes a root commit,
    /// another one a force push, two a merge (whose tree is the first parent's with the edits).
    pub(crate) fn commit_on(&self, branch: &str, message: &str, parents: &[String], edits: &[Edit<'_>]) -> String {
        let reference = format!("refs/heads/{branch}");
        let time = self.time.fetch_add(60, Ordering::SeqCst);
        let mut script = Vec::new();
        // `from` of a root commit on an existing branch needs the branch reset first.
        if parents.is_empty() {
            script.extend(format!("reset {reference}\n\n").into_bytes());
        }
        script.extend(format!("commit {reference}\ncommitter {AUTHOR} {time} +0000\n").into_bytes());
        data(&mut script, message.as_bytes());
        for (number, parent) in parents.iter().enumerate() {
            let word = if number == 0 { "from" } else { "merge" };
            script.extend(format!("{word} {parent}\n").into_bytes());
        }
        for edit in edits {
            match edit {
                Edit::Write(path, text) => write(&mut script, "100644", path, text.as_bytes()),
                Edit::Entry(path, mode, content) => write(&mut script, mode, path, content),
                Edit::Submodule(path) => {
                    script.extend(format!("M 160000 {} {path}\n", "1".repeat(40)).into_bytes());
                }
                Edit::Remove(path) => script.extend(format!("D {path}\n").into_bytes()),
                Edit::Rename(from, to) => script.extend(format!("R {from} {to}\n").into_bytes()),
            }
        }
        self.git_with(&["fast-import", "--quiet", "--force", "--date-format=raw-permissive"], &script);
        self.head(branch).unwrap()
    }

    /// Commits on `branch` a tree of entries that git's own tools would not make: `(mode, name, content)`. An entry of
    /// mode `040000` holds the id of a tree as text.
    pub(crate) fn commit_raw(&self, branch: &str, entries: &[(&str, &[u8], &[u8])]) -> String {
        let tree = self.raw_tree(entries);
        let commit = self.git(&["commit-tree", "-m", "raw", &tree]);
        self.set(&format!("refs/heads/{branch}"), &commit);
        commit
    }

    /// Writes a tree object byte by byte; see [`Repo::commit_raw`].
    pub(crate) fn raw_tree(&self, entries: &[(&str, &[u8], &[u8])]) -> String {
        let mut tree = Vec::new();
        for (mode, name, content) in entries {
            let id = match *mode {
                "040000" => std::str::from_utf8(content).unwrap().to_owned(),
                _ => self.git_with(&["hash-object", "-w", "--stdin"], content),
            };
            tree.extend(mode.trim_start_matches('0').bytes());
            tree.push(b' ');
            tree.extend(*name);
            tree.push(0);
            tree.extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
        }
        self.git_with(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &tree)
    }

    /// Where a branch points.
    pub(crate) fn head(&self, branch: &str) -> Option<String> {
        self.target(&format!("refs/heads/{branch}"))
    }

    /// Where a ref points.
    pub(crate) fn target(&self, reference: &str) -> Option<String> {
        let id = self.git(&["for-each-ref", "--format=%(objectname)", reference]);
        (!id.is_empty()).then_some(id)
    }

    /// Points a ref somewhere, as a force push does.
    pub(crate) fn set(&self, reference: &str, target: &str) {
        self.git(&["update-ref", reference, target]);
    }

    /// Deletes a branch.
    pub(crate) fn delete(&self, branch: &str) {
        self.git(&["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    /// Content of a file, `REVISION:PATH`.
    pub(crate) fn show(&self, what: &str) -> String {
        self.git(&["show", what])
    }

    /// Subjects of a branch's first-parent line, newest first.
    pub(crate) fn log(&self, branch: &str) -> Vec<String> {
        self.git(&["log", "--first-parent", "--format=%s", branch]).lines().map(str::to_owned).collect()
    }

    /// Sets a configuration key of the repository.
    pub(crate) fn configure(&self, key: &str, value: &str) {
        self.git(&["config", key, value]);
    }

    /// Installs a hook, a shell script.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = self.path.join("hooks");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn data(script: &mut Vec<u8>, content: &[u8]) {
    script.extend(format!("data {}\n", content.len()).into_bytes());
    script.extend(content);
    script.push(b'\n');
}

fn write(script: &mut Vec<u8>, mode: &str, path: &str, content: &[u8]) {
    script.extend(format!("M {mode} inline {path}\n").into_bytes());
    data(script, content);
}
