//! Post-processes the rendered files of an e-mail: makes links absolute, inlines style sheets, minifies HTML, and derives the text
//! part from the HTML, as configured.

use super::absolute;
use super::html::{self, Piece, Tag};
use super::inline::Inliner;
use super::text;
use crate::config;
use crate::message::RenderedFile;

/// The channel type whose files these are.
pub(crate) const CHANNEL_TYPE: &str = "email";
pub(crate) const BODY_HTML: &str = "body.html";
pub(crate) const BODY_TXT: &str = "body.txt";
const HEAD_HTML: &str = "head.html";
/// The HTML files.
pub(super) const PAGES: [&str; 2] = [BODY_HTML, HEAD_HTML];
/// Elements that preserve whitespace regardless of their style.
const PREFORMATTED: [&str; 2] = ["pre", "textarea"];

/// Post-processes the files of one mail in place. `derived_text` is the index at which a `body.txt` derived from `body.html` is
/// inserted.
pub(crate) fn postprocess(
    files: &mut Vec<RenderedFile>,
    settings: &config::Presentation,
    inliner: &Inliner,
    derived_text: Option<usize>,
) -> Result<(), String> {
    let find = |files: &[RenderedFile], name: &str| files.iter().position(|file| file.name == name);
    let Some(body) = find(files, BODY_HTML) else { return Ok(()) };
    let head = find(files, HEAD_HTML);
    if let Some(base) = &settings.base_url {
        for at in [Some(body), head].into_iter().flatten() {
            if let Some(absolute) = absolute::with_absolute_links(&files[at].text, base) {
                files[at].text = absolute;
            }
        }
    }
    let head_text = head.map_or("", |head| files[head].text.as_str());
    let derived = match derived_text {
        None => None,
        Some(at) => {
            Some((at, text::of_html(head_text, &files[body].text).map_err(|why| format!("{BODY_HTML}: {why}"))?))
        }
    };
    if settings.inline_css
        && let Some(inlined) = inliner.inlined(head_text, &files[body].text)?
    {
        files[body].text = inlined;
    }
    if settings.minify_html {
        // A sheet that was not inlined may apply to any element.
        let head_text = head.map_or("", |head| files[head].text.as_str());
        let collapses =
            settings.inline_css || !preserves_whitespace(head_text) && !preserves_whitespace(&files[body].text);
        for at in [Some(body), head].into_iter().flatten() {
            files[at].text = minified(&files[at].text, collapses);
        }
    }
    if let Some((at, text)) = derived {
        let source = format!("{} (as text)", files[body].source);
        files.insert(at.min(files.len()), RenderedFile { name: BODY_TXT.to_owned(), source, text });
    }
    Ok(())
}

/// Removes comments, except Outlook's conditional ones, and whitespace that is not visible.
fn minified(html: &str, collapses: bool) -> String {
    let mut out = String::with_capacity(html.len());
    // The outermost element that preserves whitespace, and the number of open elements of its name.
    let mut preserving: Option<(&str, usize)> = None;
    for piece in html::pieces(html) {
        match piece {
            Piece::Comment(range)
                if html[range.clone()].starts_with("<!--") && !is_conditional(&html[range.clone()]) => {}
            Piece::Text(range) if collapses && preserving.is_none() => push_collapsed(&mut out, &html[range]),
            Piece::Text(range) | Piece::Comment(range) | Piece::Raw(range) => out.push_str(&html[range]),
            Piece::Tag(tag) => {
                preserving = match preserving {
                    Some((name, open)) if tag.is(html, name) && tag.is_end => {
                        Some((name, open - 1)).filter(|_| open > 1)
                    }
                    Some((name, open)) if tag.is(html, name) => Some((name, open + 1)),
                    None if !tag.is_end && element_preserves_whitespace(html, &tag) => {
                        Some((&html[tag.name.clone()], 1))
                    }
                    other => other,
                };
                out.push_str(&html[tag.range]);
            }
        }
    }
    out
}

/// Whether an element preserves its whitespace.
fn element_preserves_whitespace(html: &str, tag: &Tag) -> bool {
    let style = || tag.attributes(html).find(|attribute| html[attribute.name.clone()].eq_ignore_ascii_case("style"));
    !tag.is_void(html)
        && (PREFORMATTED.iter().any(|name| tag.is(html, name))
            || style().is_some_and(|style| preserves_whitespace(&html[style.value])))
}

/// Whether a style or a sheet has a `white-space` that preserves spaces or line ends.
fn preserves_whitespace(css: &str) -> bool {
    const PROPERTY: &str = "white-space";
    css.match_indices(|c: char| c.eq_ignore_ascii_case(&'w')).any(|(at, _)| {
        let rest = &css[at..];
        let Some(after) = rest.get(..PROPERTY.len()).filter(|name| name.eq_ignore_ascii_case(PROPERTY)) else {
            return false;
        };
        let rest = rest[after.len()..].strip_prefix("-collapse").unwrap_or(&rest[after.len()..]);
        let Some(value) = rest.trim_start().strip_prefix(':') else { return false };
        let value = value.trim_start();
        // `pre`, `pre-wrap`, `pre-line`, `preserve`.
        let starts =
            |keyword: &str| value.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword));
        starts("pre") || starts("break-spaces")
    })
}

fn is_conditional(comment: &str) -> bool {
    comment.starts_with("<!--[if") || comment.ends_with("<![endif]-->") || comment.starts_with("<!--<!")
}

/// Replaces each run of whitespace by one space, or by one line end if it has one, so that lines do not get too long.
fn push_collapsed(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_whitespace()) {
        out.push_str(&rest[..start]);
        let after = rest[start..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        let run = &rest[start..rest.len() - after.len()];
        out.push(if run.contains('\n') { '\n' } else { ' ' });
        rest = after;
    }
    out.push_str(rest);
}
