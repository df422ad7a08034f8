//! Runs tests on one bed and reports like `cargo test`: one line each, then the failures with what was expected, what was
//! seen, and the tail of the logs that speak of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::{self, StreamExt as _};

use super::world::{Bed, Parts};
use super::{install, net, stories, suites};

/// Tests that run at the same time. They mostly wait.
const AT_ONCE: usize = 6;
/// A test that takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(500);

/// One test.
pub(crate) struct Test {
    /// Its suite and what holds when it passes.
    pub(crate) name: &'static str,
    /// Parts of the bed without which it is skipped.
    pub(crate) needs: Parts,
    /// Whether it disturbs others, and therefore runs when no other does.
    pub(crate) alone: bool,
    /// Whether it runs only when a filter names it.
    pub(crate) asked: bool,
    /// The test.
    pub(crate) run: Box<dyn Fn(Arc<Bed>) -> LocalBoxFuture<'static, anyhow::Result<()>>>,
}

impl Test {
    /// A test that keeps to namespaces of its own.
    pub(crate) fn new(
        name: &'static str,
        needs: Parts,
        run: impl Fn(Arc<Bed>) -> LocalBoxFuture<'static, anyhow::Result<()>> + 'static,
    ) -> Self {
        Self { name, needs, alone: false, asked: false, run: Box::new(run) }
    }

    /// The same, with the bed to itself.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The same, left out of runs that do not name it.
    pub(crate) fn when_asked(mut self, asked: bool) -> Self {
        self.asked = asked;
        self
    }
}

/// Makes a [`Test`] of an `async fn(Arc<Bed>) -> anyhow::Result<()>`, named by its module and function.
#[macro_export]
macro_rules! bed_test {
    ($needs:expr, $function:ident) => {
        $crate::runner::Test::new(
            const { $crate::runner::short(concat!(module_path!(), "::", stringify!($function))) },
            $needs,
            |bed| Box::pin($function(bed)),
        )
    };
}

/// The path without `bed::suites::`.
pub(crate) const fn short(path: &'static str) -> &'static str {
    path.split_at("bed::suites::".len()).1
}

#[derive(Args, Clone, Default)]
pub(crate) struct RunArgs {
    /// Only tests whose names contain this, also those that are kept for asking
    filter: Option<String>,
    /// Use this cluster instead of a bed; tests that need more than its API are skipped
    #[arg(long, value_name = "KUBECONFIG")]
    cluster: Option<PathBuf>,
    /// Keep the logs of all parts in this folder, also when all is well
    #[arg(long)]
    keep_logs: Option<PathBuf>,
}

pub(crate) fn list() -> anyhow::Result<()> {
    for test in suites::all()? {
        println!("{}{}", test.name, if test.asked { " (when asked)" } else { "" });
    }
    Ok(())
}

/// Runs what the filter leaves.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let chosen = |test: &Test| args.filter.as_ref().map_or(!test.asked, |filter| test.name.contains(filter.as_str()));
    let tests = suites::all()?.into_iter().filter(chosen).collect();
    play(tests, args).await
}

/// Plays the stories with these names, all of them when there are none.
pub(crate) async fn stories(names: &[String]) -> anyhow::Result<ExitCode> {
    let tests = stories::tests()?;
    let named = |test: &Test| names.is_empty() || names.iter().any(|name| test.name.ends_with(&format!("::{name}")));
    play(tests.into_iter().filter(named).collect(), RunArgs::default()).await
}

async fn play(tests: Vec<Test>, args: RunArgs) -> anyhow::Result<ExitCode> {
    if tests.is_empty() {
        return Err(anyhow!("no test has this in its name; `tests/bed/run list` lists them"));
    }
    if let Some(kubeconfig) = args.cluster {
        let folder = tempfile::tempdir()?;
        let bed = Bed::elsewhere(kubeconfig, folder.path().to_owned()).await?;
        let (there, beyond): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| Parts::API.has(test.needs));
        for test in &beyond {
            println!("test {} ... skipped: needs {} of the bed", test.name, test.needs.words());
        }
        return all(bed, there, Instant::now()).await;
    }
    let needs = tests.iter().fold(Parts::NONE, |sum, test| sum | test.needs);
    if !net::inside() {
        return outside(needs).await;
    }
    let folder = PathBuf::from(net::folder()?);
    let leash = net::leash();
    let code = tokio::select! {
        code = on_a_bed(tests, needs, folder.clone()) => code,
        () = leash => Err(anyhow!("interrupted")),
    };
    if let Some(keep) = &args.keep_logs {
        copy(&folder, keep)?;
    } else if !matches!(code, Ok(ExitCode::SUCCESS)) {
        std::fs::write(folder.join(net::KEEP), "")?;
    }
    code
}

async fn outside(needs: Parts) -> anyhow::Result<ExitCode> {
    if let Some(obstacle) = net::obstacle().await {
        // In CI a bed that cannot start is a failure; on a desk it is a fact about the desk.
        if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
            return Err(anyhow!(obstacle));
        }
        println!("skipped: {obstacle}");
        return Ok(ExitCode::SUCCESS);
    }
    install::install(&install::of(needs))?;
    net::enter().await
}

async fn on_a_bed(tests: Vec<Test>, needs: Parts, folder: PathBuf) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let bed = Bed::start(needs, folder).await?;
    println!("bed ready in {:.1} s; running {} tests", begin.elapsed().as_secs_f64(), tests.len());
    all(bed, tests, begin).await
}

/// Runs them, prints what became of them, and ends the bed.
async fn all(bed: Arc<Bed>, tests: Vec<Test>, begin: Instant) -> anyhow::Result<ExitCode> {
    let (alone, together): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| test.alone);
    let mut failed = Vec::new();
    let mut passed = 0;
    let first = stream::iter(together).map(|test| one(bed.clone(), test)).buffer_unordered(AT_ONCE);
    let then = stream::iter(alone).then(|test| one(bed.clone(), test));
    let mut results = std::pin::pin!(first.chain(then));
    while let Some((name, took, result)) = results.next().await {
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", took.as_secs_f64());
        match result {
            Ok(()) => passed += 1,
            Err(error) => {
                // At once: the whole takes minutes, and who waits wants to know.
                println!("{error:#}\n");
                failed.push(name);
            }
        }
    }
    for process in bed.processes.dead() {
        let code = process.exit_code().unwrap_or_default();
        println!("{} of the bed ended with {code}:\n{}", process.name, process.tail(20));
        failed.push("a part of the bed ended");
    }
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let took = begin.elapsed().as_secs_f64();
    println!("\ntest result: {word}. {passed} passed; {} failed; finished in {took:.0} s", failed.len());
    bed.stop().await;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(bed: Arc<Bed>, test: Test) -> (&'static str, Duration, anyhow::Result<()>) {
    let start = Instant::now();
    let guarded = std::panic::AssertUnwindSafe((test.run)(bed)).catch_unwind();
    let result = match tokio::time::timeout(LIMIT, guarded).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow!("it panicked, see above")),
        Err(_) => Err(anyhow!("it took longer than {} s", LIMIT.as_secs())),
    };
    (test.name, start.elapsed(), result)
}

/// Copies the logs, not the data.
fn copy(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
