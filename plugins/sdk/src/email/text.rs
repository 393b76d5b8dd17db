//! Converts rendered files and options to the parts of a mail.

/// A single line for a subject or a name in a header: runs of whitespace and control characters become one space, none at the ends.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// edx-ace's page with the two rendered files, byte for byte.
pub fn page(head: &str, body: &str) -> String {
    format!("<!DOCTYPE html>\n<html>\n  <head>\n    {head}\n  </head>\n  <body>\n    {body}\n  </body>\n</html>")
}

/// An address or a list of addresses in JSON, without empty ones. Null and an empty text have none.
pub fn one_or_many(json: &str) -> Result<Vec<String>, String> {
    let expected = |e| format!("expected an address or a list of addresses: {e}");
    let mut all = match json {
        "" | "null" => Vec::new(),
        text if text.starts_with('"') => vec![serde_json::from_str(text).map_err(expected)?],
        text => serde_json::from_str::<Vec<String>>(text).map_err(expected)?,
    };
    all.retain(|address| !address.trim().is_empty());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_only_single_spaces() {
        assert_eq!(one_line("\n  Your\r\n\tcourse \u{a0} starts\u{2028}\u{1c}now \n"), "Your course starts now");
        assert_eq!(one_line(&"a \n".repeat(100)), vec!["a"; 100].join(" "), "more runs than edx-ace's 32");
        assert_eq!(one_line("Zoë\0 & 日本"), "Zoë & 日本");
        assert_eq!(one_line(" \n "), "");
    }

    #[test]
    fn the_page_does_not_change_its_parts() {
        let expected = "<!DOCTYPE html>\n<html>\n  <head>\n    <style>\n</style>\n\n  </head>\n  <body>\n    <p>Hi</p> \n  </body>\n</html>";
        assert_eq!(page("<style>\n</style>\n", "<p>Hi</p> "), expected);
    }

    #[test]
    fn one_address_or_a_list_of_them() {
        assert_eq!(one_or_many("\"a@example.com\""), Ok(vec!["a@example.com".to_owned()]));
        assert_eq!(one_or_many("[\"a@b.c\",\"\",\"d@e.f\"]"), Ok(vec!["a@b.c".to_owned(), "d@e.f".to_owned()]));
        for none in ["", "null", "\"\"", "[]"] {
            assert_eq!(one_or_many(none), Ok(Vec::new()), "{none}");
        }
        assert!(one_or_many("[7]").expect_err("a number").contains("list of addresses"));
        assert!(one_or_many("{}").is_err());
    }
}
