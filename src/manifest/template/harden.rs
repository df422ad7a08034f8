//! A parsed template made safe to render: only known helpers, every value written through one helper, every block body
//! counted.

use std::collections::BTreeSet;

use handlebars::Template;
use handlebars::template::{HelperTemplate, Parameter, Subexpression, TemplateElement};
use serde_json::json;

use super::super::Place;
use super::super::decode::{Refusal, START};
use super::helpers::{BLOCKS, CALLS, PRESENT, STEP, VALUE};

/// What a template needs: partials with the depth of the blocks around them, and the depth of its own blocks.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) depth: usize,
    pub(super) partials: Vec<(String, usize, Place)>,
}

/// Checks and rewrites a template. `unit` is the cost of one parameter, which grows with the size of the values,
/// because Handlebars copies them.
pub(super) fn harden(template: &mut Template, known: &BTreeSet<String>, unit: u64) -> Result<Shape, Refusal> {
    let mut shape = Shape::default();
    body(template, known, unit, 1, &mut shape)?;
    Ok(shape)
}

fn body(
    template: &mut Template,
    known: &BTreeSet<String>,
    unit: u64,
    depth: usize,
    shape: &mut Shape,
) -> Result<(), Refusal> {
    shape.depth = shape.depth.max(depth);
    let places: Vec<Place> =
        template.mapping.iter().map(|m| Place { line: to_u32(m.0), column: to_u32(m.1) }).collect();
    let mut cost = 1;
    for (index, element) in template.elements.iter_mut().enumerate() {
        let place = places.get(index).copied().unwrap_or(START);
        let refuse = |message: &str| Refusal::new(place, message);
        match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
            TemplateElement::Expression(call) => {
                cost += parameters(call, place)? * unit;
                rewrite(call);
            }
            TemplateElement::HelperBlock(block) => {
                let name = block.name.as_name().unwrap_or_default().to_owned();
                if !BLOCKS.contains(&name.as_str()) {
                    return Err(refuse(&format!("there is no block helper `{name}`"))
                        .help(format!("blocks are: {}", BLOCKS.join(", "))));
                }
                cost += arguments(block, place)? * unit;
                for inner in [&mut block.template, &mut block.inverse].into_iter().flatten() {
                    body(inner, known, unit, depth + 1, shape)?;
                }
            }
            TemplateElement::PartialExpression(partial) => {
                let name = match &partial.name {
                    Parameter::Subexpression(_) => {
                        return Err(refuse("the name of a partial must be written out, not computed")
                            .help("choose with {{#if}} between partials that are named"));
                    }
                    name => name.as_name().unwrap_or_default().to_owned(),
                };
                if !known.contains(&name) {
                    return Err(missing_partial(place, &name, known));
                }
                for parameter in partial.params.iter_mut().chain(partial.hash.values_mut()) {
                    cost += parameter_cost(parameter, place)? * unit;
                }
                cost += unit;
                shape.partials.push((name, depth, place));
            }
            TemplateElement::HtmlExpression(_) => {
                return Err(refuse("`{{{ }}}` and `{{& }}` are not supported").help("write {{x}} or {{toYaml x}}"));
            }
            TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) => {
                return Err(refuse("decorators such as `{{*inline}}` are not supported")
                    .help("put the text in a file under partials/"));
            }
            TemplateElement::PartialBlock(_) => {
                return Err(refuse("partial blocks (`{{#> }}`) are not supported").help("use {{> name key=value}}"));
            }
            _ => return Err(refuse("this kind of tag is not supported")),
        }
    }
    insert_step(template, cost);
    Ok(())
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn missing_partial(place: Place, name: &str, known: &BTreeSet<String>) -> Refusal {
    let refusal = Refusal::new(place, format!("there is no partial `{name}`"));
    let near = known.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    match near.filter(|near| strsim::jaro(near, name) > 0.7) {
        Some(near) => refusal.help(format!("did you mean `{near}`?")),
        None => refusal
            .help(format!("partials are the files partials/NAME.hbs under the source's path: add partials/{name}.hbs")),
    }
}

/// Checks an expression and gives its cost: its parameters, or the name where that is the value.
fn parameters(call: &mut HelperTemplate, place: Place) -> Result<u64, Refusal> {
    if call.params.is_empty() && call.hash.is_empty() {
        return parameter_cost(&mut call.name, place);
    }
    known_call(call, place)?;
    arguments(call, place)
}

fn known_call(call: &HelperTemplate, place: Place) -> Result<(), Refusal> {
    let name = call.name.as_name().unwrap_or_default();
    if CALLS.contains(&name) {
        return Ok(());
    }
    let refusal = Refusal::new(place, format!("there is no helper `{name}`"));
    let near = CALLS.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    Err(match near.filter(|near| strsim::jaro(near, name) > 0.8) {
        Some(near) => refusal.help(format!("did you mean `{near}`?")),
        None => refusal.help(format!("helpers are: {}", CALLS.join(", "))),
    })
}

/// Checks the parameters of a call and gives their cost. A value that is missing is an error everywhere but in the
/// first parameter of `default` and `require`; Handlebars itself lets some through, as in `(or missing x)`.
fn arguments(call: &mut HelperTemplate, place: Place) -> Result<u64, Refusal> {
    let optional = matches!(call.name.as_name(), Some("default" | "require"));
    let blocks = call.block;
    let mut cost = 0;
    for (index, parameter) in call.params.iter_mut().chain(call.hash.values_mut()).enumerate() {
        cost += parameter_cost(parameter, place)?;
        // Blocks need the path of their parameter, and refuse what is missing by themselves.
        let may_miss = blocks || (optional && index == 0);
        let looks_up = matches!(parameter, Parameter::Subexpression(inner) if inner_name(inner) == Some("lookup"));
        if !may_miss && (looks_up || matches!(parameter, Parameter::Path(_))) {
            let inner = std::mem::replace(parameter, Parameter::Name(String::new()));
            let name = Parameter::Name(PRESENT.to_owned());
            *parameter =
                Parameter::Subexpression(Subexpression::new(name, vec![inner], std::collections::HashMap::new()));
        }
    }
    Ok(cost)
}

fn inner_name(inner: &Subexpression) -> Option<&str> {
    match inner.as_element() {
        TemplateElement::Expression(call) => call.name.as_name(),
        _ => None,
    }
}

fn parameter_cost(parameter: &mut Parameter, place: Place) -> Result<u64, Refusal> {
    match parameter {
        Parameter::Subexpression(inner) => match &mut *inner.element {
            TemplateElement::Expression(call) => {
                known_call(call, place)?;
                Ok(1 + arguments(call, place)?)
            }
            _ => Ok(1),
        },
        _ => Ok(1),
    }
}

/// Makes `{{x}}` and `{{helper x}}` a call of the helper that writes values.
fn rewrite(call: &mut HelperTemplate) {
    let params = std::mem::take(&mut call.params);
    let hash = std::mem::take(&mut call.hash);
    let name = std::mem::replace(&mut call.name, Parameter::Name(VALUE.to_owned()));
    call.params = if params.is_empty() && hash.is_empty() {
        vec![name]
    } else {
        vec![Parameter::Subexpression(Subexpression::new(name, params, hash))]
    };
}

/// Puts the counting helper at the start of a body.
fn insert_step(template: &mut Template, cost: u64) {
    let step = Subexpression::new(
        Parameter::Name(STEP.to_owned()),
        vec![Parameter::Literal(json!(cost))],
        std::collections::HashMap::new(),
    );
    template.elements.insert(0, *step.element);
    if let Some(first) = template.mapping.first().cloned() {
        template.mapping.insert(0, first);
    }
}
