//! Keeps templates from running without end. Tera has no fuel, and a loop that writes nothing asks nobody: so, before Tera
//! compiles a template, every body that can run more than once is made to count itself, and every variable that can grow to
//! show its size.
//!
//! What is added writes nothing, stands on the line of the tag it belongs to, and keeps the tag's whitespace control:
//!
//! | in the template | becomes |
//! |---|---|
//! | `{% for … %}`, `{% block … %}`, `{% component … %}` | the tag, and `{{ __step() }}` |
//! | the start of a template that extends none | `{{ __step() }}` |
//! | `[x for y in z if c]` | `[__step_then() and (x) for y in z if __step_then() and (c)]` |
//! | `{% set x = a ~ b %}`, `{% set x %}…{% endset %}` | the tag, and `{{ __kept(value=x or none) }}` |
//!
//! Between two steps there is straight-line code alone, as long as the template; a file that includes others twice each, or
//! a component that calls itself, takes a step each time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tera::{Kwargs, State, StringInput, Tera, TeraResult, Value};

use super::rendering;
use super::scan::{self, Kind, Tag};

/// Files that include or extend one another in a row.
pub(super) const FILES_DEEP_MAX: usize = 32;
/// What begins so is ours; a fault does not show it.
pub(super) const PREFIX: &str = "__";
const STEP: &str = "__step()";
const STEP_THEN: &str = "__step_then() and (";

pub(super) fn register(tera: &mut Tera) {
    tera.register_function("__step", |_: Kwargs, _: &State| step().map(|()| Value::none()));
    tera.register_function("__step_then", |_: Kwargs, _: &State| step().map(|()| true));
    tera.register_function("__kept", kept);
    tera.register_filter("replace", replace);
    tera.register_filter("join", join);
}

fn step() -> TeraResult<()> {
    rendering::current(|rendering| rendering.step().map_err(tera::Error::message))
}

fn kept(kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    check_bytes(kwargs.get::<&Value>("value")?.map_or(0, size))?;
    Ok(Value::none())
}

/// Bytes of a text, or of the places of a list.
fn size(value: &Value) -> usize {
    match (value.as_str(), value.as_array()) {
        (Some(text), _) => text.len(),
        (None, Some(list)) => size_of_val(list),
        _ => 0,
    }
}

/// Tera's `replace`, within the bound of a value: a long text put into another one often is the longest that there can be.
fn replace(value: StringInput, kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let (from, to): (&str, StringInput) = (kwargs.must_get("from")?, kwargs.must_get("to")?);
    let is_safe = state.autoescaping_enabled() && (value.is_safe() || to.is_safe());
    let (value, to) = match is_safe {
        true => (value.rendered(state)?, to.rendered(state)?),
        false => (Cow::Borrowed(value.as_str()), Cow::Borrowed(to.as_str())),
    };
    let times = if to.len() > from.len() { value.matches(from).count() } else { 0 };
    check_bytes(value.len().saturating_add(times.saturating_mul(to.len())))?;
    let replaced = value.replace(from, &to);
    Ok(if is_safe { Value::safe_string(&replaced) } else { Value::from(replaced) })
}

/// Tera's `join`, within the bound of a value.
fn join(list: &[Value], kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let separator: Option<&Value> = kwargs.get("sep")?;
    let is_string = |value: &&Value| value.is_string();
    let mut strings = list.iter().filter(is_string).chain(separator);
    let is_safe = state.autoescaping_enabled() && strings.any(Value::is_safe);
    let text = |value: &Value| match (value.is_undefined(), is_safe) {
        (true, _) => Ok(String::new()),
        (false, true) => state.escape_if_needed(value),
        (false, false) => Ok(value.to_string()),
    };
    let separator = separator.map_or(Ok(String::new()), text)?;
    let mut joined = String::new();
    for (at, value) in list.iter().enumerate() {
        if at > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text(value)?);
        check_bytes(joined.len())?;
    }
    Ok(if is_safe { Value::safe_string(&joined) } else { Value::from(joined) })
}

fn check_bytes(bytes: usize) -> TeraResult<()> {
    rendering::current(|rendering| rendering.check_bytes(bytes).map_err(tera::Error::message))
}

/// The files that a template includes or extends.
fn links(text: &str) -> Vec<String> {
    let tags = scan::tags(text);
    let linked = tags.iter().filter(|tag| matches!(tag.keyword(), Some("include" | "extends")));
    let name = |tag: &Tag| match &tag.words.get(1)?.kind {
        Kind::Text(name) => Some(name.clone()),
        _ => None,
    };
    linked.filter_map(name).collect()
}

/// The templates at whose end more than [`FILES_DEEP_MAX`] files stand inside one another: each takes some of the stack.
pub(super) fn too_deep<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let links: BTreeMap<&str, Vec<String>> = texts.map(|(name, text)| (name, links(text))).collect();
    // Those that still reach further after so many rounds; in each, a file reaches one further than what it includes.
    let mut deep: BTreeSet<&str> = links.keys().copied().collect();
    for _ in 0..FILES_DEEP_MAX {
        let reaches = |name: &&str| links[name].iter().any(|linked| deep.contains(linked.as_str()));
        deep = deep.iter().copied().filter(reaches).collect();
        if deep.is_empty() {
            break;
        }
    }
    deep.into_iter().map(str::to_owned).collect()
}

/// The template with its guards.
pub(super) fn guarded(text: &str) -> String {
    let tags = scan::tags(text);
    let mut added: Vec<(usize, String)> = Vec::new();
    if !tags.iter().any(|tag| tag.keyword() == Some("extends")) {
        added.push((0, format!("{{{{ {STEP} }}}}")));
    }
    let mut block_sets: Vec<Option<String>> = Vec::new();
    for tag in &tags {
        comprehensions(tag, &mut added);
        let guard = match tag.keyword() {
            Some("for" | "block" | "component") => Some(STEP.to_owned()),
            Some("set" | "set_global") if tag.is_sign(2, '=') => grows(tag).then(|| kept_call(tag.name(1))),
            Some("set" | "set_global") => {
                block_sets.push(tag.name(1).map(str::to_owned));
                None
            }
            Some("endset") => Some(kept_call(block_sets.pop().flatten().as_deref())),
            _ => None,
        };
        added.extend(guard.map(|guard| {
            let end = if tag.trims_after { " -}}" } else { " }}" };
            (tag.range.end, format!("{{{{ {guard}{end}"))
        }));
    }
    // Stable: what is added at one place stays in its order.
    added.sort_by_key(|(at, _)| *at);
    let mut guarded = String::with_capacity(text.len() + added.len() * 32);
    let mut from = 0;
    for (at, text_added) in added {
        guarded.push_str(&text[from..at]);
        guarded.push_str(&text_added);
        from = at;
    }
    guarded.push_str(&text[from..]);
    guarded
}

fn kept_call(name: Option<&str>) -> String {
    name.map_or_else(|| STEP.to_owned(), |name| format!("__kept(value={name} or none)"))
}

/// Whether a value is made, not only named.
fn grows(tag: &Tag) -> bool {
    tag.words.iter().any(|word| matches!(word.kind, Kind::Sign('~' | '|' | '(' | '[' | '{' | '*')))
}

/// Adds the steps of list comprehensions: to what each element is, and to its condition.
fn comprehensions(tag: &Tag, added: &mut Vec<(usize, String)>) {
    struct Bracket {
        start: usize,
        is_comprehension: bool,
        has_condition: bool,
    }
    let mut open: Vec<Bracket> = Vec::new();
    for word in &tag.words {
        match &word.kind {
            Kind::Sign('[' | '(' | '{') => {
                open.push(Bracket { start: word.range.end, is_comprehension: false, has_condition: false });
            }
            Kind::Sign(']' | ')' | '}') => {
                if open.pop().is_some_and(|bracket| bracket.has_condition) {
                    added.push((word.range.start, ")".to_owned()));
                }
            }
            Kind::Name(name) => {
                let Some(bracket) = open.last_mut() else { continue };
                match name.as_str() {
                    "for" if !bracket.is_comprehension => {
                        bracket.is_comprehension = true;
                        added.push((bracket.start, STEP_THEN.to_owned()));
                        added.push((word.range.start, ") ".to_owned()));
                    }
                    "if" if bracket.is_comprehension && !bracket.has_condition => {
                        bracket.has_condition = true;
                        added.push((word.range.end, format!(" {STEP_THEN}")));
                    }
                    _ => {}
                }
            }
            Kind::Text(_) | Kind::Number | Kind::Sign(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_run_again_counts_itself_on_its_own_line() {
        assert_eq!(guarded("a\n"), "{{ __step() }}a\n");
        assert_eq!(
            guarded("{% extends 'x' %}{% block b -%}\n x{% endblock b %}"),
            "{% extends 'x' %}{% block b -%}{{ __step() -}}\n x{% endblock b %}"
        );
        assert_eq!(
            guarded("{% for x in [y ~ 1 for y in z if y] %}{% endfor %}"),
            "{{ __step() }}{% for x in [__step_then() and (y ~ 1 ) for y in z if __step_then() and ( y)] %}{{ __step() }}{% endfor %}"
        );
        assert_eq!(
            guarded("{% set a = 1 %}{% set b = a ~ a %}{% set c -%}x{%- endset -%} y"),
            "{{ __step() }}{% set a = 1 %}{% set b = a ~ a %}{{ __kept(value=b or none) }}{% set c -%}x{%- endset -%}{{ __kept(value=c or none) -}} y"
        );
        let text = "{% extends 'x' %}{# {% for %} #}{{ 'for' }}{% raw %}{% for %}{% endraw %}";
        assert_eq!(guarded(text), text);
    }
}
