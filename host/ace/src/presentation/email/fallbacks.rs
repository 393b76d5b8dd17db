//! Fallback values in style sheets. If a rule sets a property twice (`background: #eee; background: linear-gradient(…)`), a mail
//! program uses the last value that it supports. css-inline keeps one value of each property, so all values are joined into one
//! before it and split after it.

use std::borrow::Cow;
use std::collections::HashMap;

/// Separates the joined values of a property. A comment, so that it is harmless anywhere.
const SEPARATOR: &str = "/*ace:or*/";

/// A sheet in which each rule sets a property once, with all its values.
pub(super) fn joined(css: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut from, mut block) = (0, None);
    for (at, byte) in plain(css) {
        match (byte, block) {
            (b'{', _) => block = Some(at + 1),
            (b'}', Some(start)) => {
                if let Some(declarations) = joined_block(&css[start..at]) {
                    out.push_str(&css[from..start]);
                    out.push_str(&declarations);
                    from = at;
                }
                block = None;
            }
            _ => {}
        }
    }
    if from == 0 { Cow::Borrowed(css) } else { Cow::Owned(out + &css[from..]) }
}

/// A style with the values that [`joined`] combined as separate declarations.
pub(super) fn split(style: &str) -> Cow<'_, str> {
    if !style.contains(SEPARATOR) {
        return Cow::Borrowed(style);
    }
    let mut out = String::with_capacity(style.len() + 32);
    for declaration in declarations(style).filter(|declaration| !declaration.trim().is_empty()) {
        let Some((name, values)) = declaration.split_once(':').filter(|(_, values)| values.contains(SEPARATOR)) else {
            out.push_str(declaration);
            out.push(';');
            continue;
        };
        let (values, important) = without_important(values);
        for value in values.split(SEPARATOR) {
            let important = if important { " !important" } else { "" };
            out.push_str(&format!("{name}: {}{important};", value.trim()));
        }
    }
    Cow::Owned(out)
}

/// The declarations of a rule with each property once, at its last position. `None` if they are already unique.
fn joined_block(block: &str) -> Option<String> {
    let property = |declaration: &str| Some(declaration.split_once(':')?.0.trim().to_ascii_lowercase());
    let mut values: HashMap<String, Vec<&str>> = HashMap::new();
    let mut is_joined = true;
    for declaration in declarations(block) {
        let Some(name) = property(declaration) else { continue };
        let all = values.entry(name).or_default();
        all.extend(declaration.split_once(':').map(|(_, value)| value.trim()));
        is_joined &= all.len() == 1;
    }
    if is_joined {
        return None;
    }
    let mut kept: Vec<String> = Vec::new();
    for declaration in declarations(block).collect::<Vec<_>>().into_iter().rev() {
        match property(declaration).map(|name| values.remove(&name)) {
            // An earlier declaration of a property that was kept.
            Some(None) => {}
            Some(Some(all)) if all.len() > 1 => {
                let name = declaration.split_once(':').map_or("", |(name, _)| name);
                kept.push(format!("{name}: {}", joined_values(&all)));
            }
            _ => kept.push(declaration.to_owned()),
        }
    }
    kept.reverse();
    Some(kept.join(";"))
}

/// All values joined. If some are important, the others have no effect.
fn joined_values(values: &[&str]) -> String {
    let values: Vec<(&str, bool)> = values.iter().map(|value| without_important(value)).collect();
    let important = values.iter().any(|(_, important)| *important);
    let effective = values.iter().filter(|(_, own)| *own == important).map(|(value, _)| *value);
    let joined = effective.collect::<Vec<_>>().join(SEPARATOR);
    if important { format!("{joined} !important") } else { joined }
}

fn without_important(value: &str) -> (&str, bool) {
    let value = value.trim();
    let cut = value.len().saturating_sub("important".len());
    let is_word = value.get(cut..).is_some_and(|end| end.eq_ignore_ascii_case("important"));
    match value.get(..cut).filter(|_| is_word).and_then(|rest| rest.trim_end().strip_suffix('!')) {
        Some(rest) => (rest.trim_end(), true),
        None => (value, false),
    }
}

fn declarations(block: &str) -> impl Iterator<Item = &str> {
    let ends = plain(block).filter(|(_, byte)| *byte == b';').map(|(at, _)| at).chain([block.len()]);
    let mut from = 0;
    ends.map(move |end| {
        let declaration = &block[from..end];
        from = (end + 1).min(block.len());
        declaration
    })
}

/// The bytes of a sheet outside strings, comments, parentheses and escapes.
fn plain(css: &str) -> impl Iterator<Item = (usize, u8)> {
    let bytes = css.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at).copied() {
            let start = at;
            at = match byte {
                b'\\' => at + 2,
                b'"' | b'\'' => string_end(bytes, at),
                b'/' if bytes.get(at + 1) == Some(&b'*') => {
                    memchr::memmem::find(&bytes[at + 2..], b"*/").map_or(bytes.len(), |end| at + 2 + end + 2)
                }
                _ => at + 1,
            };
            match byte {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ if depth == 0 && at == start + 1 => return Some((start, byte)),
                _ => {}
            }
        }
        None
    })
}

/// The position after a string. A line end closes it too, as in CSS.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            byte if *byte == bytes[start] || *byte == b'\n' => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_one_property_are_joined_and_split_again() {
        for (rule, style) in [
            ("background:#eee;background:linear-gradient(a;b)", "background: #eee;background: linear-gradient(a;b);"),
            ("color: red; Margin: 0; COLOR : blue;", " Margin: 0; COLOR : red; COLOR : blue;"),
            ("color: red !important; color: blue", "color: red !important;"),
            ("color: red ! IMPORTANT; color: blue!important", "color: red !important;color: blue !important;"),
            ("content: 'a;}'; content: \"b\"", "content: 'a;}';content: \"b\";"),
        ] {
            let sheet = format!("p {{{rule}}} b {{ color: red }}");
            let joined = joined(&sheet);
            let block = joined.strip_prefix("p {").and_then(|rest| rest.strip_suffix("} b { color: red }"));
            let squeezed = |text: &str| text.replace(' ', "");
            assert_eq!(
                squeezed(&split(block.expect(rule))).trim_end_matches(';'),
                squeezed(style).trim_end_matches(';'),
                "{rule}"
            );
        }
    }

    #[test]
    fn other_sheets_are_not_changed() {
        for css in [
            "",
            "p { color: red; /* color: blue; */ margin: 0 } b { color: red }",
            "@media print { p { color: red } } p { background: url(a;color:b;color:c) }",
            "p { color: red; color",
            "a\\{b { color: 'x",
        ] {
            assert_eq!(joined(css), css);
        }
    }

    proptest! {
        #[test]
        fn no_sheet_causes_a_panic(css in "[a-c:;{}()'\"/*! \\\\\n]{0,40}|(a:b;|a:c;|p\\{|\\}|\"|/\\*){0,10}") {
            split(&joined(&css));
        }
    }
}
