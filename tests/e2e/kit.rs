//! The tools for plugin authors: inspect a component, run it, test it with cases, measure it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Done, Home, message, repository};

/// The home of a plugin author: one component, no ace.toml, and a cache of its own.
pub fn author(from: &str, name: &str) -> Home {
    let home = Home::empty();
    let from = repository(from);
    home.file(&format!("{name}.wasm"), std::fs::read(&from).expect("built"));
    if let Ok(manifest) = std::fs::read(from.with_extension("toml")) {
        home.file(&format!("{name}.toml"), manifest);
    }
    home
}

pub fn plugin(home: &Home, arguments: &[&str]) -> Done {
    let cache = format!("{}/e2e-cache", env!("CARGO_TARGET_TMPDIR"));
    home.ace(&[&["plugin"], arguments].concat()).env("XDG_CACHE_HOME", &cache).run()
}

fn optout(name: &str, user: i64, courses: Value, expect: Value) -> Value {
    json!({
        "name": name,
        "message": message("note", json!({
            "recipient": {"lms_user_id": user, "email_address": "zoe@learner.example"},
            "context": {"course_ids": courses},
        })),
        "facts": {"course-optouts": {"7/c1": "", "7/c2": ""}},
        "expect": expect,
    })
}

#[test]
fn a_component_is_inspected_without_running_it() {
    let home = author("target/plugins/django_email.wasm", "django_email");
    let done = plugin(&home, &["check", "django_email.wasm"]).ok();
    for text in [
        "django_email 0.1.0",
        "license       Apache-2.0",
        "wit-bindgen-rust",
        "is            openedx.ace.channel",
        "exports       openedx:ace/channel@1.1.0",
        "requests      mailer",
        "grants = { mailer = true }",
        "runs here     yes",
    ] {
        assert!(done.stdout.contains(text), "{text:?} is not in:\n{}", done.stdout);
    }
    let found: Value =
        serde_json::from_str(&plugin(&home, &["inspect", "django_email.wasm"]).ok().stdout).expect("JSON");
    assert_eq!(found["namespaces"], json!(["openedx.ace.channel"]));
    assert_eq!(found["requests"], json!(["mailer"]));
    assert_eq!((&found["compatible"], &found["reason"]), (&json!(true), &Value::Null));
    assert_eq!(found["limits"]["call_timeout_ms"], 30_000);
    let producers = found["metadata"]["producers"]["processed-by"].as_array().expect("producers");
    assert!(producers.iter().any(|p| p.as_str().is_some_and(|p| p.starts_with("wit-component "))), "{producers:?}");
}

#[test]
fn an_incompatible_component_is_reported_with_the_reason() {
    for (guest, words) in [
        ("from_the_future", "it was built for openedx:ace@2.0.0, and this host provides openedx:ace@1.1.0"),
        ("needs_1_2_0", "it was built against openedx:ace@1.2.0"),
        ("stranger", "it imports interfaces that this host does not provide"),
    ] {
        let home = author(&format!("target/test-plugins/{guest}.wasm"), guest);
        let done = plugin(&home, &["check", &format!("{guest}.wasm")]).code(1);
        done.says(words);
        assert!(done.stdout.contains("runs here     no"), "{}", done.stdout);
    }
    let home = Home::empty();
    home.file("text.wasm", "no component");
    home.file("core.wasm", b"\0asm\x01\0\0\0");
    plugin(&home, &["check", "text.wasm"]).code(1).says("it is not a WebAssembly component");
    plugin(&home, &["check", "core.wasm"]).code(1).says("it is a core WebAssembly module, not a component");
    plugin(&home, &["check", "gone.wasm"]).code(1).says("the file cannot be read");
}

#[test]
fn imports_that_are_not_requested_are_listed() {
    let home = author("target/test-plugins/http_probe.wasm", "http_probe");
    let done = plugin(&home, &["check", "http_probe.wasm"]).ok();
    assert!(done.stdout.contains("not requested openedx:ace/http@1.1.0"), "{}", done.stdout);
    home.file("http_probe.toml", "[requests]\nhttps = ['https://a.example/']\n");
    plugin(&home, &["check", "http_probe.wasm"]).code(1).says("http_probe.toml:2: requests.https");
}

#[test]
fn one_call_shows_the_answer_the_host_calls_and_their_cost() {
    let home = author("target/plugins/bulk_email_optout.wasm", "bulk_email_optout");
    home.file("case.json", optout("opted out of both", 7, json!(["c1", "c2"]), Value::Null).to_string());
    let done = plugin(&home, &["run", "--json", "bulk_email_optout.wasm", "case.json"]).ok();
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(told["answer"]["deny"][0]["channel_type"], "email");
    assert_eq!(
        told["trace"],
        json!(["keyvalue.get course-optouts 7/c1: \"\"", "keyvalue.get course-optouts 7/c2: \"\""])
    );
    let usage = &told["usage"];
    assert!(usage["fuel"].as_u64().is_some_and(|fuel| fuel > 1_000), "{usage}");
    assert!(usage["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{usage}");
    assert!(usage["host_calls"].as_u64().is_some_and(|calls| calls >= 2), "{usage}");

    home.file("message.json", message("note", json!({})).to_string());
    let done = plugin(&home, &["run", "bulk_email_optout.wasm", "message.json"]).ok();
    assert!(done.stdout.contains("answer        \"pass\""), "{}", done.stdout);
    assert!(done.stdout.contains(" instructions, "), "{}", done.stdout);
}

#[test]
fn a_failed_plugin_is_shown_with_its_stack_and_its_log() {
    let home = author("target/test-plugins/faulty_policy.wasm", "faulty_policy");
    home.file("message.json", message("note", json!({"context": {"policy_fault": "trap"}})).to_string());
    let done = plugin(&home, &["run", "faulty_policy.wasm", "message.json"]).code(1);
    for text in ["\"kind\": \"trap\"", "stack ", "logged        error", "the message asks for a trap"] {
        assert!(done.stdout.contains(text), "{text:?} is not in:\n{}", done.stdout);
    }
    home.file("message.json", message("note", json!({"context": {"policy_fault": "spin"}})).to_string());
    let done = plugin(&home, &["run", "--json", "faulty_policy.wasm", "message.json"]).code(1);
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(told["answer"]["fault"]["kind"], "time", "the real limits hold");
}

#[test]
fn a_case_passes_or_shows_the_difference() {
    let home = author("target/plugins/bulk_email_optout.wasm", "bulk_email_optout");
    let denied = json!({"deny": [{"channel_type": "email"}]});
    let mut cases = vec![
        optout("opted out of both", 7, json!(["c1", "c2"]), denied.clone()),
        optout("opted out of one", 7, json!(["c1", "c3"]), json!("pass")),
        optout("someone else", 8, json!(["c1"]), json!("pass")),
    ];
    home.file("tests/optouts.json", json!(cases).to_string());
    plugin(&home, &["test"]).ok().says("bulk_email_optout: 3 cases, 0 failed");

    cases[1]["expect"] = denied;
    home.file("tests/optouts.json", json!(cases).to_string());
    let done = plugin(&home, &["test", "--junit", "report.xml"]).code(1);
    done.says("3 cases, 1 failed");
    assert!(done.stdout.contains("FAILED  opted out of one"), "{}", done.stdout);
    assert!(done.stdout.contains("    +   \"pass\"") || done.stdout.contains("    + \"pass\""), "{}", done.stdout);
    let report = home.read("report.xml");
    assert!(report.contains("tests=\"3\" failures=\"1\""), "{report}");
    plugin(&home, &["test", "--only", "someone else"]).ok().says("1 case, 0 failed");

    home.file("tests/optouts.json", "[{\"mesage\": {}}]");
    plugin(&home, &["test"]).code(2).says("tests/optouts.json[0]: mesage: unknown field `mesage`");
}

#[test]
fn entries_are_set_before_a_case_and_compared_after_it() {
    let home = author("target/test-plugins/faulty_policy.wasm", "faulty_policy");
    home.file("faulty_policy.toml", "[requests]\nkeyvalue = ['counters:read-write']\n");
    let case = json!({
        "message": message("note", json!({"context": {"policy_fault": "count"}})),
        "facts": {"counters": {"messages": 41}},
        "expect": {"deny": [{"channel_type": "push", "reason": "42"}]},
        "facts_after": {"counters": {"messages": 42, "others": null}},
    });
    home.file("tests/count.json", case.to_string());
    plugin(&home, &["test"]).ok();
    plugin(&home, &["test"]).ok().says("1 case, 0 failed");
}

#[test]
fn mail_is_answered_by_the_case_and_an_unexpected_mail_fails_it() {
    let home = author("target/plugins/django_email.wasm", "django_email");
    let case = |host: Value, expect: Value| {
        let rendered = json!({"subject.txt": "Hello", "body.html": "<p>Hi</p>", "body.txt": "Hi"});
        json!([{"message": message("note", json!({})), "rendered": rendered, "host": host, "expect": expect}])
            .to_string()
    };
    let request = json!({"recipients": ["zoe@learner.example"], "subject": "Hello"});
    let taken = json!([{"mail": {"request": request, "answer": {"accepted": "250 2.0.0 queued as 1"}}}]);
    home.file("tests/mail.json", case(taken, json!({"sent": {"detail": {"answer": "250 2.0.0 queued as 1"}}})));
    plugin(&home, &["test"]).ok();
    let busy = json!([{"mail": {"request": request, "answer": {"temporary": "451 later"}}}]);
    home.file("tests/mail.json", case(busy, json!({"recoverable": {"message": "451 later"}})));
    plugin(&home, &["test"]).ok();
    let other = json!([{"mail": {"request": {"subject": "Goodbye"}, "answer": {"accepted": "250 Ok"}}}]);
    home.file("tests/mail.json", case(other, json!({"sent": {}})));
    let done = plugin(&home, &["test"]).code(1);
    assert!(done.stdout.contains("the case expects {\"subject\":\"Goodbye\"} next, not "), "{}", done.stdout);
    assert!(done.stdout.contains("the plugin did not use this entry of \"host\""), "{}", done.stdout);
}

/// A web server that answers one request and stops.
fn answer_once(body: &'static str) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).expect("a line") > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        reader.read_exact(&mut vec![0; length]).expect("a body");
        let head = "HTTP/1.1 200 OK\r\nDate: today\r\nX-Request-Id: r-1\r\nConnection: close";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("answered");
    });
    (url, served)
}

#[test]
fn recorded_answers_are_replayed() {
    let (url, served) = answer_once("{\"id\":17}");
    let home = author("target/test-plugins/http_probe.wasm", "http_probe");
    home.file("http_probe.toml", format!("[requests]\nhttp = ['{url}']\nsecrets = ['token']\n"));
    let fetch = json!({"method": "POST", "url": format!("{url}v1?key=s3cret"), "body": "{\"a\":1}"});
    let case = json!({
        "message": message("note", json!({"context": {"deliver": true, "fetch": fetch}})),
        "ask": "channel",
        "secrets": {"token": "s3cret"},
    });
    home.file("tests/world.json", case.to_string());
    plugin(&home, &["test", "--record"]).ok().says("1 case, 0 failed");
    served.join().expect("it was asked");

    let written = home.read("tests/world.json");
    let read: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(
        read["host"],
        json!([{"http": {
            "request": {"method": "POST", "url": format!("{url}v1?key=[secret]"), "body": {"a": 1}},
            "answer": {"status": 200, "headers": {
                "connection": "close", "content-length": "9", "x-request-id": "r-1"}, "body": {"id": 17}},
        }}])
    );
    assert!(read["now"].is_string(), "{read}");
    assert_eq!(read["expect"], json!({"sent": {"provider_id": "200 {\"id\":17}"}}));

    // The server has stopped, and every run has the same result.
    let first = plugin(&home, &["test", "--json"]).ok().lines();
    let second = plugin(&home, &["test", "--json"]).ok().lines();
    assert_eq!(first[0]["answer"], second[0]["answer"]);
    assert_eq!(home.read("tests/world.json"), written, "a test writes nothing");

    let mut changed = read.clone();
    changed["message"]["context"]["fetch"]["body"] = "{\"a\":2}".into();
    home.file("tests/world.json", changed.to_string());
    let done = plugin(&home, &["test"]).code(1);
    assert!(done.stdout.contains("`--record` records the real answer"), "{}", done.stdout);
}

#[test]
fn two_builds_are_compared() {
    let home = author("target/plugins/bulk_email_optout.wasm", "bulk_email_optout");
    home.file("old/stub_policy.wasm", std::fs::read(repository("target/plugins/stub_policy.wasm")).expect("built"));
    home.file("message.json", message("note", json!({})).to_string());
    let arguments =
        ["bench", "bulk_email_optout.wasm", "message.json", "-n", "200", "--against", "old/stub_policy.wasm"];
    let lines = plugin(&home, &[&arguments[..], &["--json"]].concat()).ok().lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["file"], "old/stub_policy.wasm");
    for line in &lines {
        let (p50, p99) = (&line["call_us"]["p50"], &line["call_us"]["p99"]);
        assert!(p50.as_f64() > Some(0.0) && p50.as_f64() <= p99.as_f64(), "{line}");
        assert!(
            line["compile_us"].as_f64() > Some(0.0) && line["instantiate_us"]["p50"].as_f64() > Some(0.0),
            "{line}"
        );
        assert_eq!(line["calls"], 200);
    }
    let table = plugin(&home, &arguments).ok().stdout;
    assert!(table.contains("instantiate p99") && table.contains("change"), "{table}");
}

/// A home with an ace.toml that trusts one key, and this key.
fn signing_home() -> Home {
    let home = author("target/plugins/stub_policy.wasm", "stub_policy");
    let public = plugin(&home, &["key", "release.key"]).ok().stdout.trim().to_owned();
    home.config(&format!("[plugin-signatures]\nrequired = true\nkeys = ['{public}']"));
    home
}

fn state(home: &Home, name: &str) -> String {
    let line = home.ace(&["plugins", name, "--json"]).run().lines().remove(0);
    line["state"]["reason"].as_str().unwrap_or_else(|| line["state"]["state"].as_str().expect("a state")).to_owned()
}

#[test]
fn a_plugin_without_a_trusted_signature_is_rejected() {
    let home = signing_home();
    plugin(&home, &["install", "stub_policy.wasm"]).code(1).says("it is not signed");
    assert_eq!(home.list("plugins"), [""; 0]);
    plugin(&home, &["sign", "stub_policy.wasm", "--key", "release.key"]).ok();
    plugin(&home, &["verify", "stub_policy.wasm"]).ok();
    plugin(&home, &["install", "stub_policy.wasm"]).ok();
    assert_eq!(home.list("plugins"), ["stub_policy.toml", "stub_policy.wasm", "stub_policy.wasm.minisig"]);
    assert_eq!(state(&home, "stub_policy"), "active");

    // The signature is not valid for another manifest, component or name.
    let manifest = home.read("plugins/stub_policy.toml");
    home.file("plugins/stub_policy.toml", format!("{manifest}\n# changed\n"));
    assert!(state(&home, "stub_policy").contains("the manifest or the name was changed"));
    home.file("plugins/stub_policy.toml", &manifest);
    let signature = home.read("plugins/stub_policy.wasm.minisig");
    home.plugin("bulk_email_optout");
    home.file("plugins/bulk_email_optout.wasm.minisig", &signature);
    assert!(state(&home, "bulk_email_optout").contains("or the file was changed after it was signed"));
    std::fs::copy(home.path("plugins/stub_policy.wasm"), home.path("plugins/bulk_email_optout.wasm")).expect("copied");
    home.file("plugins/bulk_email_optout.toml", &manifest);
    assert!(state(&home, "bulk_email_optout").contains("the manifest or the name was changed"));

    // A key that is not trusted.
    plugin(&home, &["key", "other.key"]).ok();
    plugin(&home, &["key", "other.key"]).code(2).says("other.key");
    plugin(&home, &["sign", "stub_policy.wasm", "--key", "other.key"]).ok();
    plugin(&home, &["verify", "stub_policy.wasm"]).code(1).says("it is not signed with any of the trusted keys");
    home.config("[plugin-signatures]\nkeys = ['nonsense']");
    home.ace(&["plugins"]).run().code(2).says("plugin-signatures.keys[0]");
}

#[test]
fn a_plugin_is_installed_by_its_revision_and_removed() {
    let home = author("target/plugins/bulk_email_optout.wasm", "bulk_email_optout");
    home.config("");
    plugin(&home, &["install", "bulk_email_optout.wasm", "--revision", "0"]).code(2).says("nothing was installed");
    let done = plugin(&home, &["install", "bulk_email_optout.wasm"]).ok();
    done.says("requested but not granted: keyvalue:course-optouts:read");
    done.says("ace plugins grant bulk_email_optout");
    assert!(!home.read("ace.toml").contains("course-optouts"), "nothing is granted by installing");
    plugin(&home, &["install", "bulk_email_optout.wasm"]).ok();
    home.file("bulk_email_optout.wasm", std::fs::read(repository("target/plugins/stub_policy.wasm")).expect("built"));
    plugin(&home, &["install", "bulk_email_optout.wasm"]).code(2).says("--replace");
    plugin(&home, &["install", "bulk_email_optout.wasm", "--replace"]).ok();
    plugin(&home, &["remove", "bulk_email_optout"]).ok();
    assert_eq!(home.list("plugins"), [""; 0]);
    plugin(&home, &["remove", "bulk_email_optout"]).code(2).says("there is no plugin \"bulk_email_optout\"");
    plugin(&home, &["remove", "../bulk_email_optout"]).code(2).says("there is no plugin");
}

#[test]
fn the_cases_of_a_channel_show_its_notes_and_its_hold() {
    let home = author("target/test-plugins/address_probe.wasm", "address_probe");
    home.file(
        "address_probe.toml",
        "[requests]\nhttp = ['https://push.example/']\n[defaults]\nurl = 'https://push.example'\n",
    );
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"push-token": ["a", "b"]}});
    let message = message("note", json!({"recipient": recipient}));
    let answered = |token: &str, answer: Value| json!({"http": {"request": {"url": format!("https://push.example/{token}")}, "answer": answer}});
    let limited = json!({"status": 429, "headers": {"retry-after": "60"}});
    let cases = json!([
        {"message": message, "host": [answered("a", json!({"status": 410})), answered("b", json!({"status": 200, "body": "id"}))],
         "expect": {"sent": {"provider_id": "2 now, 0 before"}, "outcomes": [
            {"kind": "push-token", "address": "a", "outcome": "dropped", "code": "UNREGISTERED"},
            {"kind": "push-token", "address": "b", "outcome": "sent", "provider_id": "id"}]}},
        {"message": message, "noted": [{"kind": "push-token", "address": "a", "outcome": "sent"}], "attempt": 2,
         "now": "2026-01-01T00:00:00Z", "host": [answered("b", limited)],
         "expect": {"recoverable": {"message": "HTTP 429"},
            "hold": {"until": "2026-01-01T00:01:00Z", "reason": "its quota is used up"}}}
    ]);
    home.file("tests/cases.json", cases.to_string());
    plugin(&home, &["test", "address_probe.wasm"]).ok();
}
