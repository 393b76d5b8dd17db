//! Makes the links of e-mails absolute. A mail has no base address, so a link such as `/orders/A-17` leads nowhere.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::html::{self, Piece};
use super::postprocess;
use crate::message::Rendered;
use crate::presentation::{Presentation, Subject, TemplateProblem, Theme, filters};

/// Attributes whose value is a URL.
const ADDRESSES: [&str; 3] = ["href", "src", "background"];
/// Prefixes of placeholders, of templates and of e-mail providers. No URL starts with them.
const PLACEHOLDERS: [&str; 6] = ["{", "[", "<", "$", "*|", "%%"];

impl Presentation {
    /// Relative links in the text of e-mail templates that cannot be made absolute, because `presentation.base-url` is not set or
    /// cannot be combined with them.
    pub fn relative_links(&self) -> Vec<TemplateProblem> {
        let themes = std::iter::once(&self.plain).chain(self.themes.values());
        let found: BTreeSet<TemplateProblem> = themes.flat_map(|theme| self.literal_links(theme)).collect();
        found.into_iter().collect()
    }

    fn literal_links(&self, theme: &Theme) -> Vec<TemplateProblem> {
        let links = theme.texts.iter().filter(|(name, _)| is_of_mail(name)).flat_map(|(name, text)| {
            relative(text, self.settings.base_url.as_ref()).into_iter().map(move |(at, link)| (name, text, at, link))
        });
        let problem = |(name, text, at, link): (&String, &Arc<str>, usize, &str)| TemplateProblem {
            file: PathBuf::from(theme.paths.get(name).unwrap_or(name)),
            line: Some(text[..at].matches('\n').count() + 1),
            message: self.describe_link(link),
        };
        links.map(problem).collect()
    }

    /// The same for a rendered message, without the links that [`Presentation::relative_links`] reports.
    pub fn relative_links_of(&self, rendered: &Rendered, subject: &Subject) -> Vec<String> {
        if subject.channel_type != postprocess::CHANNEL_TYPE {
            return Vec::new();
        }
        let base = self.settings.base_url.as_ref();
        let texts = || std::iter::once(&self.plain).chain(self.themes.values()).flat_map(|theme| theme.texts.values());
        let is_literal = |link: &str| {
            let is_start = |literal: &str| link.starts_with(literal.split('{').next().unwrap_or_default());
            texts().any(|text| relative(text, base).into_iter().any(|(_, literal)| is_start(literal)))
        };
        let pages = rendered.files.iter().filter(|file| postprocess::PAGES.contains(&file.name.as_str()));
        let links = pages.flat_map(|file| relative(&file.text, base).into_iter().map(move |(_, link)| (file, link)));
        let links = links.filter(|(_, link)| !is_literal(link));
        links.map(|(file, link)| format!("{}: {}", file.source, self.describe_link(link))).collect()
    }

    fn describe_link(&self, link: &str) -> String {
        match self.settings.base_url.as_ref().map(|base| base.join(&filters::unescaped(link))) {
            Some(Err(error)) => format!("the link `{link}` cannot be combined with presentation.base-url: {error}"),
            _ => format!(
                "the link `{link}` is relative and leads nowhere in a mail: set presentation.base-url in ace.toml, or write an absolute one"
            ),
        }
    }
}

/// Whether a template may be part of a mail: an e-mail file of a message, or a file that others include or extend.
fn is_of_mail(template: &str) -> bool {
    let is_other = || matches!(template.split('/').collect::<Vec<_>>()[..], [_, "edx_ace", _, kind, _] if kind != postprocess::CHANNEL_TYPE);
    template.ends_with(".html") && !is_other()
}

/// The HTML with absolute links; `None` if it has no relative ones. Links that cannot be made absolute are not changed;
/// [`relative`] finds them.
pub(super) fn with_absolute_links(html: &str, base: &Url) -> Option<String> {
    let mut out = String::new();
    let mut from = 0;
    for (whole, value) in links(html) {
        let Some(url) = joined(&html[value], base) else { continue };
        out.push_str(&html[from..whole.start]);
        out.push('"');
        out.push_str(&filters::escaped(url.as_str()));
        out.push('"');
        from = whole.end;
    }
    (from > 0).then(|| out + &html[from..])
}

/// The relative links of a page or template that cannot be made absolute, each with its byte offset.
pub(super) fn relative<'a>(html: &'a str, base: Option<&Url>) -> Vec<(usize, &'a str)> {
    let stays_relative = |value: &str| base.is_none_or(|base| joined(value, base).is_none());
    let links = links(html).into_iter().map(|(_, value)| (value.start, &html[value]));
    links.filter(|(_, value)| stays_relative(value)).collect()
}

fn joined(value: &str, base: &Url) -> Option<Url> {
    base.join(&filters::unescaped(value)).ok()
}

/// The ranges of relative links, with and without quotes. Includes links in conditional comments for Outlook.
fn links(html: &str) -> Vec<(Range<usize>, Range<usize>)> {
    let mut found = Vec::new();
    if may_have_links(html) {
        find_links(html, 0, &mut found);
    }
    found
}

fn find_links(html: &str, start: usize, found: &mut Vec<(Range<usize>, Range<usize>)>) {
    for piece in html::pieces(html) {
        match piece {
            Piece::Tag(tag) if !tag.is_end => {
                for attribute in tag.attributes(html) {
                    let (name, value) = (&html[attribute.name], &html[attribute.value.clone()]);
                    if ADDRESSES.iter().any(|known| name.eq_ignore_ascii_case(known)) && is_relative(value) {
                        let moved = |range: Range<usize>| range.start + start..range.end + start;
                        found.push((moved(attribute.whole), moved(attribute.value)));
                    }
                }
            }
            Piece::Comment(range) if html[range.clone()].starts_with("<!--[if") => {
                let inside = range.start + "<!--".len()..range.end;
                find_links(&html[inside.clone()], start + inside.start, found);
            }
            _ => {}
        }
    }
}

/// Whether a URL is relative. Fragments (`#top`) and placeholders are not.
fn is_relative(value: &str) -> bool {
    let value = value.trim_ascii();
    let is_scheme = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    };
    !value.is_empty()
        && !value.starts_with('#')
        && !value.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme))
        && !PLACEHOLDERS.iter().any(|start| value.starts_with(start))
}

/// A quick check before the slower search: most mails have only absolute links.
fn may_have_links(html: &str) -> bool {
    let bytes = html.as_bytes();
    memchr::memchr_iter(b'=', bytes).any(|at| {
        let name = bytes[..at].trim_ascii_end();
        let is_address = ADDRESSES.iter().any(|known| {
            name.len().checked_sub(known.len()).is_some_and(|cut| name[cut..].eq_ignore_ascii_case(known.as_bytes()))
        });
        let value = bytes[at + 1..].trim_ascii_start();
        let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
        is_address && !["https://", "http://", "mailto:", "#"].iter().any(|usual| value.starts_with(usual.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absolute(html: &str) -> String {
        let base = "https://shop.example/app/".parse().expect("an address");
        with_absolute_links(html, &base).unwrap_or_else(|| html.to_owned())
    }

    #[test]
    fn every_relative_link_becomes_absolute() {
        for (link, expected) in [
            ("/orders/A-17", "https://shop.example/orders/A-17"),
            ("orders?a=1&amp;b=2#top", "https://shop.example/app/orders?a=1&amp;b=2#top"),
            ("../img/a b.png", "https://shop.example/img/a%20b.png"),
            ("?page=2", "https://shop.example/app/?page=2"),
            ("//cdn.example/x.png", "https://cdn.example/x.png"),
            (" /spaced ", "https://shop.example/spaced"),
            ("/at/10:30", "https://shop.example/at/10:30"),
            ("/it&#x27;s", "https://shop.example/it&#x27;s"),
        ] {
            assert_eq!(absolute(&format!("<a href=\"{link}\">x</a>")), format!("<a href=\"{expected}\">x</a>"));
        }
        assert_eq!(
            absolute("<IMG alt='href=/no' SRC = /a.png width=1><td background='/b.png'>/c</td><a href='/d'>"),
            "<IMG alt='href=/no' SRC = \"https://shop.example/a.png\" width=1><td background=\"https://shop.example/b.png\">/c</td>\
             <a href=\"https://shop.example/d\">"
        );
        assert_eq!(
            absolute("é<!--[if mso]><v:fill src=\"/a.png\"/><![endif]--><!-- <a href=\"/b\"> -->"),
            "é<!--[if mso]><v:fill src=\"https://shop.example/a.png\"/><![endif]--><!-- <a href=\"/b\"> -->"
        );
    }

    #[test]
    fn other_links_are_not_changed() {
        for link in [
            "https://else.example/a b",
            "HTTP://else.example",
            "mailto:a@b.example?subject=x",
            "tel:+49123",
            "cid:logo",
            "data:image/png;base64,AA==",
            "myapp+x://open/1",
            "#top",
            "",
            "{optout_confirm_url}",
            "{{${set_user_to_unsubscribed_url}}}",
            "[unsubscribe]",
            "*|UNSUB|*",
            "%%unsubscribe%%",
        ] {
            let html = format!("<a href=\"{link}\">x</a>");
            assert_eq!(absolute(&html), html);
            assert_eq!(relative(&html, None), [], "{link}");
        }
        let other = "<a data-href=\"/x\" title='src=/y'>x</a><script>a.href = \"/z\"</script>";
        assert_eq!(absolute(other), other);
    }

    #[test]
    fn links_that_stay_relative_are_found() {
        let base = "https://shop.example".parse().expect("an address");
        let html = "<a href=\"/a\"><img src='//[b'><a href=\"https://c.example\">";
        assert_eq!(relative(html, None), [(9, "/a"), (23, "//[b")]);
        assert_eq!(relative(html, Some(&base)), [(23, "//[b")]);
    }
}
