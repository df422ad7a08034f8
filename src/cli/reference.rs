//! `docs/cli.md`, generated from the commands and their flags.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::args::Args;

const HEAD: &str = "# Commands

One binary, `serin`. This page is generated from `serin --help`.

Commands that talk to a cluster find it as kubectl does: `--kubeconfig` and `--context`, else `$KUBECONFIG`, else
`~/.kube/config`, else the service account of the pod. Colours appear on a terminal only, and not when `NO_COLOR` is set.

| exit code | meaning |
|---|---|
| 0 | done; for `plan`: nothing would change; for `run`: stopped after draining |
| 1 | something failed, or `check` found an error |
| 2 | a command line, a configuration or a secret that cannot be used as it is |
| 3 | `plan`: something would change |

";

/// The page.
fn page() -> String {
    let mut root = Args::command();
    root.build();
    let mut text = HEAD.to_owned();
    for command in visible(&root) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "* [`serin {}`](#serin-{}): {about}", command.get_name(), command.get_name()).ok();
    }
    for command in visible(&root) {
        section(&mut text, command);
    }
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn section(text: &mut String, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    writeln!(text, "\n## serin {}\n\n{about}.\n\n```text\n{usage}\n```", command.get_name()).ok();
    let arguments: Vec<&Arg> =
        command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help").collect();
    if !arguments.is_empty() {
        text.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| {} | {}{} |", names(argument), help.replace('\n', " "), extras(argument)).ok();
    }
    if let Some(more) = command.get_after_help() {
        writeln!(text, "\n{}", after(&more.to_string())).ok();
    }
}

/// `-c`, `--config CONFIG`, or the name of a positional argument.
fn names(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default().join(" ").to_string();
    let takes = argument.get_action().takes_values();
    let mut names: Vec<String> = argument.get_short().map(|short| format!("`-{short}`")).into_iter().collect();
    match argument.get_long() {
        Some(long) if takes => names.push(format!("`--{long} {}`", values.replace('|', "\\|"))),
        Some(long) => names.push(format!("`--{long}`")),
        None => names.push(format!("`{values}`")),
    }
    names.join(", ")
}

fn extras(argument: &Arg) -> String {
    let mut extras = String::new();
    let words = argument.get_possible_values();
    let words: Vec<String> =
        words.iter().filter(|word| !word.is_hide_set()).map(|word| format!("`{}`", word.get_name())).collect();
    if argument.get_action().takes_values() && !words.is_empty() {
        write!(extras, "; one of {}", words.join(", ")).ok();
    }
    let default: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if argument.get_action().takes_values() && !default.is_empty() {
        write!(extras, " (default {})", default.join(", ")).ok();
    }
    extras
}

/// The examples of a command: what is indented becomes a block.
fn after(text: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != within {
            out.push_str(if indented { "```sh\n" } else { "```\n" });
            within = indented;
        }
        writeln!(out, "{}", line.trim_start()).ok();
    }
    if within {
        out.push_str("```\n");
    }
    out.trim_end().to_owned()
}

/// `INSTA_UPDATE=always` rewrites the file, as it does for snapshots.
#[test]
fn generated_page_of_commands_is_committed() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let text = page();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        std::fs::write(&path, &text).expect("writing docs/cli.md");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is stale: run this test with INSTA_UPDATE=always", path.display());
}

#[test]
fn every_command_and_flag_explains_itself() {
    Args::command().debug_assert();
    let mut root = Args::command();
    root.build();
    for command in visible(&root) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}
