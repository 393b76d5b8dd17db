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

/// A line has 998 bytes (RFC 5322, section 2.1.1); the rest of it is for the header's name and a host that gets longer by IDNA.
const URL_BYTES_MAX: usize = 900;

/// Whether the message says itself how to unsubscribe.
pub fn has_unsubscribe(headers: &[Header]) -> bool {
    headers.iter().any(|(name, _)| is(name, UNSUBSCRIBE))
}

/// The headers, with both of RFC 8058 where the URL can serve: https alone can, and only what fits into a line.
///
/// # Errors
///
/// Why the URL cannot serve, for the log: the mail goes out without the headers.
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

/// The URL with what ends it in a header (a comma, a space, brackets) percent-encoded. A host beyond ASCII is left to the mailer.
fn encoded(url: &str) -> Result<String, String> {
    let is_https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let rest = if is_https { &url[8..] } else { "" };
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let is_unfit = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | ',');
    if host.is_empty() || host.contains(is_unfit) || url.contains(char::is_control) {
        return Err("it is no https URL".to_owned());
    }
    let mut encoded = url[..8 + host.len()].to_owned();
    for c in rest[host.len()..].chars() {
        if c.is_ascii_graphic() && !is_unfit(c) {
            encoded.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    match encoded.len() {
        ..=URL_BYTES_MAX => Ok(encoded),
        bytes => Err(format!("it has {bytes} bytes, and a header's line takes {URL_BYTES_MAX}")),
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
        assert_eq!(with_one_click_unsubscribe(vec![header("X-A", "b")], url), Ok(expected));
    }

    #[test]
    fn a_post_header_of_the_message_is_not_doubled() {
        let headers = with_one_click_unsubscribe(vec![header("List-Unsubscribe-Post", "x")], "https://example.com/u");
        let headers = headers.expect("an https URL");
        assert_eq!(headers.iter().filter(|(name, _)| name == "List-Unsubscribe-Post").count(), 1);
    }

    #[test]
    fn what_cannot_unsubscribe_is_left_out_and_says_why() {
        let long = format!("https://e.c/{}", "x".repeat(900));
        for (url, why) in [
            ("", "no https"),
            ("https://", "no https"),
            ("/u", "no https"),
            ("http://example.com/u", "no https"),
            ("mailto:a@b.c", "no https"),
            ("https://e.c/>\r\nBcc: x", "no https"),
            ("https://a, b.c/", "no https"),
            (long.as_str(), "912 bytes"),
        ] {
            let (headers, told) = with_one_click_unsubscribe(vec![header("X-A", "b")], url).expect_err(url);
            assert!(headers == [header("X-A", "b")] && told.contains(why), "{url:?}: {told}");
        }
    }

    #[test]
    fn what_would_end_the_url_in_the_header_is_encoded() {
        for (url, expected) in [
            ("https://e.c/u?courses=a,b", "<https://e.c/u?courses=a%2Cb>"),
            ("https://e.c/a b?<x>", "<https://e.c/a%20b?%3Cx%3E>"),
            ("https://e.c/é", "<https://e.c/%C3%A9>"),
            ("https://bücher.example/u", "<https://bücher.example/u>"),
            ("https://e.c", "<https://e.c>"),
        ] {
            let headers = with_one_click_unsubscribe(Vec::new(), url).expect("it can serve");
            assert_eq!(headers[0].1, expected);
        }
        let url = format!("https://e.c/{}", "x".repeat(800));
        assert_eq!(with_one_click_unsubscribe(Vec::new(), &url).map(|headers| headers.len()), Ok(2));
    }
}
