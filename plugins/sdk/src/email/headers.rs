//! The headers a message asks for, and one-click unsubscribe (RFC 8058).

/// Name and value.
pub type Header = (String, String);

const UNSUBSCRIBE: &str = "List-Unsubscribe";
const UNSUBSCRIBE_POST: &str = "List-Unsubscribe-Post";
/// The only value RFC 8058, section 3.1, allows.
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// The message's headers with a List-Unsubscribe-Post that works. edx-platform puts the URL there, which no mail client
/// takes for one-click.
pub fn corrected(mut headers: Vec<Header>) -> Vec<Header> {
    for (_, value) in headers.iter_mut().filter(|(name, _)| is(name, UNSUBSCRIBE_POST)) {
        ONE_CLICK.clone_into(value);
    }
    headers
}

/// Whether the message says itself how to unsubscribe.
pub fn has_unsubscribe(headers: &[Header]) -> bool {
    headers.iter().any(|(name, _)| is(name, UNSUBSCRIBE))
}

/// The headers, with both of RFC 8058 where the URL can serve: https alone can.
pub fn with_one_click_unsubscribe(mut headers: Vec<Header>, url: &str) -> Vec<Header> {
    let url = url.trim();
    if !can_unsubscribe(url) {
        return headers;
    }
    headers.push((UNSUBSCRIBE.to_owned(), format!("<{url}>")));
    if !headers.iter().any(|(name, _)| is(name, UNSUBSCRIBE_POST)) {
        headers.push((UNSUBSCRIBE_POST.to_owned(), ONE_CLICK.to_owned()));
    }
    headers
}

fn can_unsubscribe(url: &str) -> bool {
    let is_https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    is_https && url.len() > 8 && url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | ','))
}

fn is(name: &str, header: &str) -> bool {
    name.trim().eq_ignore_ascii_case(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_post_header_that_no_client_takes_is_corrected() {
        let url = "<https://example.com/u>";
        let given = vec![header("List-Unsubscribe", url), header("list-unsubscribe-post", url), header("X-A", "b")];
        let expected = vec![
            header("List-Unsubscribe", url),
            header("list-unsubscribe-post", "List-Unsubscribe=One-Click"),
            header("X-A", "b"),
        ];
        assert_eq!(corrected(given), expected);
    }

    #[test]
    fn an_https_url_makes_both_headers() {
        let expected = vec![
            header("X-A", "b"),
            header("List-Unsubscribe", "<https://example.com/u?id=7&k=%2C>"),
            header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ];
        let url = " https://example.com/u?id=7&k=%2C\n";
        assert_eq!(with_one_click_unsubscribe(vec![header("X-A", "b")], url), expected);
    }

    #[test]
    fn a_post_header_of_the_message_is_not_doubled() {
        let headers = with_one_click_unsubscribe(vec![header("List-Unsubscribe-Post", "x")], "https://example.com/u");
        assert_eq!(headers.iter().filter(|(name, _)| name == "List-Unsubscribe-Post").count(), 1);
    }

    #[test]
    fn what_cannot_unsubscribe_is_left_out() {
        for url in
            ["", "https://", "/u", "http://example.com/u", "mailto:a@b.c", "https://e.c/>\r\nBcc: x", "https://é.c"]
        {
            assert_eq!(with_one_click_unsubscribe(Vec::new(), url), Vec::new(), "{url:?}");
        }
    }
}
