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
//! Where what is written may be captured, a step says how much text its body writes if that is long, and [`written`] counts the
//! values.
//!
//! Between two steps there is straight-line code alone, as long as the template; a file that includes others twice each, or
//! a component that calls itself, takes a step each time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tera::{Kwargs, State, StringInput, Tera, TeraResult, Value};

use super::scan::{self, Kind, Tag};
use super::{rendering, written};

/// Files that include or extend one another in a row.
pub(super) const FILES_DEEP_MAX: usize = 32;
/// What begins so is ours; a fault does not show it.
pub(super) const PREFIX: &str = "__";
const STEP: &str = "__step()";
/// Text of a body that is counted; shorter ones are bounded by their steps.
const BODY_BYTES_MIN: usize = 256;
const STEP_THEN: &str = "__step_then() and (";

pub(super) fn register(tera: &mut Tera) {
    tera.register_function("__step", |kwargs: Kwargs, _: &State| {
        if let Some(bytes) = kwargs.get::<usize>("bytes")? {
            rendering::current(|rendering| rendering.wrote(bytes).map_err(tera::Error::message))?;
        }
        step().map(|()| Value::none())
    });
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
    let (value, to) = if is_safe {
        (value.rendered(state)?, to.rendered(state)?)
    } else {
        (Cow::Borrowed(value.as_str()), Cow::Borrowed(to.as_str()))
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

/// The templates at whose end more than [`FILES_DEEP_MAX`] files stand inside one another: each takes some of the stack.
pub(super) fn too_deep<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let links: BTreeMap<&str, Vec<String>> = texts.map(|(name, text)| (name, scan::links(text))).collect();
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

/// The template with its guards. `writes`: what it writes may be captured, and whether the file may be included in a loop.
pub(super) fn guarded(text: &str, writes: Option<bool>) -> String {
    let tags = scan::tags(text);
    let bodies = writes.map(|_| written::texts(text, &tags)).unwrap_or_default();
    let is_looped = writes == Some(true);
    let step = |body: usize| match bodies.get(&body) {
        Some(bytes) if *bytes >= BODY_BYTES_MIN => format!("__step(bytes={bytes})"),
        _ => STEP.to_owned(),
    };
    let mut added: Vec<(usize, String)> = Vec::new();
    if !tags.iter().any(|tag| tag.keyword() == Some("extends")) {
        let step = if is_looped { step(written::FILE) } else { STEP.to_owned() };
        added.push((0, format!("{{{{ {step} }}}}")));
    }
    let mut block_sets: Vec<Option<String>> = Vec::new();
    let mut depth = usize::from(is_looped);
    for (at, tag) in tags.iter().enumerate() {
        let after = |guard: &str| {
            let end = if tag.trims_after { " -}}" } else { " }}" };
            (tag.range.end, format!("{{{{ {guard}{end}"))
        };
        if depth > 0 && writes.is_some() {
            added.extend(written::counts(text, tag, after));
        }
        depth = written::deeper(depth, tag);
        comprehensions(tag, &mut added);
        let guard = match tag.keyword() {
            Some("for" | "component") => Some(step(at)),
            Some("block") => Some(STEP.to_owned()),
            Some("set" | "set_global") if tag.is_sign(2, '=') => grows(tag).then(|| kept_call(tag.name(1))),
            Some("set" | "set_global") => {
                block_sets.push(tag.name(1).map(str::to_owned));
                None
            }
            Some("endset") => Some(kept_call(block_sets.pop().flatten().as_deref())),
            _ => None,
        };
        added.extend(guard.map(|guard| after(&guard)));
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

    fn guarded_alone(text: &str) -> String {
        guarded(text, Some(false))
    }

    #[test]
    fn what_loops_write_is_counted() {
        assert_eq!(
            guarded_alone(
                "{{ a }}{% for x in y %}{{ x?.n[0] -}} {{ 'x' }}{{- x | f }}{{ [z for z in x] or 1 }}{% endfor %}"
            ),
            "{{ __step() }}{{ a }}{% for x in y %}{{ __step() }}{{ x?.n[0] -}}{{ __writes(value=x?.n[0] or none) -}} {{ 'x' }}\
             {{- (x | f) | __wrote }}{{ ([__step_then() and (z ) for z in x] or 1) | __wrote }}{% endfor %}"
        );
        let long = "x".repeat(300);
        assert_eq!(
            guarded(&format!("{long}{{{{ a | f }}}}"), Some(true)),
            format!("{{{{ __step(bytes=300) }}}}{long}{{{{ (a | f) | __wrote }}}}")
        );
        let uncaptured = "{% for x in y %}{{ x }}{% endfor %}";
        assert_eq!(guarded(uncaptured, None), "{{ __step() }}{% for x in y %}{{ __step() }}{{ x }}{% endfor %}");
    }

    #[test]
    fn what_can_run_again_counts_itself_on_its_own_line() {
        assert_eq!(guarded_alone("a\n"), "{{ __step() }}a\n");
        assert_eq!(
            guarded_alone("{% extends 'x' %}{% block b -%}\n x{% endblock b %}"),
            "{% extends 'x' %}{% block b -%}{{ __step() -}}\n x{% endblock b %}"
        );
        assert_eq!(
            guarded_alone("{% for x in [y ~ 1 for y in z if y] %}{% endfor %}"),
            "{{ __step() }}{% for x in [__step_then() and (y ~ 1 ) for y in z if __step_then() and ( y)] %}{{ __step() }}{% endfor %}"
        );
        assert_eq!(
            guarded_alone("{% set a = 1 %}{% set b = a ~ a %}{% set c -%}x{%- endset -%} y"),
            "{{ __step() }}{% set a = 1 %}{% set b = a ~ a %}{{ __kept(value=b or none) }}{% set c -%}x{%- endset -%}{{ __kept(value=c or none) -}} y"
        );
        let text = "{% extends 'x' %}{# {% for %} #}{{ 'for' }}{% raw %}{% for %}{% endraw %}";
        assert_eq!(guarded_alone(text), text);
    }
}
