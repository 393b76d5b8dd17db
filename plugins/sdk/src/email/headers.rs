//! The headers of a message, and one-click unsubscribe (RFC 8058).

/// Name and value.
pub type Header = (String, String);

const UNSUBSCRIBE: &str = "List-Unsubscribe";
const UNSUBSCRIBE_POST: &str = "List-Unsubscribe-Post";
/// The only value RFC 8058, section 3.1, allows.
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// The message's headers with a valid List-Unsubscribe-Post. edx-platform puts the URL there, which mail clients do not accept.
pub fn corrected(mut headers: Vec<Header>) -> Vec<Header> {
    for (_, value) in headers.iter_mut().filter(|(name, _)| is(name, UNSUBSCRIBE_POST)) {
        ONE_CLICK.clone_into(value);
    }
    headers
}

/// The longest URL. A line has at most 998 bytes (RFC 5322, section 2.1.1); the rest is for the header's name and the growth of a host
/// by IDNA.
const URL_BYTES_MAX: usize = 900;

/// Whether the message has a List-Unsubscribe.
pub fn has_unsubscribe(headers: &[Header]) -> bool {
    headers.iter().any(|(name, _)| is(name, UNSUBSCRIBE))
}

/// Adds both headers of RFC 8058 for an https URL that fits into a line.
///
/// # Errors
///
/// The unchanged headers and why the URL cannot be used, for the log.
pub fn with_one_click_unsubscribe(mut headers: Vec<Header>, url: &str) -> Result<Vec<Header>, (Vec<Header>, String)> {
    let url = match encoded(url.trim()) {
        Ok(url) => url,
        Err(why) => return Err((headers, why)),
    };
    headers.push((UNSUBSCRIBE.to_owned(), format!("<{url}>")));
    if !headers.iter().any(|(name, _)| is(name, UNSUBSCRIBE_POST)) {
        headers.push((UNSUBSCRIBE_POST.to_owned(), ONE_CLICK.to_owned()));
    }
    Ok(headers)
}

/// The URL with characters that would end it in a header (commas, spaces, brackets) percent-encoded. The mailer encodes a non-ASCII host.
fn encoded(url: &str) -> Result<String, String> {
    let is_https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let rest = if is_https { &url[8..] } else { "" };
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | ',');
    if host.is_empty() || host.contains(is_forbidden) || url.contains(char::is_control) {
        return Err("it is not an https URL".to_owned());
    }
    let mut encoded = url[..8 + host.len()].to_owned();
    for c in rest[host.len()..].chars() {
        if c.is_ascii_graphic() && !is_forbidden(c) {
            encoded.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    match encoded.len() {
        ..=URL_BYTES_MAX => Ok(encoded),
        bytes => Err(format!("it has {bytes} bytes; the maximum is {URL_BYTES_MAX}")),
    }
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
    fn an_invalid_post_header_is_corrected() {
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
    fn an_https_url_adds_both_headers() {
        let expected = vec![
            header("X-A", "b"),
            header("List-Unsubscribe", "<https://example.com/u?id=7&k=%2C>"),
            header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ];
        let url = " https://example.com/u?id=7&k=%2C\n";
        assert_eq!(with_one_click_unsubscribe(vec![header("X-A", "b")], url), Ok(expected));
    }

    #[test]
    fn a_post_header_of_the_message_is_not_duplicated() {
        let headers = with_one_click_unsubscribe(vec![header("List-Unsubscribe-Post", "x")], "https://example.com/u");
        let headers = headers.expect("an https URL");
        assert_eq!(headers.iter().filter(|(name, _)| name == "List-Unsubscribe-Post").count(), 1);
    }

    #[test]
    fn an_unusable_url_is_omitted_with_its_reason() {
        let long = format!("https://e.c/{}", "x".repeat(900));
        for (url, why) in [
            ("", "not an https"),
            ("https://", "not an https"),
            ("/u", "not an https"),
            ("http://example.com/u", "not an https"),
            ("mailto:a@b.c", "not an https"),
            ("https://e.c/>\r\nBcc: x", "not an https"),
            ("https://a, b.c/", "not an https"),
            (long.as_str(), "912 bytes"),
        ] {
            let (headers, reason) = with_one_click_unsubscribe(vec![header("X-A", "b")], url).expect_err(url);
            assert!(headers == [header("X-A", "b")] && reason.contains(why), "{url:?}: {reason}");
        }
    }

    #[test]
    fn characters_that_would_end_the_url_are_encoded() {
        for (url, expected) in [
            ("https://e.c/u?courses=a,b", "<https://e.c/u?courses=a%2Cb>"),
            ("https://e.c/a b?<x>", "<https://e.c/a%20b?%3Cx%3E>"),
            ("https://e.c/é", "<https://e.c/%C3%A9>"),
            ("https://bücher.example/u", "<https://bücher.example/u>"),
            ("https://e.c", "<https://e.c>"),
        ] {
            let headers = with_one_click_unsubscribe(Vec::new(), url).expect("usable");
            assert_eq!(headers[0].1, expected);
        }
        let url = format!("https://e.c/{}", "x".repeat(800));
        assert_eq!(with_one_click_unsubscribe(Vec::new(), &url).map(|headers| headers.len()), Ok(2));
    }
}
