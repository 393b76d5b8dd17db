//! Decodes the relays for mail.

use std::collections::BTreeMap;

use super::reader::{TableDecoder, unknown};
use super::secrets::secret_source;
use super::values::{self, HOUR, MILLISECOND, MINUTE};
use super::{Login, Mailer, Proof, Relay, RelayKind, Smtp, Tls};
use ace_store::files::Access;

pub(super) fn mailer(s: &mut TableDecoder<'_>) -> Mailer {
    let relays: BTreeMap<String, Relay> =
        s.named("relays", |_, field| Some(field.section(relay).unwrap_or_else(invalid)));
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
        Mailer { default_relay, default_from, relays: relays.clone(), access: Access::default() }
    })
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

fn relay(s: &mut TableDecoder<'_>) -> Relay {
    let kinds = [("smtp", Kind::Smtp), ("file", Kind::File), ("discard", Kind::Discard)];
    let kind = match s.required("kind", values::one_of(&kinds)) {
        Some(Kind::Smtp) => RelayKind::Smtp(smtp(s)),
        Some(Kind::File) => RelayKind::File { dir: s.required("dir", values::path(s.folder())).unwrap_or_default() },
        Some(Kind::Discard) => RelayKind::Discard,
        None => {
            s.ignore_the_rest();
            return invalid();
        }
    };
    Relay { kind, from: s.get("from", values::sender), return_path: s.get("return-path", values::bare_address) }
}

fn smtp(s: &mut TableDecoder<'_>) -> Smtp {
    let default = Smtp::new(s.required("host", values::host).unwrap_or_default());
    let kinds = [("none", Tls::None), ("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
    let tls = s.get("tls", values::one_of(&kinds)).unwrap_or(default.tls);
    Smtp {
        tls,
        port: s.get("port", values::integer(1..=u16::MAX)).unwrap_or(tls.default_port()),
        login: login(s),
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

/// A user name with a password or a token.
fn login(s: &mut TableDecoder<'_>) -> Option<Login> {
    let username = s.get("username", values::line);
    let password = s.field("password").and_then(secret_source).map(Proof::Password);
    let token = s.field("oauth-token").and_then(secret_source).map(Proof::Token);
    match (s.is_written("username"), s.is_written("password"), s.is_written("oauth-token")) {
        (true, false, false) => s.fail("username", "needs a password or an oauth-token beside it"),
        (false, true, _) => s.fail("password", "needs a username beside it"),
        (false, _, true) => s.fail("oauth-token", "needs a username beside it"),
        (true, true, true) => s.fail("oauth-token", "password is set too; a login needs only one of them"),
        _ => {}
    }
    Some(Login { username: username?, proof: password.or(token)? })
}
