//! Splits rendered HTML into tags, comments and text, as far as post-processing needs it. The pieces always make up the whole
//! text, even of invalid HTML.

use std::ops::Range;

/// Elements whose content is always text.
const RAW_TEXT: [&str; 4] = ["script", "style", "textarea", "title"];

/// The deepest nesting of elements. Parsers recurse; real mails are a hundred times less deep.
const NEST_MAX: usize = 512;
/// Elements whose end tag is optional. They do not nest by themselves.
const OPTIONAL_END: [&str; 11] = ["p", "li", "dt", "dd", "tr", "td", "th", "option", "thead", "tbody", "tfoot"];
/// Elements without content.
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// The bytes of a piece in a usual mail, for the initial capacity.
const USUAL_PIECE_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Range<usize>),
    /// With its delimiters. Includes `<!DOCTYPE …>` and the like.
    Comment(Range<usize>),
    Tag(Tag),
    /// The content of an element of [`RAW_TEXT`].
    Raw(Range<usize>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// From `<` to `>`, inclusive.
    pub range: Range<usize>,
    pub name: Range<usize>,
    pub is_end: bool,
}

/// An attribute of a tag.
pub(super) struct Attribute {
    pub name: Range<usize>,
    /// The value with its quotes.
    pub whole: Range<usize>,
    /// The value without quotes.
    pub value: Range<usize>,
}

pub(super) fn pieces(html: &str) -> Vec<Piece> {
    let bytes = html.as_bytes();
    let mut pieces = Vec::with_capacity(html.len() / USUAL_PIECE_BYTES);
    let mut at = 0;
    let mut text = 0;
    while let Some(start) = memchr::memchr(b'<', &bytes[at..]).map(|offset| at + offset) {
        let Some(piece) = markup(html, start) else {
            at = start + 1;
            continue;
        };
        if text < start {
            pieces.push(Piece::Text(text..start));
        }
        at = match &piece {
            Piece::Tag(tag) => tag.range.end,
            Piece::Comment(range) | Piece::Text(range) | Piece::Raw(range) => range.end,
        };
        let raw = match &piece {
            Piece::Tag(tag) if !tag.is_end => raw_end(html, tag),
            _ => None,
        };
        pieces.push(piece);
        if let Some(end) = raw {
            pieces.push(Piece::Raw(at..end));
            at = end;
        }
        text = at;
    }
    if text < html.len() {
        pieces.push(Piece::Text(text..html.len()));
    }
    pieces
}

/// Rejects HTML that is nested so deeply that a parser could overflow the stack.
pub(super) fn check_nesting(html: &str, pieces: &[Piece]) -> Result<(), String> {
    let mut depth = 0_usize;
    for piece in pieces {
        let Piece::Tag(tag) = piece else { continue };
        if tag.is_void(html) || OPTIONAL_END.iter().any(|name| tag.is(html, name)) {
            continue;
        }
        depth = if tag.is_end { depth.saturating_sub(1) } else { depth + 1 };
        if depth > NEST_MAX {
            return Err(format!("the HTML is nested more than {NEST_MAX} elements deep; is an end tag missing?"));
        }
    }
    Ok(())
}

/// The tag or comment that starts at a `<`. `None` if the `<` is text.
fn markup(html: &str, start: usize) -> Option<Piece> {
    let rest = &html[start..];
    if let Some(comment) = rest.strip_prefix("<!--") {
        let end = comment_end(comment.as_bytes()).map_or(html.len(), |end| start + 4 + end);
        return Some(Piece::Comment(start..end));
    }
    if rest.starts_with("<!") || rest.starts_with("<?") {
        let end = rest.find('>').map_or(html.len(), |end| start + end + 1);
        return Some(Piece::Comment(start..end));
    }
    let is_end = rest.starts_with("</");
    let name_start = start + 1 + usize::from(is_end);
    let bytes = html.as_bytes();
    if !bytes.get(name_start)?.is_ascii_alphabetic() {
        return None;
    }
    let is_name = |b: &u8| !b.is_ascii_whitespace() && !b"/>".contains(b);
    let name_end = name_start + bytes[name_start..].iter().take_while(|b| is_name(b)).count();
    let end = tag_end(bytes, name_end);
    Some(Piece::Tag(Tag { range: start..end, name: name_start..name_end, is_end }))
}

/// The end of a comment, after its `-->`, in the text after its `<!--`.
fn comment_end(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'>', text).map(|at| at + 1).find(|end| text[..*end].ends_with(b"-->"))
}

/// Whether a position is inside a comment.
pub(super) fn is_in_comment(html: &[u8], position: usize) -> bool {
    const START: &[u8] = b"<!--";
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&html[from.min(position)..position], START) {
        let text = from + at + START.len();
        match comment_end(&html[text..]) {
            Some(end) => from = text + end,
            None => return true,
        }
    }
    from > position
}

/// The end of a tag: after the first `>` outside a quoted value.
fn tag_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut after_equals = false;
    while let Some(b) = bytes.get(at) {
        match b {
            b'>' => return at + 1,
            b'"' | b'\'' if after_equals => match memchr::memchr(*b, &bytes[at + 1..]) {
                Some(length) => at += length + 1,
                None => return bytes.len(),
            },
            _ => {}
        }
        after_equals = *b == b'=' || after_equals && b.is_ascii_whitespace();
        at += 1;
    }
    bytes.len()
}

fn raw_end(html: &str, tag: &Tag) -> Option<usize> {
    let name = &html[tag.name.clone()];
    RAW_TEXT.iter().find(|raw| name.eq_ignore_ascii_case(raw))?;
    let rest = &html.as_bytes()[tag.range.end..];
    let closes = |at: &usize| {
        let after = rest.get(at + 2..at + 2 + name.len());
        rest[*at..].starts_with(b"</") && after.is_some_and(|after| after.eq_ignore_ascii_case(name.as_bytes()))
    };
    let end = memchr::memchr_iter(b'<', rest).find(closes).unwrap_or(rest.len());
    Some(tag.range.end + end)
}

impl Tag {
    pub(super) fn is(&self, html: &str, name: &str) -> bool {
        html[self.name.clone()].eq_ignore_ascii_case(name)
    }

    /// Whether the element has no content.
    pub(super) fn is_void(&self, html: &str) -> bool {
        VOID.iter().any(|name| self.is(html, name))
    }

    /// The attributes of a start tag.
    pub(super) fn attributes(&self, html: &str) -> impl Iterator<Item = Attribute> {
        let bytes = html.as_bytes();
        let end = self.range.end - usize::from(bytes[self.range.clone()].ends_with(b">"));
        let mut at = self.name.end;
        std::iter::from_fn(move || {
            let skip = |at: usize, is: fn(u8) -> bool| at + bytes[at..end].iter().take_while(|b| is(**b)).count();
            at = skip(at, |b| b.is_ascii_whitespace() || b == b'/');
            if at >= end {
                return None;
            }
            // A leading `=` is part of the name.
            let name = at..skip(at + 1, |b| !b.is_ascii_whitespace() && !b"/=".contains(&b));
            at = name.end;
            let equals = skip(at, |b| b.is_ascii_whitespace());
            if bytes[..end].get(equals) != Some(&b'=') {
                return Some(Attribute { whole: at..at, value: at..at, name });
            }
            let start = skip(equals + 1, |b| b.is_ascii_whitespace());
            let (whole, value) = match bytes[..end].get(start) {
                Some(quote @ (b'"' | b'\'')) => {
                    let length = memchr::memchr(*quote, &bytes[start + 1..end]);
                    let close = length.map_or(end, |length| start + 1 + length);
                    (start..(close + 1).min(end), start + 1..close)
                }
                _ => {
                    let value = start..skip(start, |b| !b.is_ascii_whitespace());
                    (value.clone(), value)
                }
            };
            at = whole.end;
            Some(Attribute { name, whole, value })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_have_their_attributes() {
        let html = "x<A href='a>b' CLASS = \"c d\" checked data-x=1/>y</a><!-- <p> --><style>a<b</STYLE>";
        let found = pieces(html);
        let [
            _,
            Piece::Tag(tag),
            _,
            Piece::Tag(end),
            Piece::Comment(comment),
            Piece::Tag(_),
            Piece::Raw(raw),
            Piece::Tag(_),
        ] = &found[..]
        else {
            panic!("{found:?}")
        };
        let attributes: Vec<_> = tag.attributes(html).map(|a| (&html[a.name], &html[a.value])).collect();
        assert_eq!(attributes, [("href", "a>b"), ("CLASS", "c d"), ("checked", ""), ("data-x", "1/")]);
        assert!(end.is_end && end.is(html, "A"));
        assert_eq!((&html[comment.clone()], &html[raw.clone()]), ("<!-- <p> -->", "a<b"));
    }

    proptest! {
        #[test]
        fn the_pieces_make_up_the_whole(html in "[<>/!?=\"' a-cé-]{0,60}|(<(p|style|title)( a=[\"']?)?|>|</style|<!--|-->|x){0,12}") {
            let mut end = 0;
            for piece in pieces(&html) {
                let range = match piece {
                    Piece::Tag(tag) => {
                        for attribute in tag.attributes(&html) {
                            prop_assert!(html.get(attribute.value).is_some() && html.get(attribute.name).is_some());
                        }
                        tag.range
                    }
                    Piece::Text(range) | Piece::Comment(range) | Piece::Raw(range) => range,
                };
                prop_assert_eq!(range.start, end);
                end = range.end;
                prop_assert!(html.get(range).is_some());
            }
            prop_assert_eq!(end, html.len());
        }
    }
}
