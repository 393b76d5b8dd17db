//! Numbers that Tera formats differently from Python: `1e-7` instead of `1e-07`, `1e16` instead of `1e+16`. They are rare: only a
//! context that contains one is rendered with templates in which each `{{ x }}` is `{{ (x) | __python_number }}`. Those are
//! compiled on first use.

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::tokenizer::{self, TokenKind};
use crate::presentation::filters::python;

const FORMATTED: &str = ") | __python_number";

pub(crate) fn register(tera: &mut Tera) {
    tera.register_filter("__python_number", |value: Value, _: Kwargs, _: &State| -> TeraResult<Value> {
        let number = value.as_f64().filter(|number| value.is_f64() && differs(*number));
        Ok(number.map_or(value, |number| python::float(number).into()))
    });
}

/// Whether Python formats a number with an exponent, and therefore differently from Tera.
pub(crate) fn differs(number: f64) -> bool {
    number != 0.0 && !(1e-4..1e16).contains(&number.abs())
}

/// A template that formats numbers as Python does. Optional access (`x?.y`) is not changed.
pub(crate) fn with_python_numbers(text: &str) -> String {
    let (mut out, mut end) = (String::with_capacity(text.len()), 0);
    for tag in tokenizer::tags(text) {
        let (Some(first), Some(last)) = (tag.tokens.first(), tag.tokens.last()) else { continue };
        let is_text = tag.tokens.len() == 1 && matches!(first.kind, TokenKind::Text(_));
        let may_miss = tag.tokens.iter().any(|token| token.kind == TokenKind::Sign('?'));
        if tag.is_block || is_text || may_miss || first.kind == TokenKind::Sign('<') {
            continue;
        }
        out += &text[end..first.range.start];
        out.push('(');
        out += &text[first.range.start..last.range.end];
        out += FORMATTED;
        end = last.range.end;
    }
    out + &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_that_a_template_writes_is_formatted() {
        let text = "{{ a }}{{- b.c | upper -}}{% if a %}{{ 'x' }}{% endif %}{{ a?.b }}{# {{ a }} #}é{{ 1 + n }}";
        let expected = "{{ (a) | __python_number }}{{- (b.c | upper) | __python_number -}}{% if a %}{{ 'x' }}{% endif %}{{ a?.b }}{# {{ a }} #}é\
            {{ (1 + n) | __python_number }}";
        assert_eq!(with_python_numbers(text), expected);
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
