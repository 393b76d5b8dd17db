//! What loops write is counted where it may be captured: text in a `set` block or a filter section is in nobody's sight until the
//! block ends, and Tera holds all of it meanwhile. What goes into a file is bounded as it is written, and costs nothing here.
//!
//! Counted are the values and the text of loop bodies and components, and of files that are included in them, in the files that
//! [`captured`] names. A value is counted where it is written:
//!
//! | in a template | becomes |
//! |---|---|
//! | `{{ user?.name }}` | the tag, and `{{ __writes(value=user?.name or none) }}`: what Tera says of a missing one stays |
//! | any other `{{ x }}` | `{{ (x) \| __wrote }}` |

use std::collections::{BTreeMap, BTreeSet};

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::rendering;
use super::scan::{self, Kind, Tag};

/// What is put behind a value that is counted.
const WROTE: &str = ") | __wrote";
const WORDS_OF_OPERATORS: [&str; 8] = ["and", "or", "not", "if", "else", "is", "in", "for"];

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("__wrote", |value: Value, _: Kwargs, _: &State| wrote(bytes(&value)).map(|()| value));
    tera.register_function("__writes", |kwargs: Kwargs, _: &State| {
        wrote(kwargs.get::<&Value>("value")?.map_or(0, bytes)).map(|()| Value::none())
    });
}

fn wrote(bytes: usize) -> TeraResult<()> {
    rendering::current(|rendering| rendering.wrote(bytes).map_err(tera::Error::message))
}

/// At least what a value is written as, but for its escapes.
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

/// An expression of which something is said, as its template has it; `before` is what stands before it on its line.
pub(super) fn as_written<'a>(before: &'a str, expression: &'a str) -> &'a str {
    let Some(value) = before.strip_suffix(") | ").filter(|_| expression == "__wrote") else { return expression };
    let tag = value.rfind("{{").map_or(value, |at| &value[at + 2..]);
    tag.trim_start_matches('-').trim_start().strip_prefix('(').unwrap_or(tag)
}

/// The files that may be included in a loop or component, those that they include themselves, and so on.
pub(super) fn looped<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let texts: BTreeMap<&str, &str> = texts.collect();
    let mut waiting: Vec<String> = Vec::new();
    for text in texts.values() {
        let mut depth = 0;
        for tag in scan::tags(text) {
            depth = deeper(depth, &tag);
            waiting.extend(tag.included().filter(|_| depth > 0).map(str::to_owned));
        }
    }
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if let Some(text) = texts.get(name.as_str())
            && found.insert(name)
        {
            waiting.extend(scan::links(text));
        }
    }
    found
}

/// The files of which something may be captured: those that capture themselves or have components, those that extend one of
/// them (a block may stand in what is captured), and whatever any of these includes.
pub(super) fn captured<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let texts: BTreeMap<&str, Vec<Tag>> = texts.map(|(name, text)| (name, scan::tags(text))).collect();
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

/// Whether a template captures text, or has components: whoever calls one may capture what it writes.
fn captures(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| {
        let is_call = tag.words.first().is_some_and(|word| word.kind == Kind::Sign('<'));
        is_call || matches!(tag.keyword(), Some("endset" | "filter" | "component"))
    })
}

/// Loops and components around what follows a tag.
pub(super) fn deeper(depth: usize, tag: &Tag) -> usize {
    match tag.keyword() {
        Some("for" | "component") => depth + 1,
        Some("endfor" | "endcomponent") => depth.saturating_sub(1),
        _ => depth,
    }
}

/// What counts the value of a `{{ … }}`: texts, each with its place. `after` puts a call behind the tag.
pub(super) fn counts(text: &str, tag: &Tag, after: impl FnOnce(&str) -> (usize, String)) -> Vec<(usize, String)> {
    let (Some(first), Some(last)) = (tag.words.first(), tag.words.last()) else { return Vec::new() };
    let is_component = first.kind == Kind::Sign('<');
    let is_text = tag.words.len() == 1 && matches!(first.kind, Kind::Text(_));
    if tag.is_block || is_component || is_text {
        return Vec::new();
    }
    if is_path(tag) {
        return vec![after(&format!("__writes(value={} or none)", &text[first.range.start..last.range.end]))];
    }
    vec![(first.range.start, "(".to_owned()), (last.range.end, WROTE.to_owned())]
}

/// A variable and its fields.
fn is_path(tag: &Tag) -> bool {
    tag.words.iter().all(|word| match &word.kind {
        Kind::Name(name) => !WORDS_OF_OPERATORS.contains(&name.as_str()),
        Kind::Sign(sign) => matches!(sign, '.' | '?' | '[' | ']'),
        Kind::Text(_) | Kind::Number => true,
    })
}

/// The bytes of text that one round of each loop and component writes, and the file outside of them; of branches the longest
/// counts. By the place of the tag that begins it, the file's is [`FILE`].
pub(super) fn texts(text: &str, tags: &[Tag]) -> BTreeMap<usize, usize> {
    #[derive(Default)]
    struct Body {
        tag: usize,
        bytes: usize,
        /// Of its longest branch before.
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

/// Stands for the file in [`texts`].
pub(super) const FILE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_round_is_that_of_its_longest_branches() {
        let text = "ab{% for x in y %}cde{% if x %}f{% elif y %}ghij{% else %}k{% endif %}{% for z in x %}lm{% endfor %}{% endfor %}n";
        let found = texts(text, &scan::tags(text));
        assert_eq!(found, BTreeMap::from([(0, 7), (5, 2), (FILE, 3)]));
        for broken in ["{% endfor %}{% else %}{% endif %}x", "{% for %}{% if %}{% for %}a"] {
            texts(broken, &scan::tags(broken));
        }
    }

    #[test]
    fn files_of_which_something_may_be_captured_are_found() {
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
        assert_eq!(captured(texts.into_iter()), BTreeSet::from(expected.map(str::to_owned)));
    }

    #[test]
    fn files_included_in_loops_are_found_with_what_they_include() {
        let texts = [
            (
                "a",
                "{% include 'x' %}{% for i in l %}{% if i %}{% include 'b' %}{% endif %}{% endfor %}{% include 'x' %}",
            ),
            ("b", "{% include 'c' %}"),
            ("c", "{% include 'gone' %}"),
            ("x", ""),
        ];
        assert_eq!(looped(texts.into_iter()), BTreeSet::from(["b", "c"].map(str::to_owned)));
    }
}
