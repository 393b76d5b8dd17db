//! The HTML file of a mail.

/// The parts of a mail in its file. They are trimmed.
pub struct Mail<'a> {
    pub to: Option<&'a str>,
    pub from_name: &'a str,
    pub subject: &'a str,
    pub head: &'a str,
    pub body_html: &'a str,
    pub body: &'a str,
}

impl Mail<'_> {
    /// edx-ace's layout: the page, with the other parts in comments at its end.
    pub fn page(&self) -> String {
        let (head, body_html) = (self.head.trim(), self.body_html.trim());
        let mut page = format!(
            "\n<!DOCTYPE html>\n<html>\n    <head>\n        {head}\n    </head>\n    <body>\n        {body_html}\n    </body>\n"
        );
        let comments = [
            ("to", self.to.unwrap_or("None")),
            ("from_name", self.from_name),
            ("subject", self.subject),
            ("body", self.body),
        ];
        for (label, text) in comments {
            page.push_str(&format!("    <!-- {label}: {} -->\n", comment(text.trim())));
        }
        page.push_str("</html>\n");
        page
    }
}

/// Text that cannot end a comment: the second of two hyphens becomes `&#45;`.
fn comment(text: &str) -> String {
    text.replace("--", "-&#45;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_edx_aces() {
        let mail = Mail {
            to: Some("a@example.com"),
            from_name: " Jane\n",
            subject: "Two\nlines ",
            head: "<title>x</title>\n",
            body_html: "\n<p>Hi</p>",
            body: "Hi\n",
        };
        let expected = "\n<!DOCTYPE html>\n<html>\n    <head>\n        <title>x</title>\n    </head>\n    <body>\n        \
            <p>Hi</p>\n    </body>\n    <!-- to: a@example.com -->\n    <!-- from_name: Jane -->\n    \
            <!-- subject: Two\nlines -->\n    <!-- body: Hi -->\n</html>\n";
        assert_eq!(mail.page(), expected);
    }

    #[test]
    fn no_text_ends_its_comment() {
        for text in ["-->", "--!>", "a -- b", "<!-- x", "-----", "----->", "-", "->", ">"] {
            assert!(!comment(text).contains("--"), "{text:?} became {:?}", comment(text));
        }
        let mail = Mail { to: None, from_name: "", subject: "--><script>", head: "", body_html: "", body: "-" };
        let page = mail.page();
        assert!(page.contains("<!-- subject: -&#45;><script> -->"), "{page}");
        assert_eq!(page.matches("-->").count(), 4, "{page}");
    }
}
