//! The tags of a template and their tokens, as Tera's lexer sees them. Used to instrument templates before Tera compiles them
//! ([`crate::presentation::metering`]) and to extract their translatable texts. The result for a template that Tera rejects is
//! unspecified.

use std::ops::Range;

/// A tag: `{% … %}` or `{{ … }}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The whole tag, delimiters included.
    pub range: Range<usize>,
    /// Whether it is `{% … %}`.
    pub is_block: bool,
    /// Whether it ends in `-%}` or `-}}`.
    pub trims_after: bool,
    pub tokens: Vec<Token>,
}

/// A token of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub range: Range<usize>,
    pub kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Name(String),
    /// A string without quotes and escapes.
    Text(String),
    Number,
    Sign(char),
}

impl Tag {
    /// The name after `{%`.
    pub(crate) fn keyword(&self) -> Option<&str> {
        self.is_block.then(|| self.name(0)).flatten()
    }

    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.kind {
            TokenKind::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The file that an `include` names.
    pub(crate) fn included(&self) -> Option<&str> {
        self.file("include")
    }

    /// The file that an `extends` names.
    pub(crate) fn extended(&self) -> Option<&str> {
        self.file("extends")
    }

    fn file(&self, keyword: &str) -> Option<&str> {
        match &self.tokens.get(1)?.kind {
            TokenKind::Text(name) if self.keyword() == Some(keyword) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn is_sign(&self, at: usize, sign: char) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Sign(sign))
    }
}

/// The files that a template includes or extends.
pub(crate) fn links(text: &str) -> Vec<String> {
    tags(text).iter().filter_map(|tag| tag.included().or(tag.extended())).map(str::to_owned).collect()
}

/// The tags of a template in order, without comments and raw text.
pub(crate) fn tags(text: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(start) = next_start(text, at) {
        at = match &text[start..start + 2] {
            "{#" => text[start + 2..].find("#}").map_or(text.len(), |end| start + 2 + end + 2),
            "{{" => {
                let tag = tag(text, start, "}}");
                let end = tag.range.end;
                tags.push(tag);
                end
            }
            _ => {
                let tag = tag(text, start, "%}");
                let end = tag.range.end;
                let is_raw = tag.tokens.len() == 1 && tag.keyword() == Some("raw");
                if !is_raw {
                    tags.push(tag);
                }
                if is_raw { end_of_raw(text, end) } else { end }
            }
        };
    }
    tags
}

fn next_start(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'{', &bytes[from..])
        .map(|at| from + at)
        .find(|at| matches!(bytes.get(at + 1), Some(b'{' | b'%' | b'#')))
}

fn end_of_raw(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(start) = text[at..].find("{%").map(|start| at + start) {
        let rest = text[start + 2..].trim_start_matches('-').trim_start();
        let after = rest.strip_prefix("endraw").map(|rest| rest.trim_start().trim_start_matches('-'));
        if let Some(rest) = after.and_then(|rest| rest.strip_prefix("%}")) {
            return text.len() - rest.len();
        }
        at = start + 2;
    }
    text.len()
}

/// The tag that starts at `start`. One without an end takes the rest of the text.
fn tag(text: &str, start: usize, close: &str) -> Tag {
    let is_block = close == "%}";
    let mut at = start + 2 + usize::from(text.as_bytes().get(start + 2) == Some(&b'-'));
    let mut tokens = Vec::new();
    loop {
        at += text[at..].len() - text[at..].trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
        let rest = &text[at..];
        let end = if rest.starts_with(close) { Some((2, false)) } else { None };
        let end = end.or_else(|| rest.strip_prefix('-').filter(|rest| rest.starts_with(close)).map(|_| (3, true)));
        if let Some((bytes, trims_after)) = end {
            return Tag { range: start..at + bytes, is_block, trims_after, tokens };
        }
        let Some(first) = rest.chars().next() else {
            return Tag { range: start..text.len(), is_block, trims_after: false, tokens };
        };
        let (bytes, kind) = token(rest, first);
        tokens.push(Token { range: at..at + bytes, kind });
        at += bytes;
    }
}

fn token(rest: &str, first: char) -> (usize, TokenKind) {
    let while_true = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    match first {
        '"' | '\'' | '`' => quoted(rest, first),
        '0'..='9' => (while_true(|c| c.is_ascii_digit()), TokenKind::Number),
        '_' | 'a'..='z' | 'A'..='Z' => {
            let bytes = while_true(|c| c == '_' || c.is_ascii_alphanumeric());
            (bytes, TokenKind::Name(rest[..bytes].to_owned()))
        }
        other => (other.len_utf8(), TokenKind::Sign(other)),
    }
}

fn quoted(rest: &str, quote: char) -> (usize, TokenKind) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => text.extend(chars.next().map(|(_, c)| match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            })),
            c if c == quote => return (at + 1, TokenKind::Text(text)),
            other => text.push(other),
        }
    }
    (rest.len(), TokenKind::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_as_tera_finds_them() {
        let text =
            "a{# {% no %} #}{%- for x in `}}` -%}{{ 'it\\'s %}' | f(n=1.5) }}{% raw %}{{ no }}{%- endraw -%}{%end";
        let found = tags(text);
        let texts: Vec<&str> = found.iter().map(|tag| &text[tag.range.clone()]).collect();
        assert_eq!(texts, ["{%- for x in `}}` -%}", "{{ 'it\\'s %}' | f(n=1.5) }}", "{%end"]);
        assert_eq!((found[0].keyword(), found[0].trims_after), (Some("for"), true));
        assert_eq!(found[1].tokens[0].kind, TokenKind::Text("it's %}".to_owned()));
        assert_eq!((found[1].name(2), found[1].is_sign(3, '(')), (Some("f"), true));
    }

    #[test]
    fn tags_never_end_beyond_the_text() {
        for text in
            ["{", "{%", "{{", "{{-", "{{'", "{{ \"\\", "{#", "{% raw %}", "{% raw %}{% endraw", "{{ é }}", "{%-"]
        {
            assert!(tags(text).iter().all(|tag| tag.range.end <= text.len()), "{text}");
        }
    }
}
