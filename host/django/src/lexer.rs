//! Splits a template into Django's tokens. A tag ends on the line it starts on; otherwise it is text.

/// A token, and the line that it starts on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub line: usize,
    pub kind: Kind<'a>,
    /// The whole token, with its delimiters.
    pub source: &'a str,
}

/// The kind of a token, and its text between the delimiters, trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Text,
    /// `{{ … }}`
    Variable(&'a str),
    /// `{% … %}`
    Tag(&'a str),
    /// `{# … #}`
    Comment(&'a str),
}

pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { tokens: Vec::new(), line: 1, verbatim: None };
    let mut rest = text;
    while let Some((before, tag)) = next_tag(rest) {
        lexer.push(&rest[..before], None);
        let source = &rest[before..before + tag];
        lexer.push(source, Some(kind(source)));
        rest = &rest[before + tag..];
    }
    lexer.push(rest, None);
    lexer.tokens
}

struct Lexer<'a> {
    tokens: Vec<Token<'a>>,
    line: usize,
    /// Inside a `verbatim`: the tag that ends it.
    verbatim: Option<String>,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, source: &'a str, kind: Option<Kind<'a>>) {
        if source.is_empty() {
            return;
        }
        let mut kind = kind.unwrap_or(Kind::Text);
        match (&self.verbatim, kind) {
            (Some(end), Kind::Tag(content)) if content == end => self.verbatim = None,
            (Some(_), _) => kind = Kind::Text,
            (None, Kind::Tag(content)) if content == "verbatim" || content.starts_with("verbatim ") => {
                self.verbatim = Some(format!("end{content}"));
            }
            (None, _) => {}
        }
        self.tokens.push(Token { line: self.line, kind, source });
        self.line += source.matches('\n').count();
    }
}

/// The number of bytes before the first tag, and the length of the tag.
fn next_tag(text: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(start) = text[at..].find('{').map(|found| at + found) {
        let close = match text.as_bytes().get(start + 1) {
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            Some(b'#') => "#}",
            _ => {
                at = start + 1;
                continue;
            }
        };
        let line = text[start + 2..].split('\n').next().unwrap_or_default();
        if let Some(end) = line.find(close) {
            return Some((start, end + 4));
        }
        at = start + 1;
    }
    None
}

fn kind(source: &str) -> Kind<'_> {
    let content = source[2..source.len() - 2].trim();
    match source.as_bytes()[1] {
        b'%' => Kind::Tag(content),
        b'{' => Kind::Variable(content),
        _ => Kind::Comment(content),
    }
}

/// The words of a tag, split at whitespace outside quotes. `_("…")` is one word.
pub(crate) fn words(content: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in content.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c.is_whitespace() => words.extend(start.take().map(|start| &content[start..at])),
            None => {
                start.get_or_insert(at);
                // An unclosed quote is an ordinary character.
                let closes = (c == '"' || c == '\'') && closing(&content[at + 1..], c);
                quote = closes.then_some(c);
            }
        }
    }
    words.extend(start.map(|start| &content[start..]));
    words
}

fn closing(text: &str, quote: char) -> bool {
    let mut escaped = false;
    text.chars().any(|c| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_end_on_their_line() {
        let kinds: Vec<Kind> = tokens("a{{ b }}{% c\n%}{# d #}{{e}}").into_iter().map(|token| token.kind).collect();
        let expected = [Kind::Text, Kind::Variable("b"), Kind::Text, Kind::Comment("d"), Kind::Variable("e")];
        assert_eq!(kinds, expected);
        assert_eq!(tokens("a\n\n{{ b }}\n{{ c }}")[3].line, 4);
    }

    #[test]
    fn verbatim_ends_at_its_own_end() {
        let text = "{% verbatim x %}{{ a }}{% endverbatim %}{% endverbatim x %}{{ b }}";
        let texts: Vec<&str> = tokens(text).into_iter().filter(|t| t.kind == Kind::Text).map(|t| t.source).collect();
        assert_eq!(texts, ["{{ a }}", "{% endverbatim %}"]);
    }

    #[test]
    fn words_keep_quotes_together() {
        assert_eq!(words("a \"b c\"|d:'e f' _(\"g h\") i\\ 'j"), ["a", "\"b c\"|d:'e f'", "_(\"g h\")", "i\\", "'j"]);
    }
}
