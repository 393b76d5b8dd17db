//! URLs from guests. What a parser would silently repair, or a server might interpret differently, is rejected, so that the URL
//! that is checked against the grants is the URL that is requested.

use reqwest::Url;

const URL_BYTES_MAX: usize = 8 * 1024;

/// Parses an absolute http or https URL into the form of the URL standard, without its fragment. The error does not quote the
/// URL.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("the URL is longer than {URL_BYTES_MAX} bytes"));
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("the URL contains a backslash, a space or a control character".to_owned());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err("the URL must start with http:// or https://".to_owned());
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err("the URL has no host".to_owned());
    }
    if authority.contains('@') {
        return Err("the URL contains a user name; put credentials in a header".to_owned());
    }
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    if path.split('/').any(is_unclear) {
        return Err("the URL's path contains a dot segment or an encoded slash".to_owned());
    }
    if path.split('/').any(is_mangled) {
        return Err(
            "the URL's path contains an encoded control character, a faulty encoding, or bytes that are not UTF-8"
                .to_owned(),
        );
    }
    let mut url = Url::parse(text).map_err(|e| format!("the URL cannot be read: {e}"))?;
    url.set_fragment(None);
    Ok(url)
}

/// A segment that some server reads as several segments or as `..`: encoded once or more often, with parameters after a semicolon
/// (`..;x`), which servlet containers remove, or with spaces or dots around it, which Windows removes.
fn is_unclear(segment: &str) -> bool {
    let segment = decoded_once(segment);
    let name = segment.split(';').next().unwrap_or_default().replace("%2e", ".").replace("%20", " ");
    let is_step = matches!(name.trim_matches(' '), "." | "..") || name.split(' ').all(|part| matches!(part, "" | "."));
    (is_step && name.contains('.')) || segment.contains("%2f") || segment.contains("%5c")
}

/// A segment that servers decode differently: with a control character (`..%00`, `..%09`), which some remove or stop at; with bytes
/// that are not UTF-8, such as an overlong slash or dot (`%c0%ae`); with a faulty `%`, or UTF-16 (`%u002e`); or with wide dots and
/// slashes, which compatibility normalization makes narrow.
fn is_mangled(segment: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    let text = decoded_once(segment);
    let is_utf16 = |rest: &str| rest.starts_with('u') && is_escape(&rest[1..]);
    if segment.split('%').skip(1).any(|rest| !is_escape(rest)) || text.split('%').skip(1).any(is_utf16) {
        return true;
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
    let is_dot = |c: char| matches!(c, '.' | '\u{2024}' | '\u{2025}' | '\u{fe52}' | '\u{ff0e}');
    let is_slash = |c: char| matches!(c, '\u{ff0f}' | '\u{ff3c}' | '\u{fe68}');
    std::str::from_utf8(&decoded).map_or(true, |text| {
        let are_wide_dots = !text.is_ascii() && text.chars().all(is_dot);
        are_wide_dots || text.contains(|c: char| c.is_control() || is_slash(c))
    })
}

/// Removes every layer of percent-encoding except the last.
fn decoded_once(segment: &str) -> String {
    let mut segment = segment.to_ascii_lowercase();
    while segment.contains("%25") {
        segment = segment.replace("%25", "%");
    }
    segment
}

/// A URL that is safe to show: without its query, which may contain secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalized() {
        let table = [
            ("https://API.Example.com/v1", "https://api.example.com/v1"),
            ("HTTPS://api.example.com:443", "https://api.example.com/"),
            ("http://api.example.com:80/?q=../%2f", "http://api.example.com/?q=../%2f"),
            ("https://api.example.com:8443/a/", "https://api.example.com:8443/a/"),
            ("https://api.example.com/a?b=c#d", "https://api.example.com/a?b=c"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
            ("https://ex%61mple.com/", "https://example.com/"),
            ("https://example.com./", "https://example.com./"),
            ("https://0x7f.1/", "https://127.0.0.1/"),
            ("https://2130706433/", "https://127.0.0.1/"),
            ("https://0177.0.0.1/", "https://127.0.0.1/"),
            ("https://127.0.0.1./", "https://127.0.0.1/"),
            ("https://[0:0::1]:99/", "https://[::1]:99/"),
            ("https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/"),
            ("https://a.example/..a/a../...;x/%2ea", "https://a.example/..a/a../...;x/%2ea"),
            ("https://a.example/50%25", "https://a.example/50%25"),
            ("https://a.example/100%25unique/a%20b/%20", "https://a.example/100%25unique/a%20b/%20"),
            ("https://a.example/a.%20b/%C3%BC…", "https://a.example/a.%20b/%C3%BC%E2%80%A6"),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).map(String::from), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn ambiguous_urls_are_rejected() {
        let table = [
            ("start with", &["", "api.example.com", "//a.example/", "ftp://a.example/", "file:///etc/passwd"][..]),
            ("start with", &["https:a.example", "https:/a.example", "javascript:alert(1)", "data:,x", "://a.example/"]),
            ("no host", &["https://", "https:///a.example/", "https://?x", "https://#x"]),
            (
                "a user name",
                &["https://u@a.example/", "https://u:p@a.example/", "https://@a.example/", "https://a@b@c.example/"],
            ),
            ("backslash", &["https://a.example\\b", "https:\\\\a.example/", "https://a.example/a\\..\\b", "\\"]),
            (
                "control",
                &["https://a.example/\n", " https://a.example/", "https://a.ex\tample/", "https://a.example/\u{0}"],
            ),
            ("control", &["https://a.example/a b", "https://a.example/\r\nHost: x", "https://a.example\u{a0}/"]),
            (
                "dot segment",
                &["https://a.example/..", "https://a.example/a/../b", "https://a.example/./b", "https://a.example/."],
            ),
            ("dot segment", &["https://a.example/%2e%2e/b", "https://a.example/.%2E/b", "https://a.example/%2E/b"]),
            (
                "dot segment",
                &["https://a.example/%252e%252e/b", "https://a.example/%25252e./b", "https://a.example/..;x=1/b"],
            ),
            ("encoded slash", &["https://a.example/a%2fb", "https://a.example/a%2Fb", "https://a.example/a%5cb"]),
            (
                "encoded slash",
                &["https://a.example/a%5C..%5Cb", "https://a.example/..%2fb", "https://a.example/a%252fb"],
            ),
            ("dot segment", &["https://a.example/..%20/b", "https://a.example/a/%20../b", "https://a.example/.%20./b"]),
            (
                "encoded control",
                &["https://a.example/..%00/b", "https://a.example/..%09/b", "https://a.example/a%0d%0ab"],
            ),
            ("encoded control", &["https://a.example/%2500", "https://a.example/a%7f", "https://a.example/a%c2%85b"]),
            (
                "not UTF-8",
                &["https://a.example/%c0%ae%c0%ae/b", "https://a.example/a%c0%afb", "https://a.example/%e0%80%af"],
            ),
            (
                "faulty encoding",
                &[
                    "https://a.example/%zz",
                    "https://a.example/a%",
                    "https://a.example/a%2",
                    "https://a.example/%25u002e",
                ],
            ),
            (
                "faulty encoding",
                &["https://a.example/．．/b", "https://a.example/%ef%bc%8e%ef%bc%8e/b", "https://a.example/a／b"],
            ),
            (
                "not UTF-8",
                &["https://a.example/%25c0%25ae/", "https://a.example/%ff", "https://a.example/%u002e%u002e/"],
            ),
            ("cannot be read", &["https://a.example:99999/", "https://[::1/", "https://a%00b/", "https://256.1.1.1/"]),
            ("cannot be read", &["https://a%2eb%2f/", "https://exa<mple/", "https://:443/"]),
        ];
        for (why, urls) in table {
            for url in urls {
                let refused = parse(url).expect_err(url);
                assert!(refused.contains(why), "{url}: {refused}");
            }
        }
        assert!(parse(&format!("https://a.example/{}", "a".repeat(URL_BYTES_MAX))).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_shown_url_has_no_query() {
        let url = parse("https://a.example/b?key=hunter2#hunter3").unwrap();
        assert_eq!(shown(&url), "https://a.example/b");
    }
}
