//! Derives the text part of a mail from its HTML with `html2text`. Its input is adapted first: block elements become `div`s, a rule
//! becomes a line of dashes, and placeholders replace long words, which it would split.

use super::html::{self, Piece, Tag};

/// RFC 5322, section 2.1.1, recommends lines of at most 78 characters.
const WIDTH: usize = 78;
/// Longer words are replaced by placeholders. Shorter ones fit into the columns of tables.
const WORD_MAX: usize = 20;
/// Placeholders of words: the private use characters of plane 15.
const PLACEHOLDERS: std::ops::RangeInclusive<char> = '\u{f0000}'..='\u{ffffd}';
/// Scripts from here on (Thai, Khmer, those of East Asia) are written without spaces and can be split anywhere.
const UNSPACED: char = '\u{e00}';
/// The longest name of an HTML entity.
const ENTITY_MAX: usize = 32;
const RULE: &str = "----------";
/// Block elements that html2text treats as inline.
const BLOCKS: [&str; 18] = [
    "address",
    "article",
    "aside",
    "center",
    "details",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "header",
    "hgroup",
    "legend",
    "main",
    "nav",
    "search",
    "section",
    "summary",
];

/// The visible text of a mail, with links as footnotes.
pub(super) fn of_html(head: &str, body: &str) -> Result<String, String> {
    let pieces = html::pieces(body);
    html::check_nesting(body, &pieces)?;
    let (prepared, words) = prepared(body, &pieces);
    let page = format!("<html><head>{head}</head><body>{prepared}</body></html>");
    let config = html2text::config::plain().use_doc_css().no_table_borders().allow_width_overflow().no_link_wrapping();
    let text =
        config.string_from_read(page.as_bytes(), WIDTH).map_err(|e| format!("cannot derive text from it: {e}"))?;
    Ok(if words.is_empty() { text } else { with_words(&text, &words) })
}

/// The HTML adapted for html2text, and the words that placeholders replace.
fn prepared<'a>(body: &'a str, pieces: &[Piece]) -> (String, Vec<&'a str>) {
    let (mut out, mut words) = (String::with_capacity(body.len()), Vec::new());
    let can_replace = !body.contains(|c| PLACEHOLDERS.contains(&c));
    for piece in pieces {
        match piece {
            Piece::Text(range) if can_replace => replace_long_words(&body[range.clone()], &mut out, &mut words),
            Piece::Tag(tag) => push_tag(body, tag, &mut out),
            Piece::Text(range) | Piece::Comment(range) | Piece::Raw(range) => out.push_str(&body[range.clone()]),
        }
    }
    (out, words)
}

fn push_tag(body: &str, tag: &Tag, out: &mut String) {
    let rest = &body[tag.name.end..tag.range.end];
    if tag.is(body, "hr") {
        let attributes = rest.trim_end_matches(['>', '/']);
        let rule = if tag.is_end { String::new() } else { format!("<div{attributes}>{RULE}</div>") };
        out.push_str(&rule);
    } else if BLOCKS.iter().any(|name| tag.is(body, name)) {
        out.push_str(if tag.is_end { "</div" } else { "<div" });
        out.push_str(rest);
    } else {
        out.push_str(&body[tag.range.clone()]);
    }
}

/// Replaces each long word of a text by a placeholder. Entities (`&amp;`) stay, because html2text decodes them.
fn replace_long_words<'a>(text: &'a str, out: &mut String, words: &mut Vec<&'a str>) {
    let mut rest = text;
    while !rest.is_empty() {
        let is_word = |c: char| !c.is_whitespace() && c != '&' && c < UNSPACED;
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = &rest[..length];
        let placeholder =
            u32::try_from(words.len()).ok().and_then(|n| char::from_u32(u32::from(*PLACEHOLDERS.start()) + n));
        match placeholder.filter(|c| PLACEHOLDERS.contains(c) && word.chars().count() > WORD_MAX) {
            Some(placeholder) => {
                words.push(word);
                out.push(placeholder);
            }
            None => out.push_str(word),
        }
        let other = rest[length..].find(is_word).unwrap_or(rest.len() - length);
        let entity = rest[length..].strip_prefix('&').and_then(|entity| entity.find(';').map(|end| &entity[..end]));
        let entity = entity
            .filter(|name| name.len() <= ENTITY_MAX && name.chars().all(|c| c == '#' || c.is_ascii_alphanumeric()));
        let kept = entity.map_or(other, |name| other.max(name.len() + 2));
        out.push_str(&rest[length..length + kept]);
        rest = &rest[length + kept..];
    }
}

/// Puts the words back, and wraps lines that become too long.
fn with_words(text: &str, words: &[&str]) -> String {
    let word = |c: char| words.get((u32::from(c) - u32::from(*PLACEHOLDERS.start())) as usize).copied();
    let mut out = String::with_capacity(text.len() + words.iter().map(|word| word.len()).sum::<usize>());
    for line in text.split_inclusive('\n') {
        if !line.contains(|c| PLACEHOLDERS.contains(&c)) {
            out.push_str(line);
            continue;
        }
        let mut whole = String::with_capacity(line.len());
        for c in line.chars() {
            match PLACEHOLDERS.contains(&c).then(|| word(c)).flatten() {
                Some(word) => whole.push_str(word),
                None => whole.push(c),
            }
        }
        push_wrapped(&whole, &mut out);
    }
    out
}

/// Wraps a line at spaces. Continuation lines are indented like the first one (in a list or quotation).
fn push_wrapped(line: &str, out: &mut String) {
    let marks = line.len() - line.trim_start_matches([' ', '>', '*']).len();
    let (mut room, mut is_first) = (WIDTH - line[..marks].len().min(WIDTH), true);
    let margin: String = line[..marks].chars().map(|c| if c == '*' { ' ' } else { c }).collect();
    out.push_str(&line[..marks]);
    for word in line[marks..].split_inclusive(' ') {
        let width = word.trim_end().chars().count();
        if width > room && !is_first {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&margin);
            room = WIDTH.saturating_sub(margin.chars().count());
        }
        out.push_str(word);
        room = room.saturating_sub(word.chars().count());
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        of_html("", body).expect("a text").trim_end().to_owned()
    }

    #[test]
    fn urls_and_words_are_never_split() {
        let url = format!("https://campus.example/{}?next=/a/b", "confirm-".repeat(20));
        let page =
            text(&format!("<p>Go to {url} before the first of March, or the link in this message will be over.</p>"));
        assert_eq!(page, format!("Go to\n{url}\nbefore the first of March, or the link in this message will be over."));
        let amp = url.replace('?', "?x=1&amp;");
        assert!(text(&format!("<p>{amp}</p>")).contains(&amp.replace("&amp;", "&")));
        let word = "Donaudampfschifffahrtsgesellschaftskapitänswitwenrentenauszahlungsstellenbesucherverzeichnis";
        assert!(text(&format!("<div>Das <b>{word}</b>.</div>")).contains(word));
        assert_eq!(text(&format!("<a href=\"{url}\">{url}</a>")), format!("[{url}][1]\n\n[1]: {url}"));
        let cells = "<table><tr><td>one</td><td>A-confirmation-code-that-must-not-be-cut-0123456789</td></tr></table>";
        assert!(text(cells).contains("A-confirmation-code-that-must-not-be-cut-0123456789"));
    }

    #[test]
    fn continuation_lines_are_indented() {
        let url = format!("https://campus.example/{}", "x".repeat(60));
        let item = text(&format!("<ul><li>Open {url} in a browser</li></ul>"));
        assert_eq!(item, format!("* Open\n  {url}\n  in a browser"));
        let quotation = text(&format!("<blockquote>Open {url} in a browser</blockquote>"));
        assert_eq!(quotation, format!("> Open\n> {url}\n> in a browser"));
    }

    #[test]
    fn blocks_are_separated() {
        assert_eq!(text("5<hr>3"), "5\n----------\n3");
        assert_eq!(text("<p>5<hr/>3</p>"), "5\n\n----------\n3");
        assert_eq!(text("5<hr style='display: none'>3"), "53", "as in a browser");
        for name in BLOCKS {
            let page = text(&format!("a<{name} class=\"x\">b</{name}>c"));
            assert_eq!(page, "a\nb\nc", "{name}");
        }
    }

    #[test]
    fn scripts_without_spaces_are_split_anywhere() {
        let lines = text(&format!("<p>{}</p>", "確認".repeat(100)));
        assert!(lines.lines().count() > 4, "{lines}");
        assert_eq!(lines.replace('\n', ""), "確認".repeat(100));
    }

    #[test]
    fn odd_texts_are_kept() {
        for odd in ["&", "a & b", "&amp", "&#38;", "&;", "x&y;z", "\u{f0000}", "AT&amp;T"] {
            let long = format!("{odd} {}", "w".repeat(50));
            let page = text(&format!("<p>{long}</p>"));
            assert!(page.ends_with(&"w".repeat(50)), "{odd}: {page}");
        }
        assert_eq!(text("<p>x &lt;b&gt; &amp;amp; y</p>"), "x <b> &amp; y");
    }
}
