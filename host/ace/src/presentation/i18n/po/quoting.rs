//! The quoted strings of `.po` files, with the escapes of C as in gettext.

/// Characters with an escape of a backslash and a letter.
const CONTROLS: [(char, u8); 7] =
    [('n', b'\n'), ('t', b'\t'), ('r', b'\r'), ('a', 0x07), ('b', 0x08), ('v', 0x0b), ('f', 0x0c)];

/// The text of consecutive quoted strings, unescaped.
pub(super) fn unquoted(quoted: &str) -> Result<String, String> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while !rest.is_empty() {
        let inner = rest.strip_prefix('"').ok_or("a quote inside a text needs a backslash before it")?;
        rest = string(inner, &mut text)?.trim_start();
    }
    String::from_utf8(text).map_err(|_| "the unescaped text is not UTF-8".to_owned())
}

/// Reads up to the closing quote of a string and returns the rest.
fn string<'a>(inner: &'a str, text: &mut Vec<u8>) -> Result<&'a str, String> {
    const UNCLOSED: &str = "a closing quote is missing";
    let mut rest = inner;
    loop {
        let at = rest.find(['"', '\\']).ok_or(UNCLOSED)?;
        text.extend_from_slice(&rest.as_bytes()[..at]);
        let (is_end, after) = (rest[at..].starts_with('"'), &rest[at + 1..]);
        if is_end {
            return Ok(after);
        }
        let escape = after.chars().next().ok_or(UNCLOSED)?;
        rest = &after[escape.len_utf8()..];
        match escape {
            '"' | '\\' => text.push(escape as u8),
            '0'..='7' => rest = number(after, 8, 3, text)?,
            'x' => rest = number(rest, 16, usize::MAX, text)?,
            _ => {
                let control = CONTROLS.iter().find(|(letter, _)| *letter == escape);
                text.push(control.ok_or_else(|| format!("the escape `\\{escape}` is unknown"))?.1);
            }
        }
    }
}

/// Reads a byte escape in digits and returns the rest.
fn number<'a>(digits: &'a str, radix: u32, length_max: usize, text: &mut Vec<u8>) -> Result<&'a str, String> {
    let length = digits.chars().take(length_max).take_while(|c| c.is_digit(radix)).count();
    let (digits, rest) = digits.split_at(length);
    let byte = u8::from_str_radix(digits, radix);
    text.push(byte.map_err(|_| format!("the escape `{digits}` is not a byte"))?);
    Ok(rest)
}

/// A text as a quoted string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let control = CONTROLS.iter().find(|(_, byte)| char::from(*byte) == c).map(|(letter, _)| *letter);
        if let Some(escape) = control.or(Some(c).filter(|c| matches!(c, '"' | '\\'))) {
            quoted.extend(['\\', escape]);
        } else {
            quoted.push(c);
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::PoFile;

    #[test]
    fn every_escape_of_gettext_is_read_and_written() {
        let file = PoFile::parse(
            r#"msgid "\a\b\f\n\r\t\v\"\\" "\x41\101\303\251\7" "é"
msgstr """#,
        )
        .unwrap();
        let id = "\u{7}\u{8}\u{c}\n\r\t\u{b}\"\\AAé\u{7}é";
        assert_eq!(file.entries[0].id, id);
        assert_eq!(PoFile::parse(&file.to_string()).unwrap().entries[0].id, id);
        let errors = |text: &str| PoFile::read(text).1.into_iter().map(|error| error.message).collect::<Vec<_>>();
        assert_eq!(errors("msgid \"\\xff\"\nmsgstr \"\""), ["the unescaped text is not UTF-8"]);
        assert_eq!(errors("msgid \"\\777\"\nmsgstr \"\""), ["the escape `777` is not a byte"]);
    }
}
