//! Output accounting. A `set` block or a filter section captures its text, and Tera holds all of it in memory until the block ends.
//! Captured text that a loop writes is therefore counted while it is written. Text that goes into a file needs no accounting: it
//! is bounded as it is written.
//!
//! Values and literal text are counted in bodies of loops and components, and in files that these include, in the files that
//! [`captured_templates`] names:
//!
//! | in a template | becomes |
//! |---|---|
//! | `{{ user?.name }}` | the tag, and `{{ __count_output(value=user?.name or none) }}`, so that Tera's error for a missing one stays |
//! | any other `{{ x }}` | `{{ (x) \| __count_output }}` |

use std::collections::{BTreeMap, BTreeSet};

use tera::{Kwargs, State, Tera, TeraResult, Value};

use crate::presentation::rendering;
use crate::presentation::templates::tokenizer::{self, Tag, TokenKind};

/// The end of an expression whose value is counted.
const COUNTED: &str = ") | __count_output";
const WORD_OPERATORS: [&str; 8] = ["and", "or", "not", "if", "else", "is", "in", "for"];

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("__count_output", |value: Value, _: Kwargs, _: &State| count(bytes(&value)).map(|()| value));
    tera.register_function("__count_output", |kwargs: Kwargs, _: &State| {
        count(kwargs.get::<&Value>("value")?.map_or(0, bytes)).map(|()| Value::none())
    });
}

/// Counts bytes of captured output.
pub(super) fn count(bytes: usize) -> TeraResult<()> {
    rendering::current(|rendering| rendering.count_output(bytes).map_err(tera::Error::message))
}

/// A lower bound of the length of a rendered value, without escapes.
fn bytes(value: &Value) -> usize {
    if let Some(text) = value.as_str() {
        return text.len();
    }
    if let Some(list) = value.as_array() {
        return list.iter().map(|item| bytes(item).saturating_add(2)).fold(2, usize::saturating_add);
    }
    match value.as_map() {
        Some(map) => map.values().map(|item| bytes(item).saturating_add(8)).fold(2, usize::saturating_add),
        None => 8,
    }
}

/// The expression of an error message as its template has it, without instrumentation. `before` is the text before it on its line.
pub(crate) fn original_expression<'a>(before: &'a str, expression: &'a str) -> &'a str {
    let Some(value) = before.strip_suffix(") | ").filter(|_| expression == "__count_output") else { return expression };
    let tag = value.rfind("{{").map_or(value, |at| &value[at + 2..]);
    tag.trim_start_matches('-').trim_start().strip_prefix('(').unwrap_or(tag)
}

/// The files that a loop or component may include, directly or through other files.
pub(crate) fn looped_templates<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let texts: BTreeMap<&str, &str> = texts.collect();
    let mut waiting: Vec<String> = Vec::new();
    for text in texts.values() {
        let mut depth = 0;
        for tag in tokenizer::tags(text) {
            depth = depth_after(depth, &tag);
            waiting.extend(tag.included().filter(|_| depth > 0).map(str::to_owned));
        }
    }
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if let Some(text) = texts.get(name.as_str())
            && found.insert(name)
        {
            waiting.extend(tokenizer::links(text));
        }
    }
    found
}

/// The files whose output may be captured: those that capture text or have components, those that extend one of them (the
/// captured text may contain a block), and all files that any of these includes.
pub(crate) fn captured_templates<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let texts: BTreeMap<&str, Vec<Tag>> = texts.map(|(name, text)| (name, tokenizer::tags(text))).collect();
    let mut waiting: Vec<&str> = texts.iter().filter(|(_, tags)| captures(tags)).map(|(name, _)| *name).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !found.insert(name.to_owned()) {
            continue;
        }
        let extends = |tags: &[Tag]| tags.iter().any(|tag| tag.extended() == Some(name));
        waiting.extend(texts.iter().filter(|(_, tags)| extends(tags)).map(|(child, _)| *child));
        let own = texts.get(name).into_iter().flatten();
        waiting.extend(own.filter_map(|tag| tag.included().or(tag.extended())));
    }
    found
}

/// Whether a template captures text or has components: the caller of a component may capture its output.
fn captures(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| {
        let is_call = tag.tokens.first().is_some_and(|token| token.kind == TokenKind::Sign('<'));
        is_call || matches!(tag.keyword(), Some("endset" | "filter" | "component"))
    })
}

/// The number of loops and components around the text after a tag.
pub(super) fn depth_after(depth: usize, tag: &Tag) -> usize {
    match tag.keyword() {
        Some("for" | "component") => depth + 1,
        Some("endfor" | "endcomponent") => depth.saturating_sub(1),
        _ => depth,
    }
}

/// The insertions, each with its position, that count the value of a `{{ … }}`. `after` places a call behind the tag.
pub(super) fn counting_calls(
    text: &str,
    tag: &Tag,
    after: impl FnOnce(&str) -> (usize, String),
) -> Vec<(usize, String)> {
    let (Some(first), Some(last)) = (tag.tokens.first(), tag.tokens.last()) else { return Vec::new() };
    let is_component = first.kind == TokenKind::Sign('<');
    let is_text = tag.tokens.len() == 1 && matches!(first.kind, TokenKind::Text(_));
    if tag.is_block || is_component || is_text {
        return Vec::new();
    }
    if is_path(tag) {
        return vec![after(&format!("__count_output(value={} or none)", &text[first.range.start..last.range.end]))];
    }
    vec![(first.range.start, "(".to_owned()), (last.range.end, COUNTED.to_owned())]
}

/// Whether a tag has only a variable and its fields.
fn is_path(tag: &Tag) -> bool {
    tag.tokens.iter().all(|token| match &token.kind {
        TokenKind::Name(name) => !WORD_OPERATORS.contains(&name.as_str()),
        TokenKind::Sign(sign) => matches!(sign, '.' | '?' | '[' | ']'),
        TokenKind::Text(_) | TokenKind::Number => true,
    })
}

/// The bytes of literal text in one iteration of each loop and component, by the index of the tag that starts it, and in the rest
/// of the file ([`FILE`]). Of several branches, the longest counts.
pub(super) fn literal_bytes(text: &str, tags: &[Tag]) -> BTreeMap<usize, usize> {
    #[derive(Default)]
    struct Body {
        tag: usize,
        bytes: usize,
        /// Bytes of its longest branch so far.
        longest: usize,
    }
    let mut found = BTreeMap::new();
    let mut open = vec![Body { tag: FILE, ..Body::default() }];
    let mut from = 0;
    for (at, tag) in tags.iter().enumerate() {
        let Some(body) = open.last_mut() else { break };
        body.bytes += tag.range.start - from;
        from = tag.range.end;
        match tag.keyword() {
            Some("for" | "component" | "if") => open.push(Body { tag: at, ..Body::default() }),
            Some("elif" | "else") => {
                body.longest = body.longest.max(body.bytes);
                body.bytes = 0;
            }
            Some(end @ ("endfor" | "endcomponent" | "endif")) if open.len() > 1 => {
                let body = open.pop().unwrap_or_default();
                let bytes = body.longest.max(body.bytes);
                match (end, open.last_mut()) {
                    ("endif", Some(outer)) => outer.bytes += bytes,
                    _ => drop(found.insert(body.tag, bytes)),
                }
            }
            _ => {}
        }
    }
    let file = open.first().map_or(0, |body| body.bytes.max(body.longest));
    found.insert(FILE, file + text.len() - from);
    found
}

/// The key of the whole file in [`literal_bytes`].
pub(super) const FILE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_text_of_an_iteration_is_that_of_its_longest_branches() {
        let text = "ab{% for x in y %}cde{% if x %}f{% elif y %}ghij{% else %}k{% endif %}{% for z in x %}lm{% endfor %}{% endfor %}n";
        let found = literal_bytes(text, &tokenizer::tags(text));
        assert_eq!(found, BTreeMap::from([(0, 7), (5, 2), (FILE, 3)]));
        for broken in ["{% endfor %}{% else %}{% endif %}x", "{% for %}{% if %}{% for %}a"] {
            literal_bytes(broken, &tokenizer::tags(broken));
        }
    }

    #[test]
    fn files_whose_output_may_be_captured_are_found() {
        let texts = [
            ("plain", "{% for i in l %}{{ i }}{% include 'x' %}{% endfor %}{% set a = 1 %}"),
            ("layout", "{% set x %}{% block b %}{% endblock %}{% endset %}"),
            ("child", "{% extends 'layout' %}{% block b %}{% include 'part' %}{% endblock %}"),
            ("grandchild", "{% extends 'child' %}"),
            ("part", "{{ a }}"),
            ("x", "{{ b }}"),
            ("shouts", "{% filter upper %}{% include 'deep' %}{% endfilter %}"),
            ("deep", "{% include 'deeper' %}"),
            ("deeper", ""),
        ];
        let expected = ["layout", "child", "grandchild", "part", "shouts", "deep", "deeper"];
        assert_eq!(captured_templates(texts.into_iter()), BTreeSet::from(expected.map(str::to_owned)));
    }

    #[test]
    fn files_included_in_loops_are_found_with_their_own_includes() {
        let texts = [
            (
                "a",
                "{% include 'x' %}{% for i in l %}{% if i %}{% include 'b' %}{% endif %}{% endfor %}{% include 'x' %}",
            ),
            ("b", "{% include 'c' %}"),
            ("c", "{% include 'gone' %}"),
            ("x", ""),
        ];
        assert_eq!(looped_templates(texts.into_iter()), BTreeSet::from(["b", "c"].map(str::to_owned)));
    }
}
