//! Numbers that Tera writes otherwise than Python: `1e-7` for `1e-07`, `1e16` for `1e+16`. They are rare, and nothing is done about them
//! where there are none: a context that has one is rendered with templates of which each `{{ x }}` is `{{ (x) | __shown }}`. They are
//! made when they are wanted first.

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::filters::python;
use super::scan::{self, Kind};

const SHOWN: &str = ") | __shown";

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("__shown", |value: Value, _: Kwargs, _: &State| -> TeraResult<Value> {
        let number = value.as_f64().filter(|number| value.is_f64() && differs(*number));
        Ok(number.map_or(value, |number| python::float(number).into()))
    });
}

/// Whether Python writes a number with an exponent, and so otherwise than Tera.
pub(super) fn differs(number: f64) -> bool {
    number != 0.0 && !(1e-4..1e16).contains(&number.abs())
}

/// A template that writes numbers as Python does. What may be missing (`x?.y`) stays as it is.
pub(super) fn marked(text: &str) -> String {
    let (mut marked, mut end) = (String::with_capacity(text.len()), 0);
    for tag in scan::tags(text) {
        let (Some(first), Some(last)) = (tag.words.first(), tag.words.last()) else { continue };
        let is_text = tag.words.len() == 1 && matches!(first.kind, Kind::Text(_));
        let may_miss = tag.words.iter().any(|word| word.kind == Kind::Sign('?'));
        if tag.is_block || is_text || may_miss || first.kind == Kind::Sign('<') {
            continue;
        }
        marked += &text[end..first.range.start];
        marked.push('(');
        marked += &text[first.range.start..last.range.end];
        marked += SHOWN;
        end = last.range.end;
    }
    marked + &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_writes_is_marked() {
        let text = "{{ a }}{{- b.c | upper -}}{% if a %}{{ 'x' }}{% endif %}{{ a?.b }}{# {{ a }} #}é{{ 1 + n }}";
        let expected = "{{ (a) | __shown }}{{- (b.c | upper) | __shown -}}{% if a %}{{ 'x' }}{% endif %}{{ a?.b }}{# {{ a }} #}é\
            {{ (1 + n) | __shown }}";
        assert_eq!(marked(text), expected);
    }

    #[test]
    fn only_numbers_with_an_exponent_differ() {
        for number in [0.0, -0.0, 1.5, 0.0001, -9_999_999_999_999_998.0] {
            assert!(!differs(number) && !python::float(number).contains('e'), "{number}");
        }
        for number in [0.000_099_999, -1e-7, 1e16, -1e300, 5e-324] {
            assert!(differs(number) && python::float(number).contains('e'), "{number}");
        }
    }
}
