//! Decodes `[credentials.NAME]` and the ties of plugins to them.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::keys::{self, ServiceAccount};
use super::{
    Apns, AwsSigv4, ClientAuthentication, Credential, CredentialKind, Hmac, HmacAlgorithm, KeyDerivation, KeyEncoding,
    Oauth2, SignatureEncoding, SignedPart, is_host_header, is_own_name,
};
use crate::config::reader::{TableDecoder, item, unknown};
use crate::config::secrets::{self, checked_source, read_bounded, secret_source};
use crate::config::tree::Node;
use crate::config::values::{self, KIB};
use crate::config::{Keyvalue, SecretSource, urls};

/// The longest file of certificates.
const CERTIFICATES_BYTES_MAX: usize = 64 * KIB;
/// Where push messages of Firebase are sent to, and what a token for that is for.
const FCM_URL: &str = "https://fcm.googleapis.com/";
const FCM_SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const APNS_URLS: [&str; 2] = ["https://api.push.apple.com/", "https://api.sandbox.push.apple.com/"];

type Decode = fn(&mut TableDecoder<'_>) -> Option<CredentialKind>;

const KINDS: [(&str, Decode); 14] = [
    ("bearer", |s| Some(CredentialKind::Bearer { token: header_secrets(s, "token")? })),
    ("basic", basic),
    ("header", header),
    ("query", |s| {
        let (name, value) = (s.required("name", values::line), sources(s, "value", query_value));
        Some(CredentialKind::Query { name: name?, value: value? })
    }),
    ("url", |s| Some(CredentialKind::Url { value: sources(s, "value", keys::url_part)? })),
    ("oauth2-client-credentials", |s| oauth2(s, false)),
    ("oauth2-refresh-token", |s| oauth2(s, true)),
    ("google-service-account", google_service_account),
    ("apns", apns),
    ("vapid", vapid),
    ("aws-sigv4", aws_sigv4),
    ("hmac", hmac),
    ("client-certificate", client_certificate),
    ("all", |s| Some(CredentialKind::All(s.list("credentials", values::line).unwrap_or_default()))),
];

/// All credentials. `None` for those that are invalid, so that they are not reported as unknown too.
pub(in crate::config) fn credentials(
    s: &mut TableDecoder<'_>,
    keyvalue: &Keyvalue,
) -> BTreeMap<String, Option<Credential>> {
    let found = s.named("credentials", |_, field| Some(field.section(credential).flatten()));
    for (name, credential) in &found {
        match credential.as_ref().map(|credential| &credential.kind) {
            Some(CredentialKind::All(members)) => check_members(s, name, members, &found),
            Some(CredentialKind::Oauth2(Oauth2 { refresh_token: Some(_), .. })) if keyvalue.database.is_none() => {
                let message = "needs keyvalue.database, where the refresh tokens that replace this one are stored";
                s.fail_below(&["credentials", name, "refresh-token"], message);
            }
            _ => {}
        }
    }
    found
}

/// `[plugins.X] credentials = { own = "name" }`
pub(in crate::config) fn ties(s: &mut TableDecoder<'_>, known: &[&str]) -> BTreeMap<String, String> {
    s.named("credentials", |own, mut field| {
        if !is_own_name(own) {
            field.fail("is not a plugin's name for a credential: use up to 64 lower-case letters, digits, `-` and `_`");
        }
        field.read(|node| {
            let name = values::line(node)?;
            let message = || unknown("credential", &name, known, "[credentials.NAME] sections");
            if known.contains(&name.as_str()) { Ok(name) } else { Err(message()) }
        })
    })
}

fn credential(s: &mut TableDecoder<'_>) -> Option<Credential> {
    let Some(decode) = s.required("kind", values::one_of(&KINDS)) else {
        s.ignore_the_rest();
        return None;
    };
    let kind = decode(s);
    let urls = match &kind {
        Some(CredentialKind::All(_)) => Vec::new(),
        Some(kind) => granted_urls(s, kind),
        // Its default is unknown, but what is written can be checked.
        None => s.list("urls", urls::url_pattern).map(|_| Vec::new()).unwrap_or_default(),
    };
    Some(Credential { urls, kind: kind? })
}

fn granted_urls(s: &mut TableDecoder<'_>, kind: &CredentialKind) -> Vec<Url> {
    let default: &[&str] = match kind {
        CredentialKind::Apns(_) => &APNS_URLS,
        CredentialKind::GoogleServiceAccount { .. } => &[FCM_URL],
        // Nothing that is secret is sent, and the audience of the token is the host.
        CredentialKind::Vapid { .. } => &["https://*/"],
        _ => &[],
    };
    let is_secret_sent = !matches!(
        kind,
        CredentialKind::Vapid { .. } | CredentialKind::Hmac(_) | CredentialKind::ClientCertificate { .. }
    );
    let written = s.list("urls", |node| {
        let url = Url::parse(&urls::url_pattern(node)?).map_err(|e| e.to_string())?;
        if is_secret_sent { confined(url) } else { Ok(url) }
    });
    let only_verifies = matches!(kind, CredentialKind::Hmac(Hmac { header: None, .. }));
    if written.is_none() && default.is_empty() && !only_verifies && !s.is_written("urls") {
        s.fail("urls", "is required: the URL prefixes that it may be sent to, as in [\"https://api.example.com/v1/\"]");
    }
    written.unwrap_or_else(|| default.iter().filter_map(|url| Url::parse(url).ok()).collect())
}

/// A prefix that a secret may be sent to: not to everybody, and not in clear.
fn confined(url: Url) -> Result<Url, String> {
    keys::is_private(&url)?;
    if urls::covers_anybody(&url) {
        return Err("would send the secret to hosts of anybody: name the provider's host or domain".to_owned());
    }
    Ok(url)
}

fn check_members(s: &mut TableDecoder<'_>, name: &str, members: &[String], all: &BTreeMap<String, Option<Credential>>) {
    let known: Vec<&str> = all.keys().map(String::as_str).filter(|other| *other != name).collect();
    if members.len() < 2 {
        s.fail_below(&["credentials", name, "credentials"], "must name at least two credentials");
    }
    let (mut headers, mut urls) = (Vec::new(), 0);
    for (at, member) in members.iter().enumerate() {
        let kind = all.get(member).map(|found| found.as_ref().map(|credential| &credential.kind));
        let problem = match kind {
            None => Some(unknown("credential", member, &known, "other [credentials.NAME] sections")),
            _ if members[..at].contains(member) => Some(format!("{member:?} is in the list twice")),
            Some(Some(CredentialKind::All(_))) => Some("must not be of the kind \"all\" itself".to_owned()),
            Some(Some(CredentialKind::Url { .. })) if urls > 0 => {
                Some("is the second one of the kind \"url\", of which a URL has one".to_owned())
            }
            Some(Some(kind)) if kind.header().is_some_and(|header| headers.contains(&header)) => {
                Some("sets a header that another one in the list sets too".to_owned())
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            s.fail_below(&["credentials", name, "credentials", &item(at)], problem);
        }
        if let Some(Some(kind)) = kind {
            urls += usize::from(matches!(kind, CredentialKind::Url { .. }));
            headers.extend(kind.header());
        }
    }
}

/// One or two sources of a secret.
fn sources(
    s: &mut TableDecoder<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<Vec<SecretSource>> {
    let Some(found) = secrets::sources(s, key, check) else { return missing_secret(s, key) };
    // An empty list has no problem of its own; invalid sources have.
    if found.is_empty() && s.is_valid() {
        return missing_secret(s, key);
    }
    (!found.is_empty()).then_some(found)
}

/// One source of a secret.
fn source(
    s: &mut TableDecoder<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<SecretSource> {
    match s.field(key) {
        Some(field) => checked_source(field, check),
        None => missing_secret(s, key),
    }
}

fn missing_secret<T>(s: &mut TableDecoder<'_>, key: &str) -> Option<T> {
    s.fail(key, "is required: { env = \"VARIABLE\" } or { file = \"path\" }");
    None
}

fn header_secrets(s: &mut TableDecoder<'_>, key: &'static str) -> Option<Vec<SecretSource>> {
    sources(s, key, |secret| match HeaderValue::from_str(secret) {
        Ok(_) if secret.is_ascii() => Ok(()),
        _ => Err("must be one line of ASCII text, because it stands in a header".to_owned()),
    })
}

fn query_value(secret: &str) -> Result<(), String> {
    if secret.chars().any(char::is_control) { Err("must be one line".to_owned()) } else { Ok(()) }
}

fn basic(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let username = s.required("username", |node| match values::line(node)? {
        name if name.contains(':') => Err("must not contain a colon, which ends it".to_owned()),
        name => Ok(name),
    });
    let password = sources(s, "password", |_| Ok(()));
    Some(CredentialKind::Basic { username: username?, password: password? })
}

fn header(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let name = s.required("name", header_name);
    let prefix = prefix(s);
    let value = header_secrets(s, "value");
    Some(CredentialKind::Header { name: name?, prefix, value: value? })
}

/// A header that a credential may set: none that the host sets itself.
fn header_name(node: &Node) -> Result<HeaderName, String> {
    let name = values::line(node)?;
    match HeaderName::try_from(&name) {
        Ok(header) if is_host_header(&header) => Err(format!("{name:?} is set by the host")),
        Ok(header) => Ok(header),
        Err(_) => Err(format!("{name:?} cannot be the name of a header")),
    }
}

fn prefix(s: &mut TableDecoder<'_>) -> String {
    let read = |node: &Node| match values::text(node)? {
        text if text.is_ascii() && HeaderValue::from_str(&text).is_ok() => Ok(text),
        _ => Err("must be ASCII text without line breaks".to_owned()),
    };
    s.get("prefix", read).unwrap_or_default()
}

fn oauth2(s: &mut TableDecoder<'_>, has_refresh_token: bool) -> Option<CredentialKind> {
    let authentication = [("header", ClientAuthentication::Header), ("body", ClientAuthentication::Body)];
    let token_url = s.required("token-url", token_url);
    let client_id = s.required("client-id", values::line);
    let client_secret = match s.field("client-secret") {
        Some(field) => secret_source(field),
        None if has_refresh_token => None,
        None => missing_secret(s, "client-secret"),
    };
    let refresh_token = if has_refresh_token { source(s, "refresh-token", |_| Ok(())) } else { None };
    Some(CredentialKind::Oauth2(Oauth2 {
        client_authentication: s.get("client-authentication", values::one_of(&authentication)).unwrap_or_default(),
        scopes: s.list("scopes", scope).unwrap_or_default(),
        audience: s.get("audience", values::line),
        token_url: token_url?,
        client_id: client_id?,
        client_secret,
        // A missing one would make it the other kind; that is a problem already.
        refresh_token,
    }))
}

fn token_url(node: &Node) -> Result<Url, String> {
    let url = Url::parse(&values::line(node)?).map_err(|_| "must be a URL".to_owned())?;
    keys::is_private(&url)?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must not contain a user, a password or a fragment".to_owned());
    }
    Ok(url)
}

fn scope(node: &Node) -> Result<String, String> {
    let scope = values::line(node)?;
    if scope.contains(char::is_whitespace) { Err("must be one scope without spaces".to_owned()) } else { Ok(scope) }
}

fn google_service_account(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let key = source(s, "key", |json| ServiceAccount::parse(json).map(drop));
    let scopes = s.list("scopes", scope).unwrap_or_else(|| vec![FCM_SCOPE.to_owned()]);
    let subject = s.get("subject", values::line);
    Some(CredentialKind::GoogleServiceAccount { key: key?, scopes, subject })
}

fn apns(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let id = |node: &Node| match values::line(node)? {
        id if id.len() == 10 && id.chars().all(|c| c.is_ascii_alphanumeric()) => Ok(id),
        _ => Err("must be an id of 10 letters and digits, as Apple shows it".to_owned()),
    };
    let key = source(s, "key", |pem| keys::ec_key(pem).map(drop));
    let (key_id, team_id) = (s.required("key-id", id), s.required("team-id", id));
    Some(CredentialKind::Apns(Apns { key: key?, key_id: key_id?, team_id: team_id? }))
}

fn vapid(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let public_key = s.get("public-key", values::line);
    let key = source(s, "key", |private| keys::vapid_key(private, public_key.as_deref()).map(drop));
    let subject = s.required("subject", |node| match values::line(node)? {
        subject if subject.starts_with("mailto:") || subject.starts_with("https:") => Ok(subject),
        _ => Err("must be a mailto: or https: URL, as in \"mailto:push@example.com\"".to_owned()),
    });
    Some(CredentialKind::Vapid { key: key?, public_key, subject: subject? })
}

fn aws_sigv4(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let access_key_id = s.required("access-key-id", values::line);
    let secret_access_key = source(s, "secret-access-key", |_| Ok(()));
    let session_token = s.field("session-token").and_then(secret_source);
    let (region, service) = (s.required("region", values::line), s.required("service", values::line));
    Some(CredentialKind::AwsSigv4(AwsSigv4 {
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        session_token,
        region: region?,
        service: service?,
    }))
}

fn hmac(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let key_encodings = [("text", KeyEncoding::Text), ("base64", KeyEncoding::Base64), ("hex", KeyEncoding::Hex)];
    let algorithms =
        [("sha1", HmacAlgorithm::Sha1), ("sha256", HmacAlgorithm::Sha256), ("sha512", HmacAlgorithm::Sha512)];
    let encodings = [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];
    let key_encoding = s.get("key-encoding", values::one_of(&key_encodings)).unwrap_or_default();
    let key = sources(s, "key", |text| keys::hmac_key(text, key_encoding).map(drop));
    let derivations = [("origin", KeyDerivation::Origin), ("url", KeyDerivation::Url)];
    let (header, derive) = (s.get("header", header_name), s.get("derive", values::one_of(&derivations)));
    if derive.is_some() && !s.is_written("header") {
        s.fail("derive", "needs a `header`: derived keys sign, and verify nothing");
    }
    let signs_with_all = s.get("sign-with", values::one_of(&[("first", false), ("all", true)]));
    if signs_with_all.is_some() && !s.is_written("header") {
        s.fail("sign-with", "needs a `header`: without one, the keys only verify");
    }
    Some(CredentialKind::Hmac(Hmac {
        key_encoding,
        derive,
        signs_with_all: signs_with_all.unwrap_or_default(),
        algorithm: s.get("algorithm", values::one_of(&algorithms)).unwrap_or_default(),
        header,
        prefix: prefix(s),
        encoding: s.get("encoding", values::one_of(&encodings)).unwrap_or_default(),
        content: s.get("content", signed_parts).unwrap_or_else(|| vec![SignedPart::Body]),
        key: key?,
    }))
}

/// Text with `{body}`, `{method}`, `{url}`, `{path}` and `{header:NAME}` in it.
fn signed_parts(node: &Node) -> Result<Vec<SignedPart>, String> {
    let text = values::text(node)?;
    let (mut parts, mut rest) = (Vec::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("has a `{` without a `}`")?;
        if !before.is_empty() {
            parts.push(SignedPart::Text(before.to_owned()));
        }
        parts.push(match (name, name.strip_prefix("header:")) {
            ("body", _) => SignedPart::Body,
            ("method", _) => SignedPart::Method,
            ("url", _) => SignedPart::Url,
            ("path", _) => SignedPart::Path,
            (_, Some(header)) => HeaderName::try_from(header)
                .map(SignedPart::Header)
                .map_err(|_| format!("{header:?} cannot be the name of a header"))?,
            _ => {
                return Err(format!(
                    "unknown {{{name}}}; known are {{body}}, {{header:NAME}}, {{method}}, {{path}}, {{url}}"
                ));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SignedPart::Text(rest.to_owned()));
    }
    if parts.contains(&SignedPart::Body) { Ok(parts) } else { Err("must contain {body}".to_owned()) }
}

fn client_certificate(s: &mut TableDecoder<'_>) -> Option<CredentialKind> {
    let path = values::existing_file(s.folder());
    let certificate = s.required("certificate", |node| {
        let file = path(node)?;
        let chain = keys::certificates(&read_bounded(&file, CERTIFICATES_BYTES_MAX)?)?;
        Ok((file, chain))
    });
    let key = source(s, "key", |pem| match (keys::tls_key(pem)?, &certificate) {
        (key, Some((_, chain))) => keys::check_pair(chain, key),
        _ => Ok(()),
    });
    Some(CredentialKind::ClientCertificate { certificate: certificate?.0, key: key? })
}
