//! Django's filters and functions for HTML.

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::strings::{ELLIPSIS, shortened};
use super::{marked_as, python};

/// How often tags are removed at most; removing them can form new ones.
const STRIP_ROUNDS_MAX: usize = 50;
const VOID_ELEMENTS: [&str; 14] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("force_escape", |value: &Value, _: Kwargs, _: &State| {
        Value::safe_string(&escaped(&python::text(value)))
    });
    tera.register_filter("conditional_escape", |value: &Value, _: Kwargs, _: &State| {
        Value::safe_string(&escaped_once(value))
    });
    tera.register_filter("django_safe", |value: &Value, _: Kwargs, _: &State| Value::safe_string(&python::text(value)));
    tera.register_filter("linebreaks", |value: &Value, kwargs: Kwargs, state: &State| {
        let text = escaped_if_enabled(value, &kwargs, state)?;
        let paragraphs = paragraphs(&text).into_iter().map(|p| format!("<p>{}</p>", p.replace('\n', "<br>")));
        Ok::<_, tera::Error>(Value::safe_string(&paragraphs.collect::<Vec<_>>().join("\n\n")))
    });
    tera.register_filter("linebreaksbr", |value: &Value, kwargs: Kwargs, state: &State| {
        let text = escaped_if_enabled(value, &kwargs, state)?;
        Ok::<_, tera::Error>(Value::safe_string(&text.replace('\n', "<br>")))
    });
    tera.register_filter("striptags", |value: &Value, _: Kwargs, _: &State| {
        marked_as(value, without_tags(&python::text(value)))
    });
    tera.register_filter("spaceless", |value: &Value, _: Kwargs, _: &State| {
        marked_as(value, spaceless(python::text(value).trim()))
    });
    tera.register_filter("truncatechars_html", |value: &Value, kwargs: Kwargs, _: &State| {
        shortened(value, &kwargs, |text, length| truncated(text, length, Unit::Characters))
    });
    tera.register_filter("truncatewords_html", |value: &Value, kwargs: Kwargs, _: &State| {
        shortened(value, &kwargs, |text, length| truncated(text, length, Unit::Words))
    });
    tera.register_function("interpolate_html", interpolate_html);
}

/// A text with HTML's five special characters escaped as in Django.
pub(in super::super) fn escaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len() + text.len() / 8);
    // Writing to memory does not fail, and the result is UTF-8: the input with ASCII insertions.
    escape_into(text, &mut bytes).map(|()| String::from_utf8(bytes).unwrap_or_default()).unwrap_or_default()
}

/// Escapes as Django does, with `&#x27;` for an apostrophe.
pub(in super::super) fn escape_into(text: &str, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'&' | b'<' | b'>' | b'"' | b'\'')) {
        out.write_all(&rest[..at])?;
        out.write_all(match rest[at] {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'"' => b"&quot;",
            _ => b"&#x27;",
        })?;
        rest = &rest[at + 1..];
    }
    out.write_all(rest)
}

/// Django's `conditional_escape`: does not escape safe strings.
pub(super) fn escaped_once(value: &Value) -> String {
    let text = python::text(value);
    if value.is_string() && value.is_safe() { text } else { escaped(&text) }
}

/// The text with Unix newlines, escaped according to the argument `autoescape` or else the file.
fn escaped_if_enabled(value: &Value, kwargs: &Kwargs, state: &State) -> TeraResult<String> {
    let text = python::text(value).replace("\r\n", "\n").replace('\r', "\n");
    let escapes = kwargs.get("autoescape")?.unwrap_or_else(|| state.autoescaping_enabled());
    let is_safe = value.is_string() && value.is_safe();
    Ok(if escapes && !is_safe { escaped(&text) } else { text })
}

/// The parts between two or more newlines.
fn paragraphs(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\n\n") {
        found.push(&rest[..at]);
        rest = rest[at..].trim_start_matches('\n');
    }
    found.push(rest);
    found
}

/// Removes whitespace between tags.
fn spaceless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('>') {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        let next = tail.trim_start();
        rest = if next.starts_with('<') { next } else { tail };
    }
    out + rest
}

/// The pieces that Python's HTML parser distinguishes.
enum Piece<'a> {
    Text(&'a str),
    /// The whole tag, its name in lower case, and whether it ends in `/>`.
    Start(&'a str, String, bool),
    End(String),
    /// Comments and declarations.
    Other,
}

fn pieces(html: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = html;
    let mut text_to = 0;
    while let Some(at) = rest[text_to..].find('<').map(|at| at + text_to) {
        let Some((piece, length)) = tag(&rest[at..]) else {
            text_to = at + 1;
            continue;
        };
        if at > 0 {
            found.push(Piece::Text(&rest[..at]));
        }
        found.push(piece);
        rest = &rest[at + length..];
        text_to = 0;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    found
}

/// The tag at the start of a text, and its length.
fn tag(text: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(rest) = text.strip_prefix("<!--") {
        return rest.find("-->").map(|end| (Piece::Other, end + 7));
    }
    if text.starts_with("<!") || text.starts_with("<?") {
        return text.find('>').map(|end| (Piece::Other, end + 1));
    }
    let is_end = text.starts_with("</");
    let name_at = if is_end { 2 } else { 1 };
    let name: String = text[name_at..].chars().take_while(|c| !c.is_whitespace() && !"/>".contains(*c)).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = name_at + end_of_tag(&text[name_at..])?;
    let name = name.to_lowercase();
    let piece = if is_end { Piece::End(name) } else { Piece::Start(&text[..end], name, text[..end].ends_with("/>")) };
    Some((piece, end))
}

/// The position after the first `>` outside quoted values.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Some(at + 1),
            (None, '"' | '\'') if previous == '=' => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        if !c.is_whitespace() {
            previous = c;
        }
    }
    None
}

fn without_tags(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..STRIP_ROUNDS_MAX {
        if !text.contains('<') || !text.contains('>') {
            break;
        }
        let texts = pieces(&text).into_iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text),
            _ => None,
        });
        let stripped: String = texts.collect();
        if stripped.matches('<').count() == text.matches('<').count() {
            break;
        }
        text = stripped;
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Characters,
    Words,
}

/// The first characters or words of HTML, followed by the end tags of open elements.
fn truncated(html: &str, length: usize, unit: Unit) -> String {
    let left = if unit == Unit::Characters { length - 1 } else { length };
    let mut cut =
        Cut { out: String::new(), open: Vec::new(), left, seen: 0, length, unit, chars: html.chars().count() };
    for piece in pieces(html) {
        match piece {
            Piece::Start(tag, name, closes) => cut.start(tag, name, closes),
            Piece::End(name) => cut.end(&name),
            Piece::Text(text) => {
                if cut.text(&unescaped(text)) {
                    cut.open.iter().rev().for_each(|name| cut.out.push_str(&format!("</{name}>")));
                    break;
                }
            }
            Piece::Other => {}
        }
    }
    cut.out
}

struct Cut {
    out: String,
    open: Vec<String>,
    /// The remaining length, without the ellipsis if it counts.
    left: usize,
    seen: usize,
    length: usize,
    unit: Unit,
    /// The characters of the whole HTML.
    chars: usize,
}

impl Cut {
    fn start(&mut self, tag: &str, name: String, closes: bool) {
        self.out.push_str(tag);
        if VOID_ELEMENTS.contains(&name.as_str()) {
            return;
        }
        if closes { self.out.push_str(&format!("</{name}>")) } else { self.open.push(name) }
    }

    fn end(&mut self, name: &str) {
        if VOID_ELEMENTS.contains(&name) {
            return;
        }
        self.out.push_str(&format!("</{name}>"));
        self.open.pop_if(|open| open == name);
    }

    /// Writes as much as fits. Returns whether the limit is reached.
    fn text(&mut self, text: &str) -> bool {
        let parts: Vec<&str> = match self.unit {
            Unit::Characters => text.split("").filter(|c| !c.is_empty()).collect(),
            Unit::Words => words(text),
        };
        self.seen += parts.len();
        // Django does not change the last text if it fits exactly.
        let is_last = self.out.chars().count() + parts.len() == self.chars;
        if self.unit == Unit::Characters && self.seen == self.length && is_last {
            self.out.push_str(text);
            return true;
        }
        let separator = if self.unit == Unit::Words { " " } else { "" };
        let kept = escaped(&parts[..parts.len().min(self.left)].join(separator));
        self.out.push_str(&kept);
        if self.left < parts.len() {
            let ellipsis = if self.unit == Unit::Words { format!(" {ELLIPSIS}") } else { ELLIPSIS.to_string() };
            if !kept.ends_with(&ellipsis) {
                self.out.push_str(&ellipsis);
            }
            return true;
        }
        self.left -= parts.len();
        false
    }
}

/// Splits at whitespace, except leading and trailing whitespace.
fn words(text: &str) -> Vec<&str> {
    let inner = text.trim();
    if inner.is_empty() {
        return vec![text];
    }
    let (start, end) = (text.len() - text.trim_start().len(), text.trim_end().len());
    let mut words: Vec<&str> = inner.split_whitespace().collect();
    let count = words.len();
    words[0] = &text[..start + words[0].len()];
    let last = words[count - 1];
    words[count - 1] = match count {
        1 => text,
        _ => &text[end - last.len()..],
    };
    words
}

/// Decodes the character references that are common in mails.
pub(in super::super) fn unescaped(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.find(';').filter(|end| *end <= 10).and_then(|end| Some((character(&rest[1..end])?, end)));
        match reference {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "copy" => '©',
        "reg" => '®',
        "middot" => '·',
        "hellip" => '…',
        "mdash" => '—',
        "ndash" => '–',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "bull" => '•',
        "laquo" => '«',
        "raquo" => '»',
        "euro" => '€',
        "times" => '×',
        _ => return None,
    })
}

/// Open edX's `interpolate_html`: escapes the value, and the arguments for its `{name}`s unless they are safe.
fn interpolate_html(kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let text = escaped(&python::text(kwargs.must_get("value")?));
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            out.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let name = rest[1..].split('}').next().filter(|_| rest.starts_with('{')).unwrap_or_default();
        let value = if name == "value" { None } else { kwargs.get::<&Value>(name)? };
        let value = value.ok_or_else(|| {
            tera::Error::message(format!(
                "the text of `interpolate_html` has `{{{name}}}`, but there is no argument of that name"
            ))
        })?;
        out.push_str(&escaped_once(value));
        rest = &rest[name.len() + 2..];
    }
    out.push_str(rest);
    Ok(Value::safe_string(&out))
}
