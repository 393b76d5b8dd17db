//! Inserts calls of [`super::fuel`] and [`super::output`] into templates.
//!
//! Inserted calls write nothing, stand on the line of the tag they belong to, and keep the tag's whitespace control:
//!
//! | in the template | becomes |
//! |---|---|
//! | `{% for … %}`, `{% block … %}`, `{% component … %}` | the tag, and `{{ __fuel() }}` |
//! | the start of a template that extends no other | `{{ __fuel() }}` |
//! | `[x for y in z if c]` | `[__fuel_then() and (x) for y in z if __fuel_then() and (c)]` |
//! | `{% set x = a ~ b %}`, `{% set x %}…{% endset %}` | the tag, and `{{ __check_size(value=x or none) }}` |
//!
//! Where output may be captured, `__fuel` also counts the literal text of its body if that is long, and [`output`] counts the
//! values.
//!
//! Between two calls there is only straight-line code, no longer than the template. A file that includes others, or a component
//! that calls itself, consumes fuel each time.

use std::collections::{BTreeMap, BTreeSet};

use super::fuel::{CONSUME, CONSUME_THEN, check_size_call, consume_and_count};
use super::output;
use crate::presentation::templates::tokenizer::{self, Tag, TokenKind};

/// The longest chain of files that include or extend one another.
pub(crate) const FILES_DEEP_MAX: usize = 32;
/// Names of inserted functions start with this. Faults do not show them.
pub(crate) const INTERNAL_PREFIX: &str = "__";
/// Literal text of a body is counted from this length on; fuel bounds shorter ones.
const BODY_BYTES_MIN: usize = 256;

/// The templates that start a chain of more than [`FILES_DEEP_MAX`] files: each file takes some of the stack.
pub(crate) fn nested_too_deep<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let links: BTreeMap<&str, Vec<String>> = texts.map(|(name, text)| (name, tokenizer::links(text))).collect();
    // Each round removes the files whose chain ends, and so shortens every chain by one.
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

/// The instrumented template. `captured_in_loop` is `None` if its output is never captured, and otherwise whether the file may be
/// included in a loop.
pub(crate) fn instrumented(text: &str, captured_in_loop: Option<bool>) -> String {
    let tags = tokenizer::tags(text);
    let bodies = captured_in_loop.map(|_| output::literal_bytes(text, &tags)).unwrap_or_default();
    let is_looped = captured_in_loop == Some(true);
    let consume = |body: usize| match bodies.get(&body) {
        Some(bytes) if *bytes >= BODY_BYTES_MIN => consume_and_count(*bytes),
        _ => CONSUME.to_owned(),
    };
    let mut added: Vec<(usize, String)> = Vec::new();
    if !tags.iter().any(|tag| tag.keyword() == Some("extends")) {
        let call = if is_looped { consume(output::FILE) } else { CONSUME.to_owned() };
        added.push((0, format!("{{{{ {call} }}}}")));
    }
    let mut block_sets: Vec<Option<String>> = Vec::new();
    let mut depth = usize::from(is_looped);
    for (at, tag) in tags.iter().enumerate() {
        let after = |call: &str| {
            let end = if tag.trims_after { " -}}" } else { " }}" };
            (tag.range.end, format!("{{{{ {call}{end}"))
        };
        if depth > 0 && captured_in_loop.is_some() {
            added.extend(output::counting_calls(text, tag, after));
        }
        depth = output::depth_after(depth, tag);
        comprehensions(tag, &mut added);
        let call = match tag.keyword() {
            Some("for" | "component") => Some(consume(at)),
            Some("block") => Some(CONSUME.to_owned()),
            Some("set" | "set_global") if tag.is_sign(2, '=') => grows(tag).then(|| check_size_call(tag.name(1))),
            Some("set" | "set_global") => {
                block_sets.push(tag.name(1).map(str::to_owned));
                None
            }
            Some("endset") => Some(check_size_call(block_sets.pop().flatten().as_deref())),
            _ => None,
        };
        added.extend(call.map(|call| after(&call)));
    }
    // The sort is stable: calls at the same position keep their order.
    added.sort_by_key(|(at, _)| *at);
    let mut out = String::with_capacity(text.len() + added.len() * 32);
    let mut from = 0;
    for (at, text_added) in added {
        out.push_str(&text[from..at]);
        out.push_str(&text_added);
        from = at;
    }
    out.push_str(&text[from..]);
    out
}

/// Whether an assignment creates a value instead of only naming one.
fn grows(tag: &Tag) -> bool {
    tag.tokens.iter().any(|token| matches!(token.kind, TokenKind::Sign('~' | '|' | '(' | '[' | '{' | '*')))
}

/// Instruments list comprehensions: the expression of each element, and the condition.
fn comprehensions(tag: &Tag, added: &mut Vec<(usize, String)>) {
    struct Bracket {
        start: usize,
        is_comprehension: bool,
        has_condition: bool,
    }
    let mut open: Vec<Bracket> = Vec::new();
    for token in &tag.tokens {
        match &token.kind {
            TokenKind::Sign('[' | '(' | '{') => {
                open.push(Bracket { start: token.range.end, is_comprehension: false, has_condition: false });
            }
            TokenKind::Sign(']' | ')' | '}') => {
                if open.pop().is_some_and(|bracket| bracket.has_condition) {
                    added.push((token.range.start, ")".to_owned()));
                }
            }
            TokenKind::Name(name) => {
                let Some(bracket) = open.last_mut() else { continue };
                match name.as_str() {
                    "for" if !bracket.is_comprehension => {
                        bracket.is_comprehension = true;
                        added.push((bracket.start, CONSUME_THEN.to_owned()));
                        added.push((token.range.start, ") ".to_owned()));
                    }
                    "if" if bracket.is_comprehension && !bracket.has_condition => {
                        bracket.has_condition = true;
                        added.push((token.range.end, format!(" {CONSUME_THEN}")));
                    }
                    _ => {}
                }
            }
            TokenKind::Text(_) | TokenKind::Number | TokenKind::Sign(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instrumented_captured(text: &str) -> String {
        instrumented(text, Some(false))
    }

    #[test]
    fn captured_output_of_loops_is_counted() {
        assert_eq!(
            instrumented_captured(
                "{{ a }}{% for x in y %}{{ x?.n[0] -}} {{ 'x' }}{{- x | f }}{{ [z for z in x] or 1 }}{% endfor %}"
            ),
            "{{ __fuel() }}{{ a }}{% for x in y %}{{ __fuel() }}{{ x?.n[0] -}}{{ __count_output(value=x?.n[0] or none) -}} {{ 'x' }}\
             {{- (x | f) | __count_output }}{{ ([__fuel_then() and (z ) for z in x] or 1) | __count_output }}{% endfor %}"
        );
        let long = "x".repeat(300);
        assert_eq!(
            instrumented(&format!("{long}{{{{ a | f }}}}"), Some(true)),
            format!("{{{{ __fuel(bytes=300) }}}}{long}{{{{ (a | f) | __count_output }}}}")
        );
        let uncaptured = "{% for x in y %}{{ x }}{% endfor %}";
        assert_eq!(instrumented(uncaptured, None), "{{ __fuel() }}{% for x in y %}{{ __fuel() }}{{ x }}{% endfor %}");
    }

    #[test]
    fn bodies_that_can_repeat_consume_fuel_on_their_own_line() {
        assert_eq!(instrumented_captured("a\n"), "{{ __fuel() }}a\n");
        assert_eq!(
            instrumented_captured("{% extends 'x' %}{% block b -%}\n x{% endblock b %}"),
            "{% extends 'x' %}{% block b -%}{{ __fuel() -}}\n x{% endblock b %}"
        );
        assert_eq!(
            instrumented_captured("{% for x in [y ~ 1 for y in z if y] %}{% endfor %}"),
            "{{ __fuel() }}{% for x in [__fuel_then() and (y ~ 1 ) for y in z if __fuel_then() and ( y)] %}{{ __fuel() }}{% endfor %}"
        );
        assert_eq!(
            instrumented_captured("{% set a = 1 %}{% set b = a ~ a %}{% set c -%}x{%- endset -%} y"),
            "{{ __fuel() }}{% set a = 1 %}{% set b = a ~ a %}{{ __check_size(value=b or none) }}{% set c -%}x{%- endset -%}{{ __check_size(value=c or none) -}} y"
        );
        let text = "{% extends 'x' %}{# {% for %} #}{{ 'for' }}{% raw %}{% for %}{% endraw %}";
        assert_eq!(instrumented_captured(text), text);
    }
}
