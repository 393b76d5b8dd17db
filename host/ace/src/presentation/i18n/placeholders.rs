//! Python's placeholders in translatable texts: `%(name)s`, and `%%` for a percent sign.

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// The pieces of a text in order. A percent sign that starts neither a placeholder nor `%%` is literal.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = match rest.find('%') {
            Some(0) => first(rest),
            Some(at) => (Piece::Text(&rest[..at]), &rest[at..]),
            None => (Piece::Text(rest), ""),
        };
        rest = after;
        Some(piece)
    })
}

/// The first piece of a text that starts with a percent sign, and the rest.
fn first(text: &str) -> (Piece<'_>, &str) {
    if let Some(after) = text.strip_prefix("%%") {
        return (Piece::Text("%"), after);
    }
    let placeholder = text.strip_prefix("%(").and_then(|rest| rest.split_once(')'));
    let placeholder = placeholder.and_then(|(name, after)| Some((name, after.strip_prefix('s')?)));
    match placeholder.filter(|(name, _)| is_name(name)) {
        Some((name, after)) => (Piece::Name(name), after),
        None => (Piece::Text("%"), &text[1..]),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.".contains(c))
}

/// The names of a text's placeholders.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// Malformed placeholders: `% (name)s`, `%(name)d`, `%(name`.
pub(super) fn malformed(text: &str) -> impl Iterator<Item = &str> {
    let percents = text.match_indices('%').map(|(at, _)| at);
    // The second sign of `%%` does not start a placeholder.
    let mut after = 0;
    percents.filter_map(move |at| {
        let rest = text.get(at..).filter(|_| at >= after)?;
        after = at + if rest.starts_with("%%") { 2 } else { 1 };
        let name = rest[1..].trim_start().strip_prefix('(')?;
        if matches!(first(rest), (Piece::Name(_), _)) {
            return None;
        }
        // Includes the letter after the parenthesis, if any.
        let end = name.find(')').map_or(name.len(), |end| end + 1);
        let letter = name[end..].chars().next().filter(|c| c.is_alphabetic()).map_or(0, char::len_utf8);
        Some(&rest[..rest.len() - name.len() + end + letter])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_distinguished_from_percent_signs() {
        let found: Vec<_> = pieces("a %(b)s 5%% %c %( %(é.x)s%").collect();
        use Piece::{Name, Text};
        let expected = [
            Text("a "),
            Name("b"),
            Text(" 5"),
            Text("%"),
            Text(" "),
            Text("%"),
            Text("c "),
            Text("%"),
            Text("( "),
            Name("é.x"),
            Text("%"),
        ];
        assert_eq!(found, expected);
        assert_eq!(names("%(x)s and %(x y)s, 100 %").collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn malformed_placeholders_are_found() {
        let found: Vec<_> = malformed("%(a)s %%(b) % (c)s %(d)d 5% (e %( f)s 5% of").collect();
        assert_eq!(found, ["% (c)s", "%(d)d", "% (e %( f)s", "%( f)s"]);
        assert_eq!(malformed("100 %").next(), None);
    }
}
