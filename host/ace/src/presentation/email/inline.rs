//! Style sheets put into the elements they concern: many mail programs drop `<style>`.
//!
//! What css-inline comes to depends on a mail's elements, classes and ids, hardly ever on its texts and addresses. So it is
//! asked once for each shape of a mail (its tags without what does not matter), and its answer, the style of each element,
//! is put into every mail of that shape. The rest of the mail stays as the template wrote it, the sheet included: media
//! queries for phones and dark screens cannot be put into elements.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use css_inline::CSSInliner;

use super::fallbacks;
use super::html::{self, Piece, Tag};

/// Shapes and styles that are remembered; past that all are forgotten.
const SHAPES_MAX: usize = 1_024;
const SHAPES_BYTES_MAX: usize = 16 << 20;
/// Names each element for css-inline's answer.
const MARK: &str = "data-ace-element";
/// Keeps css-inline from a sheet of a body.
const IGNORED: &str = " data-css-inline=\"ignore\"";

/// Remembers the styles of the shapes it has seen.
#[derive(Default)]
pub(crate) struct Inliner {
    seen: RwLock<Seen>,
}

#[derive(Default)]
struct Seen {
    styles: HashMap<Vec<u8>, Arc<Styles>>,
    bytes: usize,
}

/// The style of each start tag that gets another one, by its place among them.
type Styles = Vec<(usize, String)>;

impl Inliner {
    /// The inside of a body with the styles of the head's sheets, and of its own; `None` where there are none, or nothing
    /// changes.
    pub(super) fn inlined(&self, head: &str, body: &str) -> Result<Option<String>, String> {
        let css = sheets(head, &html::pieces(head));
        if !has_rules(&css) && !may_have_sheet(body) {
            return Ok(None);
        }
        let pieces = html::pieces(body);
        let starts: Vec<&Tag> = pieces.iter().filter_map(start_tag).collect();
        let shape = shape(&css, body, &pieces);
        let known = self.seen.read().ok().and_then(|seen| seen.styles.get(&shape).cloned());
        let styles = match known {
            Some(styles) => styles,
            None => {
                html::check_nest(body, &pieces)?;
                let styles = Arc::new(computed(&css, body, &pieces)?);
                self.remember(shape, styles.clone());
                styles
            }
        };
        Ok((!styles.is_empty()).then(|| applied(body, &starts, &styles)))
    }

    fn remember(&self, shape: Vec<u8>, styles: Arc<Styles>) {
        // A lock is poisoned by a panic alone; then nothing is remembered any more, which costs time and nothing else.
        let Ok(mut seen) = self.seen.write() else { return };
        let bytes = shape.len() + styles.iter().map(|(_, style)| style.len()).sum::<usize>();
        if seen.styles.len() >= SHAPES_MAX || seen.bytes + bytes > SHAPES_BYTES_MAX {
            *seen = Seen::default();
        }
        seen.bytes += bytes;
        seen.styles.insert(shape, styles);
    }
}

fn start_tag(piece: &Piece) -> Option<&Tag> {
    match piece {
        Piece::Tag(tag) if !tag.is_end => Some(tag),
        _ => None,
    }
}

/// The style sheets of a head that count wherever the mail is seen on a screen.
fn sheets(head: &str, pieces: &[Piece]) -> String {
    let mut css = String::new();
    for pair in pieces.windows(2) {
        if let [Piece::Tag(tag), Piece::Raw(raw)] = pair
            && tag.is(head, "style")
            && is_for_screens(head, tag)
        {
            css.push_str(&head[raw.clone()]);
            css.push('\n');
        }
    }
    css
}

fn is_for_screens(html: &str, tag: &Tag) -> bool {
    let Some((_, media)) = attribute(html, tag, "media") else { return true };
    let media = html[media].trim();
    media.is_empty() || media.split(',').any(|one| ["all", "screen"].iter().any(|m| one.trim().eq_ignore_ascii_case(m)))
}

/// Whether anything of a sheet can be put into elements. In doubt it can.
fn has_rules(css: &str) -> bool {
    let mut rest = css.trim_start();
    while !rest.is_empty() {
        let comment = rest.strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        match comment.map(|(_, after)| after).or_else(|| after_idle_rule(rest)) {
            Some(after) => rest = after.trim_start(),
            None => return true,
        }
    }
    false
}

/// What comes after a rule that concerns no element as it is: `@media` and the like, and what is for a state that an element
/// comes into later.
fn after_idle_rule(css: &str) -> Option<&str> {
    const STATES: [&str; 4] = [":hover", ":active", ":focus", ":visited"];
    let end = css.find(['{', ';'])?;
    // `p:not(:hover)` is for every `p` at first.
    let is_of_state = |selector: &str| !selector.contains('(') && STATES.iter().any(|state| selector.contains(state));
    if !css.starts_with('@') && !css[..end].split(',').all(is_of_state) {
        return None;
    }
    let length = if css[end..].starts_with('{') { block_end(&css[end..])? } else { 1 };
    Some(&css[end + length..])
}

/// The length of a block in braces, the last one included.
fn block_end(css: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in css.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether a body may have a sheet of its own: those in comments are for Outlook alone.
fn may_have_sheet(body: &str) -> bool {
    const STYLE: &[u8] = b"<style";
    let bytes = body.as_bytes();
    let is_sheet = |at: &usize| {
        let start = bytes.get(*at..at + STYLE.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(STYLE)) && !html::is_in_comment(bytes, *at)
    };
    [b"<s", b"<S"].iter().any(|start| memchr::memmem::find_iter(bytes, start).any(|at| is_sheet(&at)))
}

/// All that css-inline's answer depends on: the sheet, and each tag with its class, id and style. A sheet that asks for
/// other attributes, or for emptiness, makes everything matter.
fn shape(css: &str, body: &str, pieces: &[Piece]) -> Vec<u8> {
    let mut shape = css.as_bytes().to_vec();
    if css.contains(['[', '\\']) || css.contains(":empty") {
        shape.extend_from_slice(body.as_bytes());
        return shape;
    }
    for piece in pieces {
        match piece {
            Piece::Text(_) | Piece::Comment(_) => {}
            Piece::Raw(raw) => shape.extend_from_slice(body[raw.clone()].as_bytes()),
            Piece::Tag(tag) => {
                shape.push(if tag.is_end { 1 } else { 0 });
                shape.extend_from_slice(body[tag.name.clone()].as_bytes());
                for attribute in tag.attributes(body) {
                    let name = &body[attribute.name];
                    if ["class", "id", "style"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
                        shape.extend_from_slice(&[2, name.as_bytes()[0]]);
                        shape.extend_from_slice(body[attribute.value].as_bytes());
                    }
                }
            }
        }
    }
    shape
}

/// Asks css-inline.
fn computed(css: &str, body: &str, pieces: &[Piece]) -> Result<Styles, String> {
    let starts: Vec<&Tag> = pieces.iter().filter_map(start_tag).collect();
    let document = marked(css, body, pieces);
    let inliner = CSSInliner::options().load_remote_stylesheets(false).build();
    let inlined =
        inliner.inline(&document).map_err(|e| format!("the style sheet cannot be put into the elements: {e}"))?;
    let mut styles = Styles::new();
    for piece in html::pieces(&inlined) {
        let Some(tag) = start_tag(&piece) else { continue };
        let number = attribute(&inlined, tag, MARK).and_then(|(_, value)| inlined[value].parse::<usize>().ok());
        let Some(before) = number.and_then(|number| starts.get(number)) else { continue };
        let style = attribute(&inlined, tag, "style").map(|(_, value)| &inlined[value]);
        let was = attribute(body, before, "style").map(|(_, value)| &body[value]);
        if let (Some(style), Some(number)) = (style, number)
            && !was.is_some_and(|was| is_same(was, style))
        {
            styles.push((number, fallbacks::parted(style).into_owned()));
        }
    }
    styles.sort_unstable();
    Ok(styles)
}

/// The mail as css-inline gets it: each element numbered, each sheet with one value of each property.
fn marked(css: &str, body: &str, pieces: &[Piece]) -> String {
    let mut document = format!("<html><head><style>{}</style></head><body>", fallbacks::joined(css));
    let (mut number, mut is_sheet) = (0, false);
    for piece in pieces {
        match piece {
            Piece::Tag(tag) if !tag.is_end => {
                document.push_str(&body[tag.range.start..tag.name.end]);
                document.push_str(&format!(" {MARK}=\"{number}\""));
                is_sheet = tag.is(body, "style");
                if is_sheet && !is_for_screens(body, tag) {
                    document.push_str(IGNORED);
                }
                document.push_str(&body[tag.name.end..tag.range.end]);
                number += 1;
            }
            Piece::Raw(raw) if is_sheet => document.push_str(&fallbacks::joined(&body[raw.clone()])),
            Piece::Text(range) | Piece::Comment(range) | Piece::Raw(range) => document.push_str(&body[range.clone()]),
            Piece::Tag(tag) => document.push_str(&body[tag.range.clone()]),
        }
    }
    document + "</body></html>"
}

/// Whether two styles differ in how they are escaped and spaced alone.
fn is_same(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        text.replace("&quot;", "'")
            .replace("&#39;", "'")
            .replace("&#x27;", "'")
            .replace('"', "'")
            .replace([' ', ';'], "")
    };
    plain(a) == plain(b)
}

fn attribute(html: &str, tag: &Tag, name: &str) -> Option<(Range<usize>, Range<usize>)> {
    let found = tag.attributes(html).find(|attribute| html[attribute.name.clone()].eq_ignore_ascii_case(name));
    found.map(|attribute| (attribute.whole, attribute.value))
}

fn applied(body: &str, starts: &[&Tag], styles: &Styles) -> String {
    let mut out = String::with_capacity(body.len() + styles.iter().map(|(_, style)| style.len() + 9).sum::<usize>());
    let mut from = 0;
    for (number, style) in styles {
        let Some(tag) = starts.get(*number) else { continue };
        match attribute(body, tag, "style") {
            Some((whole, _)) => {
                out.push_str(&body[from..whole.start]);
                out.push('"');
                from = whole.end;
            }
            None => {
                out.push_str(&body[from..tag.name.end]);
                out.push_str(" style=\"");
                from = tag.name.end;
            }
        }
        out.push_str(style);
        out.push('"');
    }
    out.push_str(&body[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<style>p { color: #111; margin: 0 } .big { font-size: 20px } td > b { color: red }\n\
                        a:hover { color: blue } @media (max-width: 480px) { p { color: #222 } }</style>\
                        <!--[if mso]><style>p { color: #333 }</style><![endif]--><style media=\"print\">p { color: #444 }</style>";

    fn inlined(body: &str) -> String {
        let inliner = Inliner::default();
        let first = inliner.inlined(HEAD, body).unwrap().unwrap_or_else(|| body.to_owned());
        let second = inliner.inlined(HEAD, body).unwrap().unwrap_or_else(|| body.to_owned());
        assert_eq!(first, second, "what is remembered is what was computed");
        first
    }

    #[test]
    fn elements_get_the_styles_that_concern_them_and_all_else_stays_as_it_is() {
        assert_eq!(
            inlined("<!--[if mso]><p>x</p><![endif]--><P CLASS=big>a &amp; b<br/></p>&nbsp;<i>c</i>"),
            "<!--[if mso]><p>x</p><![endif]--><P style=\"color: #111;margin: 0;font-size: 20px;\" CLASS=big>a &amp; b<br/></p>&nbsp;<i>c</i>"
        );
        assert_eq!(inlined("<i>c</i>"), "<i>c</i>");
        let table = inlined("<table><tr><td><b>x</b></td></tr></table>");
        assert_eq!(table, "<table><tr><td><b style=\"color: red;\">x</b></td></tr></table>");
    }

    #[test]
    fn an_elements_own_style_goes_before_the_sheets() {
        let html = inlined("<p style='color:green;font-family:\"X Y\"'>a</p>");
        assert!(
            html.starts_with("<p style=\"") && html.contains("color: green") && html.contains("margin: 0"),
            "{html}"
        );
        assert!(html.contains("'X Y'") && !html.contains("#111"), "{html}");
    }

    #[test]
    fn fallbacks_are_kept_for_mail_programs_that_know_the_first_alone() {
        let of = |head: &str, body: &str| Inliner::default().inlined(head, body).unwrap().unwrap();
        let rule = "a { background:#eee;background:linear-gradient(red, blue) } .b { color: red; color: oklch(1 2 3) }";
        let style = "background: #eee;background: linear-gradient(red, blue);";
        let head = format!("<style>{rule}</style>");
        assert_eq!(of(&head, "<a>1</a>"), format!("<a style=\"{style}\">1</a>"));
        let both = of(&head, "<a class=b style=\"margin: 0\">1</a>");
        assert!(both.contains("background: #eee;background: linear-gradient(red, blue);"), "{both}");
        assert!(both.contains("color: red;color: oklch(1 2 3);") && both.contains("margin: 0"), "{both}");
        let own = format!("<style>{rule}</style><a>1</a>");
        assert_eq!(of("", &own), format!("<style>{rule}</style><a style=\"{style}\">1</a>"));
        let later = of(&format!("<style>{rule} a {{ background: red }}</style>"), "<a>1</a>");
        assert_eq!(later, "<a style=\"background: red;\">1</a>", "a later rule is before all of them");
    }

    #[test]
    fn sheets_for_all_media_and_screens_count_and_others_do_not() {
        let rule = "p { color: red }";
        for (media, counts) in [
            ("", true),
            (" media", true),
            (" media=all", true),
            (" MEDIA=\"All\"", true),
            (" media='print, screen'", true),
            (" media=print", false),
            (" media=\"(max-width: 480px)\"", false),
            (" media=\"screen and (max-width: 480px)\"", false),
        ] {
            let sheet = format!("<style{media}>{rule}</style>");
            let red = |html: Option<String>| html.is_some_and(|html| html.contains("<p style=\"color: red;\">"));
            assert_eq!(red(Inliner::default().inlined(&sheet, "<p>1</p>").unwrap()), counts, "{media}");
            assert_eq!(red(Inliner::default().inlined("", &format!("{sheet}<p>1</p>")).unwrap()), counts, "{media}");
        }
    }

    #[test]
    fn a_shape_is_computed_once_whatever_its_texts_and_addresses_are() {
        let inliner = Inliner::default();
        for n in 0..100 {
            let body = format!("<p title=\"{n}\"><a href='/{n}'>{n} &lt; 2</a></p>");
            let html = inliner.inlined(HEAD, &body).unwrap().unwrap();
            assert_eq!(html, body.replace("<p", "<p style=\"color: #111;margin: 0;\""));
        }
        assert_eq!(inliner.seen.read().unwrap().styles.len(), 1);
        inliner.inlined(HEAD, "<p class=big></p>").unwrap();
        assert_eq!(inliner.seen.read().unwrap().styles.len(), 2);
    }

    #[test]
    fn a_sheet_that_nothing_can_be_put_of_is_not_looked_into() {
        let nothing = [
            "",
            "\n/* p { color: red } */\n",
            "@import url(x.css); @media print { p { color: red } .a, .b { margin: 0 } }",
            "@font-face { font-family: \"X\" } a:hover, a:focus { color: red } a::before:hover {}",
        ];
        let something = [
            "p { color: red }",
            "@media print { p { margin: 0 } } p { color: red }",
            "a:hover, a { color: red }",
            "p:not(:hover) { color: red }",
            "@charset \"x\"; a:first-child { color: red }",
            "@font-face { font-family: \"}\" } p { color: red }",
            "@font-face { font-family: \"{\" } p { color: red }",
            "@media print { p { color: red }",
            "/* p { color: red }",
        ];
        let body = "<p class=a><a href=x>1</a></p>";
        let pieces = html::pieces(body);
        for css in nothing {
            assert!(!has_rules(css), "{css}");
            assert_eq!(computed(css, body, &pieces), Ok(Styles::new()), "{css}");
        }
        for css in something {
            assert!(has_rules(css), "{css}");
        }
        assert!(
            may_have_sheet("<p><!--[if mso]><style></style><![endif]--><Style>")
                && !may_have_sheet("<!--<style>--><s>")
        );
        assert_eq!(
            Inliner::default().inlined("", "<STYLE>p { color: red }</STYLE><p>1</p>"),
            Ok(Some("<STYLE>p { color: red }</STYLE><p style=\"color: red;\">1</p>".to_owned()))
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let inliner = Inliner::default();
        for n in 0..SHAPES_MAX * 2 + 10 {
            inliner.remember(n.to_le_bytes().to_vec(), Arc::default());
        }
        assert_eq!(inliner.seen.read().unwrap().styles.len(), 10);
    }

    #[test]
    fn a_sheet_that_asks_for_other_attributes_sees_them() {
        let inliner = Inliner::default();
        let head = "<style>a[href^=\"/x\"] { color: red }</style>";
        let of = |body: &str| inliner.inlined(head, body).unwrap();
        assert_eq!(of("<a href=\"/y\">1</a>"), None);
        assert_eq!(of("<a href=\"/x\">1</a>").unwrap(), "<a style=\"color: red;\" href=\"/x\">1</a>");
    }
}
