//! URL prefixes, and the host patterns of grants.

use url::{Host, Url};

use super::tree::Node;
use super::values::text;

/// A URL prefix in the form the URL standard gives it (lower-case host, no default port).
pub(super) fn url_prefix(node: &Node) -> Result<String, String> {
    let url = read(&text(node)?)?;
    if url.host_str().is_some_and(|host| host.contains('*')) {
        return Err("must contain one host: only grants can have patterns".to_owned());
    }
    Ok(url.into())
}

/// The URL under which others reach this server, without a slash at its end.
pub(super) fn public_url(node: &Node) -> Result<String, String> {
    Ok(url_prefix(node)?.trim_end_matches('/').to_owned())
}

/// A URL prefix of an `http` grant or request, whose host may be a pattern: `*.push.example` for all hosts below a domain, `*` for all
/// hosts.
pub(super) fn url_pattern(node: &Node) -> Result<String, String> {
    let url = read(&text(node)?)?;
    let host = url.host_str().unwrap_or_default();
    let domain = host.strip_prefix("*.");
    match domain {
        _ if host == "*" => Ok(url.into()),
        _ if domain.unwrap_or(host).contains('*') => {
            invalid("`*` stands for the whole left part of a host name, as in \"https://*.push.example/\"")
        }
        Some(domain) if !domain.contains('.') => {
            invalid("a pattern must name a domain, as in \"https://*.push.example/\"")
        }
        _ => Ok(url.into()),
    }
}

fn read(text: &str) -> Result<Url, String> {
    let Ok(url) = Url::parse(text) else { return invalid("this cannot be parsed as a URL") };
    let path = &text[text.find("://").map_or(0, |at| at + 3)..];
    // What the parser would silently correct is rejected, so that a grant means what is written.
    let is_unclear = |segment: &str| {
        let lower = segment.to_ascii_lowercase().replace("%2e", ".");
        lower == "." || lower == ".." || lower.contains("%2f") || lower.contains("%5c")
    };
    match url {
        _ if !matches!(url.scheme(), "http" | "https") => invalid("its scheme must be http or https"),
        _ if !text.starts_with(&format!("{}://", url.scheme())) => invalid("it must start with http:// or https://"),
        _ if url.host_str().is_none_or(str::is_empty) => invalid("it has no host"),
        _ if !url.username().is_empty() || url.password().is_some() => {
            invalid("it must not contain a user or a password")
        }
        _ if url.query().is_some() || url.fragment().is_some() => invalid("it must not contain `?` or `#`"),
        _ if text.contains('\\') || text.contains(char::is_whitespace) || path.split('/').any(is_unclear) => {
            invalid("its path must not contain dot segments, encoded slashes, backslashes or spaces")
        }
        _ if path.starts_with('/') || path.contains("//") => invalid("it must not contain empty path segments"),
        _ => Ok(url),
    }
}

fn invalid<T>(why: &str) -> Result<T, String> {
    Err(format!("must be a URL prefix as in \"https://api.example.com/v1/\": {why}"))
}

/// Whether a URL is below a prefix: the same scheme and port, the same host or one that the prefix's pattern covers, and a path that
/// starts with all segments of the prefix. Both were parsed strictly, so that their paths contain no dot segments.
pub(crate) fn covers(prefix: &Url, url: &Url) -> bool {
    let rest = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
    prefix.scheme() == url.scheme()
        && prefix.port_or_known_default() == url.port_or_known_default()
        && covers_host(prefix.host_str().unwrap_or_default(), url)
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A pattern covers only names. Addresses and `localhost` need a grant that contains them.
fn covers_host(pattern: &str, url: &Url) -> bool {
    let Some(suffix) = pattern.strip_prefix('*') else { return url.host_str() == Some(pattern) };
    let Some(Host::Domain(name)) = url.host() else { return false };
    let labels = name.strip_suffix(suffix).unwrap_or_default();
    !labels.is_empty() && name.trim_end_matches('.') != "localhost"
}

/// Whether anybody can have a host that this prefix covers: `https://*/`, or a pattern below a [`shared_domain`].
pub(crate) fn covers_anybody(prefix: &Url) -> bool {
    prefix.host_str() == Some("*") || shared_domain(prefix.as_str()).is_some()
}

/// The domain of a pattern, if anybody can have a host below it: a public suffix (`*.co.uk`), or a domain that a provider shares among
/// its customers (`*.github.io`).
pub fn shared_domain(prefix: &str) -> Option<String> {
    let url = Url::parse(prefix).ok()?;
    let domain = url.host_str()?.strip_prefix("*.")?;
    let suffix = psl::suffix(domain.as_bytes())?;
    (suffix.as_bytes() == domain.as_bytes()).then(|| domain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_the_urls_below_it() {
        let table = [
            ("https://a.example/", "https://a.example", true),
            ("https://a.example/", "https://a.example/v1?q=/..", true),
            ("https://a.example/v1", "https://a.example/v1", true),
            ("https://a.example/v1", "https://a.example/v1/", true),
            ("https://a.example/v1/", "https://a.example/v1", true),
            ("https://a.example/v1/", "https://a.example/v1/x/y", true),
            ("https://a.example/v1", "https://a.example/v10", false),
            ("https://a.example/v1", "https://a.example/V1", false),
            ("https://a.example/v1", "https://a.example/%761", false),
            ("https://a.example/v1", "https://a.example//v1", false),
            ("https://a.example/v1", "https://a.example/", false),
            ("https://a.example/", "http://a.example/", false),
            ("http://a.example/", "https://a.example/", false),
            ("https://a.example/", "https://a.example:443/", true),
            ("https://a.example/", "https://a.example:8443/", false),
            ("https://a.example:8443/", "https://a.example:8443/", true),
            ("https://a.example/", "https://b.a.example/", false),
            ("https://a.example/", "https://a.example.b/", false),
            ("https://a.example/", "https://a.example./", false),
            ("https://127.0.0.1/", "https://127.1/", true),
            ("https://127.0.0.1/", "https://[::ffff:127.0.0.1]/", false),
            ("https://localhost/", "https://127.0.0.1/", false),
            ("https://[::1]/", "https://[0::1]/", true),
        ];
        for (prefix, text, expected) in table {
            assert_eq!(covers(&url(prefix), &url(text)), expected, "{prefix} {text}");
        }
    }

    #[test]
    fn patterns_cover_names_below_their_domain_but_no_addresses() {
        let table = [
            ("https://*.push.example/", "https://db5.push.example/w/", true),
            ("https://*.push.example/", "https://a.b.push.example/", true),
            ("https://*.push.example/", "https://push.example/", false),
            ("https://*.push.example/", "https://apush.example/", false),
            ("https://*.push.example/", "https://.push.example/", false),
            ("https://*.push.example/", "https://a.push.example.evil.example/", false),
            ("https://*.push.example/", "https://a.push.example./", false),
            ("https://*.push.example/", "http://a.push.example/", false),
            ("https://*.push.example/", "https://a.push.example:8443/", false),
            ("https://*.push.example/v1/", "https://a.push.example/v1/x", true),
            ("https://*.push.example/v1/", "https://a.push.example/v2", false),
            ("https://*/", "https://hooks.customer.example/in", true),
            ("https://*/", "http://hooks.customer.example/in", false),
            ("https://*/", "https://localhost/", false),
            ("https://*/", "https://localhost./", false),
            ("https://*/", "https://127.0.0.1/", false),
            ("https://*/", "https://0x7f.1/", false),
            ("https://*/", "https://[::1]/", false),
            ("https://*/", "https://*.push.example/", true),
            ("https://*.example/", "https://*.push.example/", true),
            ("https://*.push.example/", "https://*.push.example/", true),
            ("https://*.push.example/", "https://*.example/", false),
            ("https://*.push.example/", "https://*/", false),
        ];
        for (prefix, text, expected) in table {
            assert_eq!(covers(&url(prefix), &url(text)), expected, "{prefix} {text}");
        }
    }

    #[test]
    fn shared_domains_are_recognized() {
        let table = [
            ("https://*.com/", Some("com")),
            ("https://*.co.uk/v1/", Some("co.uk")),
            ("https://*.github.io/", Some("github.io")),
            ("https://*.push.apple.com/", None),
            ("https://*.example.com/", None),
            ("https://github.io/", None),
            ("https://*/", None),
        ];
        for (prefix, expected) in table {
            assert_eq!(shared_domain(prefix).as_deref(), expected, "{prefix}");
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }
}
