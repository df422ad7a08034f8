//! From tokens to a tree.

use super::functions::is_function;
use super::lex::{Kind, Piece, Token, pieces};
use super::{Fault, Model, syntax, unsupported};

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(String),
    /// What is shown, or assigned.
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    With {
        value: Pipeline,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Range {
        over: Pipeline,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Break,
    Continue,
}

/// Commands, each of which gets the value before it, and the variables that the last value goes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    /// `:=`, not `=`.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A value with the fields behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) term: Term,
    pub(super) fields: Vec<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    Function(String),
    Variable(String),
    Dot,
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Pipeline(Box<Pipeline>),
}

/// Deepest nesting of blocks and parentheses: templates are hostile, and the stack is not endless.
const DEPTH: usize = 50;

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser { pieces: pieces(text)?, at: 0, end: text.len() };
    let (nodes, end) = parser.nodes(0, false)?;
    match end {
        Stop::Text => Ok(nodes),
        Stop::Else(at, _) => syntax(at, "unexpected {{else}}"),
        Stop::End(at) => syntax(at, "unexpected {{end}}"),
    }
}

/// What a list of nodes ends with.
enum Stop {
    Text,
    /// With what stands behind `else`.
    Else(usize, Vec<Token>),
    End(usize),
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
    end: usize,
}

impl Parser {
    fn nodes(&mut self, depth: usize, in_range: bool) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at).cloned() {
            self.at += 1;
            let (at, tokens) = match piece {
                Piece::Literal(text) => {
                    nodes.push(Node::Literal(text));
                    continue;
                }
                Piece::Action { at, tokens } => (at, tokens),
            };
            if depth > DEPTH {
                return syntax(at, "blocks are nested too deeply");
            }
            let word = match tokens.first() {
                Some(Token { kind: Kind::Word(word), .. }) => word.as_str(),
                _ => "",
            };
            let rest = tokens.get(1..).unwrap_or_default();
            match word {
                "if" | "with" | "range" => nodes.push(self.block(word, at, rest, depth, in_range)?),
                "else" => return Ok((nodes, Stop::Else(at, rest.to_vec()))),
                "end" if rest.is_empty() => return Ok((nodes, Stop::End(at))),
                "end" => return syntax(at, "unexpected operand in end"),
                "break" | "continue" if !in_range => {
                    return syntax(at, format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => return unsupported(at, word),
                _ => nodes.push(Node::Action(pipeline(at, &tokens, depth)?)),
            }
        }
        Ok((nodes, Stop::Text))
    }

    /// An `if`, `with` or `range` up to its `end`.
    fn block(&mut self, word: &str, at: usize, tokens: &[Token], depth: usize, in_range: bool) -> Result<Node, Fault> {
        let value = pipeline(at, tokens, depth)?;
        if value.variables.len() > usize::from(word == "range") + 1 {
            return syntax(at, "too many declarations in command");
        }
        let (then, end) = self.nodes(depth + 1, in_range || word == "range")?;
        let otherwise = match end {
            Stop::Text => return syntax(self.end, "unexpected EOF"),
            Stop::End(_) => Vec::new(),
            Stop::Else(_, rest) if rest.is_empty() => match self.nodes(depth + 1, in_range)? {
                (nodes, Stop::End(_)) => nodes,
                (_, Stop::Else(at, _)) => return syntax(at, "expected end; found {{else}}"),
                (_, Stop::Text) => return syntax(self.end, "unexpected EOF"),
            },
            // `{{else if}}` is an `if` of its own that shares the `end`.
            Stop::Else(at, rest) => match &rest.first().map(|token| &token.kind) {
                Some(Kind::Word(next)) if next == word && word != "range" => {
                    vec![self.block(word, at, rest.get(1..).unwrap_or_default(), depth + 1, in_range)?]
                }
                _ => return syntax(at, "unexpected operand in else"),
            },
        };
        Ok(match word {
            "if" => Node::If { condition: value, then, otherwise },
            "with" => Node::With { value, then, otherwise },
            _ => Node::Range { over: value, body: then, otherwise },
        })
    }
}

fn pipeline(at: usize, tokens: &[Token], depth: usize) -> Result<Pipeline, Fault> {
    if depth > DEPTH {
        return syntax(at, "parentheses are nested too deeply");
    }
    let kind = |index: usize| tokens.get(index).map(|token| &token.kind);
    let (variables, declares, skip) = match (kind(0), kind(1), kind(2), kind(3)) {
        (Some(Kind::Variable(name)), Some(sign @ (Kind::Declare | Kind::Assign)), ..) => {
            (vec![name.clone()], *sign == Kind::Declare, 2)
        }
        (
            Some(Kind::Variable(one)),
            Some(Kind::Comma),
            Some(Kind::Variable(two)),
            Some(sign @ (Kind::Declare | Kind::Assign)),
        ) => (vec![one.clone(), two.clone()], *sign == Kind::Declare, 4),
        _ => (Vec::new(), false, 0),
    };
    let mut rest = tokens.get(skip..).unwrap_or_default();
    let mut commands = vec![Vec::new()];
    while let Some(token) = rest.first() {
        if token.kind == Kind::Pipe {
            commands.push(Vec::new());
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let (operand, behind) = operand(rest, depth)?;
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
        rest = behind;
    }
    if commands.iter().any(Vec::is_empty) {
        return syntax(at, "missing value for command");
    }
    Ok(Pipeline { at, variables, declares, commands })
}

/// One operand with the fields that stick to it.
fn operand(tokens: &[Token], depth: usize) -> Result<(Operand, &[Token]), Fault> {
    let Some((first, mut rest)) = tokens.split_first() else { return syntax(0, "missing value for command") };
    let mut end = first.end;
    let mut fields = Vec::new();
    let term = match &first.kind {
        Kind::Word(word) => match word.as_str() {
            "true" => Term::Bool(true),
            "false" => Term::Bool(false),
            "nil" => Term::Nil,
            _ if is_function(word) || Model::NAMES.contains(&word.as_str()) => Term::Function(word.clone()),
            _ => return syntax(first.at, format!("function {word:?} not defined")),
        },
        Kind::Variable(name) => Term::Variable(name.clone()),
        Kind::Field(name) => {
            fields.push(name.clone());
            Term::Dot
        }
        Kind::Dot => Term::Dot,
        Kind::Text(text) => Term::Text(text.clone()),
        Kind::Int(number) => Term::Int(*number),
        Kind::Float(number) => Term::Float(*number),
        Kind::Open => {
            let close = closing(rest).ok_or((first.at, super::Problem::Syntax("unclosed left paren".to_owned())))?;
            let inner = pipeline(first.at, rest.get(..close).unwrap_or_default(), depth + 1)?;
            end = rest.get(close).map_or(end, |token| token.end);
            rest = rest.get(close + 1..).unwrap_or_default();
            Term::Pipeline(Box::new(inner))
        }
        Kind::Close => return syntax(first.at, "unexpected right paren"),
        Kind::Pipe | Kind::Comma | Kind::Declare | Kind::Assign => {
            return syntax(first.at, "unexpected sign in operand");
        }
    };
    while let [Token { at, end: behind, kind: Kind::Field(name) }, tail @ ..] = rest
        && *at == end
    {
        fields.push(name.clone());
        (end, rest) = (*behind, tail);
    }
    Ok((Operand { at: first.at, end, term, fields }, rest))
}

/// Index of the parenthesis that closes the one before these tokens.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 1usize;
    tokens.iter().position(|token| {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}
