//! Handlebars templates, rendered so that a value can never become anything but a value.
//!
//! Every `{{x}}` writes a token that no file may contain; the text is read as YAML with the tokens in it, and only then
//! do the values take the tokens' places. The rule for authors:
//!
//! * `key: {{x}}` alone and unquoted has the type of the value: a number stays a number, `"yes"` stays a string;
//! * `"{{x}}"`, `'{{x}}'`, text beside it (`{{name}}:{{tag}}`), a block scalar and a key make a string, as it is,
//!   line breaks included;
//! * maps and lists need `toYaml` or `toJson`, which write text, with every string quoted that needs it.
//!
//! Limits come before the parser and the renderer, because a stack overflow aborts the process: blocks are counted
//! before a template is parsed, partials are checked for cycles and depth before any is rendered, and each rendering
//! has a budget of steps and of bytes.

mod engine;
mod guard;
mod harden;
mod helpers;
mod tokens;

pub(super) use engine::{Engine, Loaded};
pub(super) use tokens::RESERVED;
