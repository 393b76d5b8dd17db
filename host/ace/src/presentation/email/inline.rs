//! Inlines style sheets into elements, because many mail programs ignore `<style>`.
//!
//! The result of css-inline depends on the elements, classes and ids of a mail, hardly ever on its texts and addresses. It is
//! therefore called once for each structure of a mail (its tags and relevant attributes), and the resulting style of each element
//! is cached and applied to every mail of that structure. The rest of the mail is not changed. The sheet stays, because media
//! queries for phones and dark screens cannot be inlined.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use css_inline::CSSInliner;

use super::fallbacks;
use super::html::{self, Piece, Tag};

/// The limits of the cache. It is cleared when one is exceeded.
const CACHE_ENTRIES_MAX: usize = 1_024;
const CACHE_BYTES_MAX: usize = 16 << 20;
/// The attribute that numbers elements in the input of css-inline.
const NUMBER: &str = "data-ace-element";
/// Makes css-inline ignore a sheet of the body.
const IGNORED: &str = " data-css-inline=\"ignore\"";

/// Inlines styles, with a cache by structure.
#[derive(Default)]
pub(crate) struct Inliner {
    cache: RwLock<Cache>,
}

#[derive(Default)]
struct Cache {
    styles: HashMap<Vec<u8>, Arc<Styles>>,
    bytes: usize,
}

/// The new styles of start tags, by the index of the tag.
type Styles = Vec<(usize, String)>;

impl Inliner {
    /// The content of a body with the styles of the sheets in the head and the body. `None` if nothing changes.
    pub(super) fn inlined(&self, head: &str, body: &str) -> Result<Option<String>, String> {
        let css = sheets(head, &html::pieces(head));
        if !may_have_inlinable_rules(&css) && !may_have_sheet(body) {
            return Ok(None);
        }
        let pieces = html::pieces(body);
        let starts: Vec<&Tag> = pieces.iter().filter_map(start_tag).collect();
        let structure = structure(&css, body, &pieces);
        let cached = self.cache.read().ok().and_then(|cache| cache.styles.get(&structure).cloned());
        let styles = match cached {
            Some(styles) => styles,
            None => {
                html::check_nesting(body, &pieces)?;
                let styles = Arc::new(computed(&css, body, &pieces)?);
                self.cache(structure, styles.clone());
                styles
            }
        };
        Ok((!styles.is_empty()).then(|| applied(body, &starts, &styles)))
    }

    fn cache(&self, structure: Vec<u8>, styles: Arc<Styles>) {
        // After a panic the lock is poisoned and nothing more is cached, which only costs time.
        let Ok(mut cache) = self.cache.write() else { return };
        let bytes = structure.len() + styles.iter().map(|(_, style)| style.len()).sum::<usize>();
        if cache.styles.len() >= CACHE_ENTRIES_MAX || cache.bytes + bytes > CACHE_BYTES_MAX {
            *cache = Cache::default();
        }
        cache.bytes += bytes;
        cache.styles.insert(structure, styles);
    }
}

fn start_tag(piece: &Piece) -> Option<&Tag> {
    match piece {
        Piece::Tag(tag) if !tag.is_end => Some(tag),
        _ => None,
    }
}

/// The style sheets of a head that apply on every screen.
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

/// Whether a sheet may have rules that can be inlined.
fn may_have_inlinable_rules(css: &str) -> bool {
    let mut rest = css.trim_start();
    while !rest.is_empty() {
        let comment = rest.strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        match comment.map(|(_, after)| after).or_else(|| after_rule_without_effect(rest)) {
            Some(after) => rest = after.trim_start(),
            None => return true,
        }
    }
    false
}

/// The text after a rule that cannot be inlined: `@media` and the like, and rules for a state such as `:hover`.
fn after_rule_without_effect(css: &str) -> Option<&str> {
    const STATES: [&str; 4] = [":hover", ":active", ":focus", ":visited"];
    let end = css.find(['{', ';'])?;
    // `p:not(:hover)` applies to every `p` initially.
    let is_of_state = |selector: &str| !selector.contains('(') && STATES.iter().any(|state| selector.contains(state));
    if !css.starts_with('@') && !css[..end].split(',').all(is_of_state) {
        return None;
    }
    let length = if css[end..].starts_with('{') { block_end(&css[end..])? } else { 1 };
    Some(&css[end + length..])
}

/// The length of a block in braces, including both.
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

/// Whether a body may contain a sheet. Those in comments are only for Outlook.
fn may_have_sheet(body: &str) -> bool {
    const STYLE: &[u8] = b"<style";
    let bytes = body.as_bytes();
    let is_sheet = |at: &usize| {
        let start = bytes.get(*at..at + STYLE.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(STYLE)) && !html::is_in_comment(bytes, *at)
    };
    [b"<s", b"<S"].iter().any(|start| memchr::memmem::find_iter(bytes, start).any(|at| is_sheet(&at)))
}

/// The cache key: everything that the result of css-inline depends on. Usually the sheet, and each tag with its class, id and
/// style; the whole mail if the sheet selects by other attributes or by emptiness.
fn structure(css: &str, body: &str, pieces: &[Piece]) -> Vec<u8> {
    let mut key = css.as_bytes().to_vec();
    if css.contains(['[', '\\']) || css.contains(":empty") {
        key.extend_from_slice(body.as_bytes());
        return key;
    }
    for piece in pieces {
        match piece {
            Piece::Text(_) | Piece::Comment(_) => {}
            Piece::Raw(raw) => key.extend_from_slice(body[raw.clone()].as_bytes()),
            Piece::Tag(tag) => {
                key.push(if tag.is_end { 1 } else { 0 });
                key.extend_from_slice(body[tag.name.clone()].as_bytes());
                for attribute in tag.attributes(body) {
                    let name = &body[attribute.name];
                    if ["class", "id", "style"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
                        key.extend_from_slice(&[2, name.as_bytes()[0]]);
                        key.extend_from_slice(body[attribute.value].as_bytes());
                    }
                }
            }
        }
    }
    key
}

/// The styles according to css-inline.
fn computed(css: &str, body: &str, pieces: &[Piece]) -> Result<Styles, String> {
    let starts: Vec<&Tag> = pieces.iter().filter_map(start_tag).collect();
    let document = numbered(css, body, pieces);
    let inliner = CSSInliner::options().load_remote_stylesheets(false).build();
    let inlined = inliner.inline(&document).map_err(|e| format!("cannot inline the style sheet: {e}"))?;
    let mut styles = Styles::new();
    for piece in html::pieces(&inlined) {
        let Some(tag) = start_tag(&piece) else { continue };
        let number = attribute(&inlined, tag, NUMBER).and_then(|(_, value)| inlined[value].parse::<usize>().ok());
        let Some(before) = number.and_then(|number| starts.get(number)) else { continue };
        let style = attribute(&inlined, tag, "style").map(|(_, value)| &inlined[value]);
        let old = attribute(body, before, "style").map(|(_, value)| &body[value]);
        if let (Some(style), Some(number)) = (style, number)
            && !old.is_some_and(|old| is_same(old, style))
        {
            styles.push((number, fallbacks::split(style).into_owned()));
        }
    }
    styles.sort_unstable();
    Ok(styles)
}

/// The input of css-inline: numbered elements, and sheets with one value of each property.
fn numbered(css: &str, body: &str, pieces: &[Piece]) -> String {
    let mut document = format!("<html><head><style>{}</style></head><body>", fallbacks::joined(css));
    let (mut number, mut is_sheet) = (0, false);
    for piece in pieces {
        match piece {
            Piece::Tag(tag) if !tag.is_end => {
                document.push_str(&body[tag.range.start..tag.name.end]);
                document.push_str(&format!(" {NUMBER}=\"{number}\""));
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

/// Whether two styles differ only in escapes and spaces.
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
        assert_eq!(first, second, "the cached result is the computed one");
        first
    }

    #[test]
    fn elements_get_their_styles_and_nothing_else_changes() {
        assert_eq!(
            inlined("<!--[if mso]><p>x</p><![endif]--><P CLASS=big>a &amp; b<br/></p>&nbsp;<i>c</i>"),
            "<!--[if mso]><p>x</p><![endif]--><P style=\"color: #111;margin: 0;font-size: 20px;\" CLASS=big>a &amp; b<br/></p>&nbsp;<i>c</i>"
        );
        assert_eq!(inlined("<i>c</i>"), "<i>c</i>");
        let table = inlined("<table><tr><td><b>x</b></td></tr></table>");
        assert_eq!(table, "<table><tr><td><b style=\"color: red;\">x</b></td></tr></table>");
    }

    #[test]
    fn an_elements_own_style_takes_precedence_over_sheets() {
        let html = inlined("<p style='color:green;font-family:\"X Y\"'>a</p>");
        assert!(
            html.starts_with("<p style=\"") && html.contains("color: green") && html.contains("margin: 0"),
            "{html}"
        );
        assert!(html.contains("'X Y'") && !html.contains("#111"), "{html}");
    }

    #[test]
    fn fallbacks_are_kept_for_mail_programs_that_support_only_the_first() {
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
        assert_eq!(later, "<a style=\"background: red;\">1</a>", "a later rule takes precedence over all of them");
    }

    #[test]
    fn only_sheets_for_all_media_and_screens_are_inlined() {
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
    fn a_structure_is_computed_once_for_all_texts_and_addresses() {
        let inliner = Inliner::default();
        for n in 0..100 {
            let body = format!("<p title=\"{n}\"><a href='/{n}'>{n} &lt; 2</a></p>");
            let html = inliner.inlined(HEAD, &body).unwrap().unwrap();
            assert_eq!(html, body.replace("<p", "<p style=\"color: #111;margin: 0;\""));
        }
        assert_eq!(inliner.cache.read().unwrap().styles.len(), 1);
        inliner.inlined(HEAD, "<p class=big></p>").unwrap();
        assert_eq!(inliner.cache.read().unwrap().styles.len(), 2);
    }

    #[test]
    fn a_sheet_without_inlinable_rules_is_skipped() {
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
            assert!(!may_have_inlinable_rules(css), "{css}");
            assert_eq!(computed(css, body, &pieces), Ok(Styles::new()), "{css}");
        }
        for css in something {
            assert!(may_have_inlinable_rules(css), "{css}");
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
    fn the_cache_is_bounded() {
        let inliner = Inliner::default();
        for n in 0..CACHE_ENTRIES_MAX * 2 + 10 {
            inliner.cache(n.to_le_bytes().to_vec(), Arc::default());
        }
        assert_eq!(inliner.cache.read().unwrap().styles.len(), 10);
    }

    #[test]
    fn a_sheet_that_selects_by_other_attributes_is_applied() {
        let inliner = Inliner::default();
        let head = "<style>a[href^=\"/x\"] { color: red }</style>";
        let of = |body: &str| inliner.inlined(head, body).unwrap();
        assert_eq!(of("<a href=\"/y\">1</a>"), None);
        assert_eq!(of("<a href=\"/x\">1</a>").unwrap(), "<a style=\"color: red;\" href=\"/x\">1</a>");
    }
}
