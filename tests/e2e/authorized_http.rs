//! Requests with a credential of the host, by `authorized-http.fetch`, and `signatures`.

use std::fs;

use serde_json::{Value, json};

use crate::outgoing_http::{Web, found, send};
use crate::support::{Home, assert_text, message, repository};

/// A home with the probe, granted all of the server, and these sections.
fn home(web: &Web, credentials: &str, toml: &str) -> Home {
    let home = Home::empty();
    home.guest("authorized_probe", "authorized_probe");
    home.config(&format!(
        "[plugins.authorized_probe]\ngrants = {{ http = ['{}'] }}\ncredentials = {{ {credentials} }}\n{toml}",
        web.url("/")
    ));
    home
}

fn fetch(url: &str) -> Value {
    json!({"fetch": {"url": url, "credential": "api"}})
}

#[test]
fn a_credential_is_added_and_neither_shown_nor_sent_elsewhere() {
    let web = Web::start();
    let toml =
        format!("[credentials.brand-a]\nkind = 'bearer'\nurls = ['{}']\ntoken = {{ env = 'TOKEN' }}\n", web.url("/in"));
    let home = home(&web, "api = 'brand-a'", &toml);
    let mut other = fetch(&web.url("/in"));
    other["fetch"]["credential"] = "brand-a".into();
    let mut own = fetch(&web.url("/in"));
    own["fetch"]["headers"] = json!([["Authorization", "Bearer mine"]]);
    let contexts =
        [fetch(&web.url("/in/a")), fetch(&web.url("/elsewhere")), fetch("http://127.0.0.1:1/in"), other, own];
    let lines: Vec<String> =
        contexts.iter().map(|context| message("note", json!({"context": context})).to_string()).collect();
    let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
    let done = home.ace(&arguments).env("ACE_LOG", "trace").env("TOKEN", "hunter2").input(lines.join("\n")).run();
    let lines = done.lines();
    let results: Vec<&Value> = lines.iter().map(found).collect();
    assert_eq!(results[0], "202 taken");
    assert_text(
        results[1],
        "the credential \"api\" is not for this URL of 127.0.0.1; the operator can add its prefix to `urls` in [credentials.brand-a]",
    );
    assert_text(results[2], "not granted; the operator can write");
    assert_text(
        results[3],
        "the plugin has no credential \"brand-a\"; the operator can write `credentials = { \"brand-a\" = \"NAME\" }`",
    );
    assert_text(results[4], "sets the header authorization");
    assert_eq!(web.authorizations(), ["Bearer hunter2"]);
    for text in [&done.stdout, &done.stderr] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_secret_part_of_a_url_is_written_by_its_name() {
    let web = Web::start();
    let toml = format!("[credentials.hook]\nkind = 'url'\nurls = ['{}']\nvalue = {{ env = 'HOOK' }}\n", web.url("/in"));
    let home = home(&web, "api = 'hook'", &toml);
    let contexts = [fetch(&web.url("/in/$(api)/send")), fetch(&web.url("/in/x?key=$(api)")), fetch(&web.url("/in/x"))];
    let lines: Vec<String> =
        contexts.iter().map(|context| message("note", json!({"context": context})).to_string()).collect();
    let done = home
        .ace(&["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"])
        .env("ACE_LOG", "trace")
        .env("HOOK", "T1-B2-hunter2")
        .input(lines.join("\n"))
        .run();
    let lines = done.lines();
    assert_eq!((found(&lines[0]), found(&lines[1])), (&json!("202 taken"), &json!("202 taken")));
    assert_text(found(&lines[2]), "$(api)");
    assert_eq!(web.requests(), ["POST /in/T1-B2-hunter2/send", "POST /in/x?key=T1-B2-hunter2"]);
    assert!(!done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"), "{}", done.stderr);
}

#[test]
fn all_workers_share_one_token_and_an_expired_one_is_renewed() {
    let web = Web::start();
    let client = |name: &str, token: &str| {
        format!(
            "[credentials.{name}]\nkind = 'oauth2-client-credentials'\nurls = ['{}']\ntoken-url = '{}'\n\
             client-id = 'ace'\nclient-secret = {{ file = 'client.secret' }}\n",
            web.url("/"),
            web.url(token)
        )
    };
    let home = home(&web, "api = 'good', other = 'bad'", &(client("good", "/token") + &client("bad", "/revoked")));
    fs::write(home.path("client.secret"), "hunter2\n").expect("written");
    let mut lines: Vec<String> = Vec::new();
    for n in 0..200 {
        lines.push(message("note", json!({"context": fetch(&web.url(&format!("/in/{n}")))})).to_string());
    }
    let done =
        home.ace(&["send", "--json", "--concurrency", "64", "--max-delay", "0", "-"]).input(lines.join("\n")).run();
    assert!(done.lines().iter().all(|line| found(line) == "202 taken"), "{}", done.stderr);
    let tokens = |web: &Web| web.requests().iter().filter(|request| request.starts_with("POST /token")).count();
    assert_eq!(tokens(&web), 1);
    // A new process asks again; the provider calls its first token expired.
    let mut rejected = fetch(&web.url("/in"));
    rejected["fetch"]["credential"] = "other".into();
    let done = send(&home, &[fetch(&web.url("/expects/token-2")), rejected]);
    let lines = done.lines();
    assert_eq!(found(&lines[0]), "202 taken");
    assert_text(found(&lines[1]), "rejected: ");
    assert!(!done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"), "{}", done.stderr);
}

#[test]
fn a_rejected_credential_holds_the_channel() {
    let web = Web::start();
    let toml =
        format!("[credentials.old]\nkind = 'bearer'\nurls = ['{}']\ntoken = {{ env = 'TOKEN' }}\n", web.url("/"));
    let home = home(&web, "api = 'old'", &toml);
    let lines: Vec<String> = (0..5)
        .map(|n| {
            let mut context = fetch(&web.url("/refused"));
            context["deliver"] = true.into();
            message("note", json!({"uuid": format!("00000000-0000-4000-8000-{n:012}"), "context": context})).to_string()
        })
        .collect();
    let done = home
        .ace(&["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"])
        .env("TOKEN", "hunter2")
        .input(lines.join("\n"))
        .run();
    for line in done.lines() {
        let probe = &line["report"]["channels"][2];
        assert_eq!((&probe["state"], &probe["attempts"]), (&json!("retry"), &json!(0)), "no attempt is used up");
        assert_text(&probe["error"], "the credential \"old\" was refused: 401");
    }
    assert_eq!(web.requests(), ["POST /refused"], "the others wait");
}

#[test]
fn signatures_are_verified_with_keys_that_the_guest_does_not_see() {
    let web = Web::start();
    let fixture: Value =
        serde_json::from_str(&fs::read_to_string(repository("tests/fixtures/signatures.json")).expect("a file"))
            .expect("JSON");
    let toml = "[credentials.twilio]\nkind = 'hmac'\nkey = { env = 'KEY' }\n";
    let home = home(&web, "callbacks = 'twilio'", toml);
    let verify = |algorithm: &str, change: &dyn Fn(&mut Value)| {
        let mut verify = json!({
            "algorithm": algorithm,
            "data": fixture["data"],
            "signature": fixture["signatures"][algorithm],
            "credential": "callbacks",
        });
        change(&mut verify);
        json!({ "verify": verify })
    };
    let ed25519: String =
        fixture["keys"]["ed25519"].as_str().expect("PEM").lines().filter(|l| !l.starts_with('-')).collect();
    let contexts = [
        verify("hmac-sha1", &|_| {}),
        verify("hmac-sha256", &|verify| verify["data"] = "forged".into()),
        verify("ed25519", &|verify| {
            verify["credential"] = "".into();
            verify["key"] = ed25519.as_str().into();
        }),
        verify("hmac-sha256", &|verify| verify["credential"] = "twilio".into()),
        verify("hmac-sha256", &|verify| verify["algorithm"] = "md5".into()),
    ];
    let lines: Vec<String> =
        contexts.iter().map(|context| message("note", json!({"context": context})).to_string()).collect();
    let done = home
        .ace(&["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"])
        .env("KEY", fixture["hmac_key"].as_str().expect("a key"))
        .input(lines.join("\n"))
        .run();
    let lines = done.lines();
    for (line, expected) in lines.iter().zip([
        "valid",
        "not valid",
        "valid",
        "denied: the plugin has no credential \"twilio\"",
        "invalid: there is no algorithm \"md5\"; there are hmac-sha1, ",
    ]) {
        assert_text(found(line), expected);
    }
}
