//! Decodes the relays for mail.

use std::collections::BTreeMap;

use super::dkim;
use super::reader::{TableDecoder, unknown};
use super::secrets::{secret_source, sources};
use super::values::{self, HOUR, MILLISECOND, MINUTE};
use super::{Credential, CredentialKind, Login, Mailer, Proof, Relay, RelayKind, Smtp, Tls};
use ace_store::files::Access;

/// The credentials by name; `None` for invalid ones.
type Credentials = BTreeMap<String, Option<Credential>>;

pub(super) fn mailer(s: &mut TableDecoder<'_>, credentials: &Credentials) -> Mailer {
    let relays: BTreeMap<String, Relay> =
        s.named("relays", |_, field| Some(field.section(|s| relay(s, credentials)).unwrap_or_else(invalid)));
    let names: Vec<&str> = relays.keys().map(String::as_str).collect();
    s.section("mailer", |s| {
        let default_relay = s.get("default-relay", values::line);
        match &default_relay {
            Some(name) if !relays.contains_key(name) => {
                s.fail("default-relay", unknown("relay", name, &names, "[relays.NAME] sections"));
            }
            None if names.len() > 1 && s.is_valid() => {
                let message = format!("is required if there is more than one relay; one of {}", names.join(", "));
                s.fail("default-relay", message);
            }
            _ => {}
        }
        let default_from = s.get("default-from", values::sender);
        let return_path_keys = sources(s, "return-path-key", |key| return_path_key(key).map(drop)).unwrap_or_default();
        let signs = |(_, relay): &(&String, &Relay)| relay.return_path.as_deref().is_some_and(is_signed);
        if let Some((name, _)) = relays.iter().find(signs)
            && return_path_keys.is_empty()
            && s.is_valid()
        {
            s.fail("return-path-key", format!("is required, because relays.{name}.return-path has {PATH_TOKEN}"));
        }
        Mailer { default_relay, default_from, relays: relays.clone(), return_path_keys, access: Access::default() }
    })
}

/// The place of the token in a return path that is signed.
pub(crate) const PATH_TOKEN: &str = "{token}";
/// A token, by which addresses are checked: 16 bytes of a uuid and 10 of a code, in base32.
pub(crate) const SAMPLE_TOKEN: &str = "0123456789abcdefghijklmnopqrstuv0123456789";
/// The shortest key. A shorter one could be guessed from one return path.
const PATH_KEY_BYTES_MIN: usize = 16;

fn is_signed(return_path: &str) -> bool {
    return_path.contains(PATH_TOKEN)
}

/// The bytes of a key of signed return paths.
pub(crate) fn return_path_key(key: &str) -> Result<&[u8], String> {
    if key.len() < PATH_KEY_BYTES_MIN {
        return Err(format!(
            "the key has less than {PATH_KEY_BYTES_MIN} characters; create one with `openssl rand -hex 32`"
        ));
    }
    Ok(key.as_bytes())
}

#[derive(Clone, Copy)]
enum Kind {
    Smtp,
    File,
    Discard,
}

/// A placeholder for an invalid relay, so that its name is not reported as unknown too.
fn invalid() -> Relay {
    Relay { kind: RelayKind::Discard, from: None, return_path: None }
}

fn relay(s: &mut TableDecoder<'_>, credentials: &Credentials) -> Relay {
    let kinds = [("smtp", Kind::Smtp), ("file", Kind::File), ("discard", Kind::Discard)];
    let kind = match s.required("kind", values::one_of(&kinds)) {
        Some(Kind::Smtp) => RelayKind::Smtp(smtp(s, credentials)),
        Some(Kind::File) => RelayKind::File { dir: s.required("dir", values::path(s.folder())).unwrap_or_default() },
        Some(Kind::Discard) => RelayKind::Discard,
        None => {
            s.ignore_the_rest();
            return invalid();
        }
    };
    Relay { kind, from: s.get("from", values::sender), return_path: s.get("return-path", values::return_path) }
}

fn smtp(s: &mut TableDecoder<'_>, credentials: &Credentials) -> Smtp {
    let default = Smtp::new(s.required("host", values::host).unwrap_or_default());
    let kinds = [("none", Tls::None), ("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
    let tls = s.get("tls", values::one_of(&kinds)).unwrap_or(default.tls);
    Smtp {
        tls,
        port: s.get("port", values::integer(1..=u16::MAX)).unwrap_or(tls.default_port()),
        login: login(s, credentials),
        dkim: dkim::signatures(s),
        ca_file: s.get("ca-file", values::existing_file(s.folder())),
        hello_name: s.get("hello-name", values::hello_name),
        connections: s.get("connections", values::integer(1..=1000)).unwrap_or(default.connections),
        mails_per_connection: s
            .get("mails-per-connection", values::integer(1..=1_000_000))
            .unwrap_or(default.mails_per_connection),
        timeout: s.get("timeout", values::duration(MILLISECOND..=10 * MINUTE)).unwrap_or(default.timeout),
        idle_timeout: s.get("idle-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.idle_timeout),
        host: default.host,
    }
}

/// What an access token for Gmail's mail server is for.
const GMAIL_SCOPE: &str = "https://mail.google.com/";
/// The keys of which a login has one.
const PROOFS: [&str; 3] = ["password", "oauth-token", "credential"];

/// A user name with a password, a token or a credential.
fn login(s: &mut TableDecoder<'_>, credentials: &Credentials) -> Option<Login> {
    let username = s.get("username", values::line);
    let password = s.field("password").and_then(secret_source).map(Proof::Password);
    let token = s.field("oauth-token").and_then(secret_source).map(Proof::Token);
    let names: Vec<&str> = credentials.keys().map(String::as_str).collect();
    let credential = s.get("credential", |node| {
        let name = values::line(node)?;
        let Some(found) = credentials.get(&name) else {
            return Err(unknown("credential", &name, &names, "[credentials.NAME] sections"));
        };
        found.as_ref().map_or(Ok(()), |credential| can_log_in(&name, &credential.kind)).map(|()| name)
    });
    let has_username = s.is_written("username");
    let written: Vec<&str> = PROOFS.into_iter().filter(|key| s.is_written(key)).collect();
    let kind = credential.as_ref().and_then(|name| credentials.get(name)?.as_ref()).map(|found| &found.kind);
    let is_basic = matches!(kind, Some(CredentialKind::Basic { .. }));
    match written[..] {
        [] if has_username => s.fail("username", "needs a password, an oauth-token or a credential beside it"),
        [first, second, ..] => s.fail(second, format!("{first} is set too; a login needs only one of them")),
        ["credential"] if is_basic && has_username => {
            s.fail("username", "is set in the credential too, which is of the kind \"basic\"; remove it here");
        }
        ["credential"] if is_basic || credential.is_none() => {}
        [key] if !has_username => s.fail(key, "needs a username beside it"),
        _ => {}
    }
    let proof = password.or(token).or(credential.map(Proof::Credential))?;
    let username = if is_basic { Some(String::new()) } else { username };
    Some(Login { username: username?, proof })
}

/// Whether a relay can log in with a credential of a later configuration than its own.
pub(super) fn can_still_log_in(login: &Login, name: &str, credential: Option<&Credential>) -> bool {
    credential.is_some_and(|Credential { kind, .. }| {
        let has_username = matches!(kind, CredentialKind::Basic { .. }) || !login.username.is_empty();
        has_username && can_log_in(name, kind).is_ok()
    })
}

fn can_log_in(name: &str, kind: &CredentialKind) -> Result<(), String> {
    match kind {
        CredentialKind::GoogleServiceAccount { scopes, subject, .. }
            if subject.is_none() || !scopes.iter().any(|scope| scope == GMAIL_SCOPE) =>
        {
            Err(format!("{name:?} needs scopes = [{GMAIL_SCOPE:?}] and the user as subject to log in to Gmail"))
        }
        kind if kind.can_log_in() => Ok(()),
        kind => Err(format!(
            "{name:?} is of the kind {:?}, which cannot log in to a mail server; use basic, bearer, \
             oauth2-client-credentials, oauth2-refresh-token or google-service-account",
            kind.name()
        )),
    }
}
