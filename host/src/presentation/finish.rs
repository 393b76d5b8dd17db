//! What is done to an e-mail's files after they are rendered: styles put into the elements, whitespace taken out, and the
//! text part made of the HTML where the operator allows it.

use super::html::{self, Piece};
use super::inline::Inliner;
use super::text;
use crate::config;
use crate::message::RenderedFile;

/// The channel type whose files these are.
pub(super) const CHANNEL_TYPE: &str = "email";
pub(super) const BODY_HTML: &str = "body.html";
pub(super) const BODY_TXT: &str = "body.txt";
const HEAD_HTML: &str = "head.html";
/// Elements in which whitespace is part of the text.
const PREFORMATTED: [&str; 2] = ["pre", "textarea"];

/// Finishes the files of one mail in place. `derives_text`: a `body.txt` is asked for and made of `body.html`.
pub(super) fn email(
    files: &mut Vec<RenderedFile>,
    settings: &config::Presentation,
    inliner: &Inliner,
    derives_text: Option<usize>,
) -> Result<(), String> {
    let find = |files: &[RenderedFile], name: &str| files.iter().position(|file| file.name == name);
    let Some(body) = find(files, BODY_HTML) else { return Ok(()) };
    let head = find(files, HEAD_HTML);
    let head_text = head.map_or("", |head| files[head].text.as_str());
    let derived = match derives_text {
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
        for at in [Some(body), head].into_iter().flatten() {
            files[at].text = minified(&files[at].text);
        }
    }
    if let Some((at, text)) = derived {
        let source = format!("{} (as text)", files[body].source);
        files.insert(at.min(files.len()), RenderedFile { name: BODY_TXT.to_owned(), source, text });
    }
    Ok(())
}

/// Without comments (but for those that Outlook reads) and with the least whitespace that looks the same.
fn minified(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut preformatted = 0_usize;
    for piece in html::pieces(html) {
        match piece {
            Piece::Comment(range)
                if html[range.clone()].starts_with("<!--") && !is_conditional(&html[range.clone()]) => {}
            Piece::Text(range) if preformatted == 0 => push_folded(&mut out, &html[range]),
            Piece::Text(range) | Piece::Comment(range) | Piece::Raw(range) => out.push_str(&html[range]),
            Piece::Tag(tag) => {
                if PREFORMATTED.iter().any(|name| tag.is(html, name)) {
                    preformatted = if tag.is_end { preformatted.saturating_sub(1) } else { preformatted + 1 };
                }
                out.push_str(&html[tag.range]);
            }
        }
    }
    out
}

fn is_conditional(comment: &str) -> bool {
    comment.starts_with("<!--[if") || comment.ends_with("<![endif]-->") || comment.starts_with("<!--<!")
}

/// Runs of whitespace as one space, or one line end where they have one; a mail's lines must not get too long.
fn push_folded(out: &mut String, text: &str) {
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
