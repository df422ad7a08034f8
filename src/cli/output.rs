//! Words to the terminal: the one place that prints.

use std::io::{IsTerminal as _, Write as _};

/// A colour of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Bold,
    Red,
    Green,
    Yellow,
    Cyan,
    Grey,
}

/// Prints a line. A reader that went away is no error of ours.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// Prints a line for people to standard error.
pub(crate) fn complain(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Text in a colour, where standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    let plain = colour == Colour::Plain || !std::io::stdout().is_terminal();
    if plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Plain => "0",
        Colour::Bold => "1",
        Colour::Red => "31",
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Cyan => "36",
        Colour::Grey => "90",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
