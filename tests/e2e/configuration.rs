//! Settings in ace.toml and in the environment, and the errors for invalid ones.

use serde_json::{Value, json};

use crate::servers::{Smtpd, free_port, relay};
use crate::support::{GRANTED, Home, demo_home, mail_home, message, repository};

const DISCARD: &str = "[relays.main]\nkind = 'discard'\n";

#[test]
fn every_problem_is_reported_at_once_with_file_line_and_the_nearest_name() {
    let home = Home::empty();
    let lines = [
        "plugin-dir = 'plugins'",
        "[delivry]",
        "concurrency = 4",
        "[delivery]",
        "concurrency = 'eight'",
        "[relays.main]",
        "kind = 'smtp'",
        "hots = '127.0.0.1'",
        "[mailer]",
        "default-from = 'nobody at all'",
        "[plugins.bulk_email_optout]",
        "on-error = 'ignore'",
        "grants = { keyvalue = ['course-optouts:reed'] }",
        "[plugins.other]",
        "grants = { http = ['ftp://example.com/'] }",
    ];
    home.file("ace.toml", lines.join("\n"));
    let done = home.ace(&["send", "-"]).env("ACE_DELIVERY__MAX_WAITNG", "7").run().code(2);
    assert_eq!(done.stdout, "");
    let expected = [
        "ace.toml:1: plugin-dir: ",
        "ace.toml:2: delivry: ",
        "did you mean \"delivery\"?",
        "ace.toml:5: delivery.concurrency: ",
        "ace.toml:8: relays.main.hots: unknown key; did you mean \"host\"?",
        "ace.toml:10: mailer.default-from: ",
        "ace.toml:12: plugins.bulk_email_optout.on-error: ",
        "ace.toml:13: plugins.bulk_email_optout.grants.keyvalue",
        "ace.toml:15: plugins.other.grants.http",
        "ACE_DELIVERY__MAX_WAITNG: unknown setting; did you mean ACE_DELIVERY__MAX_WAITING?",
    ];
    expected.iter().for_each(|text| {
        done.says(text);
    });
}

#[test]
fn names_that_no_plugin_has_are_reported_at_once() {
    let home = Home::empty();
    home.plugin("django_email");
    home.plugin("stub_policy");
    let lines = [
        "plugin-dir = 'plugins'",
        "enabled-policies = ['stub_polcy']",
        "[routing]",
        "default = { email = 'djano_email' }",
        "transactional = { email = 'stub_policy' }",
        "[plugins.django_mail]",
        "enabled = true",
    ];
    home.file("ace.toml", lines.join("\n"));
    let done = home.ace(&["send", "-"]).run().code(2);
    done.says("ace.toml:2: enabled-policies").says("did you mean \"stub_policy\"?");
    done.says("ace.toml:4: routing.default.email: ").says("did you mean \"django_email\"?");
    done.says("ace.toml:5: routing.transactional.email: \"stub_policy\" is a policy, not a channel");
    done.says("ace.toml:6: plugins.django_mail: ");
    assert_eq!(done.stdout, "");
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let home = Home::empty();
    home.file("ace.toml", "[delivery]\nconcurrency = = 4\n");
    home.ace(&["plugins"]).run().code(2).says("ace.toml:2: ");
}

#[test]
fn the_environment_overrides_the_file() {
    let server = Smtpd::start(&[]);
    let home = mail_home(&relay(free_port(), "tls = 'none'"));
    let port = server.port.to_string();
    let run = home.ace(&["send", "--json", "-"]).input(message("note", json!({})).to_string());
    let done =
        run.env("ACE_RELAYS__MAIN__PORT", &port).env("ACE_MAILER__DEFAULT_FROM", "Env <env@campus.example>").run();
    assert_eq!(done.ok().email()["state"], "sent");
    assert_eq!(server.mail().sender().1, "env@campus.example");

    let run = home.ace(&["send", "-"]).env("ACE_DELIVERY__CONCURRENCY", "eight");
    run.run().code(2).says("ACE_DELIVERY__CONCURRENCY: ");
}

#[test]
fn the_configuration_file_can_be_named() {
    let home = mail_home(DISCARD);
    std::fs::create_dir(home.path("etc")).expect("made");
    let text = home.read("ace.toml").replace("'plugins'", "'../plugins'").replace("'templates'", "'../templates'");
    home.file("etc/other.toml", text);
    std::fs::remove_file(home.path("ace.toml")).expect("removed");
    let plugins = home.ace(&["plugins", "--json", "--config", "etc/other.toml"]).run().ok().lines();
    assert_eq!(plugins[0]["name"], "django_email", "paths are relative to the file");
    assert_eq!(home.ace(&["plugins", "--json"]).env("ACE_CONFIG", "etc/other.toml").run().ok().lines().len(), 1);
}

#[test]
fn a_missing_configuration_is_reported_with_a_hint() {
    let done = Home::empty().ace(&["send", "-"]).run().code(2);
    done.says("there is no configuration at ace.toml").says("\nhint: ").says("--config");
}

#[test]
fn a_secret_in_the_file_is_rejected_and_not_shown() {
    let home = mail_home("");
    let log_in = "tls = 'none'\nusername = 'ann'\npassword = 'hunter2-hunter2'";
    home.config(&format!("{GRANTED}{}", relay(25, log_in)));
    let done = home.ace(&["send", "-", "--log", "debug"]).run().code(2);
    done.says("relays.main.password: ").says("env");
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

#[test]
fn a_secret_whose_variable_is_not_set_is_named() {
    let home = mail_home("");
    home.config(&format!("{GRANTED}{}", relay(25, "username = 'ann'\npassword = { env = 'NO_SUCH_SECRET' }")));
    home.ace(&["send", "-"]).run().code(2).says("relays.main.password").says("NO_SUCH_SECRET");
}

#[test]
fn secrets_of_plugins_are_never_shown() {
    let home = mail_home(DISCARD);
    home.config(&format!("{GRANTED}secrets = {{ api-key = {{ env = 'API_KEY' }} }}\n{DISCARD}"));
    for arguments in [&["plugins", "--json"][..], &["plugins"], &["check"], &["send", "-"]] {
        let done = home.ace(arguments).env("API_KEY", "s3cr3t-v4lu3").env("ACE_LOG", "debug").run().ok();
        assert!(!done.stdout.contains("s3cr3t") && !done.stderr.contains("s3cr3t"), "{done:?}");
    }
}

#[test]
fn wrong_usage_starts_nothing() {
    let home = mail_home(DISCARD);
    home.ace(&["sned", "-"]).run().code(2).says("send");
    home.ace(&["send", "--concurrency", "0", "-"]).run().code(2).says("--concurrency");
    home.ace(&["send", "--log", "a=b=c", "-"]).run().code(2).says("--log");
    let help = home.ace(&["send", "--help"]).run().ok();
    assert!(help.stdout.contains("ace send --json messages.ndjson > outcomes.ndjson"), "examples: {}", help.stdout);
}

#[test]
fn check_finds_every_problem_with_its_location() {
    let home =
        mail_home(&format!("{DISCARD}\n[plugins.file_email]\n[routing]\ndefault = {{ email = 'djang_email' }}\n"));
    home.plugin("file_email");
    home.file("plugins/garbage.wasm", "this is no plugin");
    home.file("templates/app/edx_ace/half/email/body.txt", "Hello\n\n{% if %}\n");
    let done = home.ace(&["check"]).run().code(1);
    let expected = [
        ("ace.toml:", "routing.default.email: "),
        ("garbage.wasm: ", "not a WebAssembly component"),
        ("file_email.wasm: ", "requested but not granted in ace.toml: outbox"),
        ("app/edx_ace/half/email/body.txt:3: ", ""),
        (
            "app/edx_ace/half/email: ",
            "django_email needs files that no template folder contains: from_name.txt, subject.txt, body.html, head.html",
        ),
    ];
    for (place, message) in expected {
        let is_told = done.stdout.lines().any(|line| line.contains(place) && line.contains(message));
        assert!(is_told, "{place} {message}: {}", done.stdout);
    }
    let machine = home.ace(&["check", "--json"]).run().code(1);
    let found: Vec<Value> = machine.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), done.stdout.lines().count());
    assert!(found.iter().all(|problem| problem["location"].is_string() && problem["message"].is_string()));
}

#[test]
fn check_warns_of_a_grant_for_a_domain_in_which_anybody_can_have_a_host() {
    let http = "['https://*.github.io/', 'https://*.push.example/', 'https://*/']";
    let home = mail_home(&format!("{DISCARD}\n[plugins.stub_policy]\ngrants = {{ http = {http} }}\n"));
    home.plugin("stub_policy");
    let done = home.ace(&["check"]).run().ok();
    let warnings: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [warning] = warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("warning: plugins.stub_policy.grants.http: "), "{warning}");
    assert!(warning.contains("https://*.github.io/"), "{warning}");
}

#[test]
fn check_finds_no_problem_in_the_demo() {
    let done = demo_home().ace(&["check"]).run().ok();
    assert_eq!(done.stdout, "");
    let plugins = std::fs::read_dir(repository("target/plugins")).expect("built").flatten();
    let count = plugins.filter(|file| file.path().extension().is_some_and(|ext| ext == "wasm")).count();
    done.says(&format!("{count} plugins, ")).says(": 0 problems");
}
