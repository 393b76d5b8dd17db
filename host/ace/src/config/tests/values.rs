//! Values, each by itself.

use super::*;

#[test]
fn values_out_of_range_are_refused() {
    let cases = [
        ("[delivery]\nconcurrency = 0", "must be a whole number from 1 to 10000"),
        ("[delivery]\nconcurrency = 99999999999999999999999", "must be a whole number from 1 to 10000"),
        ("[delivery]\nconcurrency = 1.5", "must be a whole number from 1 to 10000, not a number"),
        ("[delivery]\nretry-delay = 5", "must be a duration from 1ms to 1d: a whole number and its unit"),
        ("[delivery]\nretry-delay = \"5\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"5 weeks\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"99999999999999999999d\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"2m\"", "retry-delay (2m) must be at most max-retry-delay (1m)"),
        (
            "[delivery]\nmax-expiration-delay = \"100s\"\nexpiration-delay = \"2m\"",
            "expiration-delay (2m) must be at most max-expiration-delay (100s)",
        ),
        ("[delivery]\nmax-message-bytes = -1", "must be a size from 1KiB to 256MiB"),
        ("[queue]\nmax-interruptions = 3", "must be a whole number from 4 to 1000"),
        ("[http]\ntimeout = \"0s\"", "must be a duration from 1ms to 10m"),
        ("[http]\nmax-response-bytes = 1", "must be a size from 1KiB to 256MiB"),
        ("[http]\nca-file = \"no-such-ca.pem\"", "there is no file no-such-ca.pem"),
        ("[compiler]\nmemory = \"127MiB\"", "must be a size from 128MiB to 64GiB"),
        ("[compiler]\ntotal-memory = \"65GiB\"", "must be a size from 128MiB to 64GiB"),
        ("[compiler]\nprocesses = 0", "must be a whole number from 1 to 64"),
        ("[compiler]\ncpu-time = \"999ms\"", "must be a duration from 1s to 1h"),
        ("[compiler]\ntimeout = \"2h\"", "must be a duration from 1s to 1h"),
        ("[compiler]\ncode-bytes = \"3GiB\"", "must be a size from 1MiB to 2GiB"),
        ("[compiler]\ncompile = \"in-process\"", "unknown"),
        ("[limits]\nmemory = \"5GiB\"", "must be a size from 64KiB to 4GiB"),
        ("[limits]\nmemory = \"64 Mb\"", "must be a size from 64KiB to 4GiB"),
        ("[limits]\nmemory = \"32MiB\"\n[plugins.p.limits]\nmemory = \"33MiB\"", "must be a size from 64KiB to 32MiB"),
        ("[plugins.p]\nlimits.time = \"251ms\"", "must be a duration from 1ms to 250ms"),
        ("[plugins.p]\nlimits.call-timeout = \"31s\"", "must be a duration from 1ms to 30s"),
        ("[plugins.p]\non-error = \"denie\"", "must be one of \"retry\", \"deny\", \"allow\"; did you mean \"deny\"?"),
        ("[plugins.p]\nenabled = \"no\"", "must be true or false, not a string"),
        ("[plugins.p]\nconfig.rate = nan", "rate: contains a number that JSON does not allow"),
        ("[plugins.p]\nconfig.big = 9999999999999999999", "big: contains a number of more than 64 bits"),
        ("enabled-channels = [\"a\", \"b\", \"a\"]", "enabled-channels[2]: \"a\" is in the list twice"),
        ("[routing]\ndefault = { Email = \"x\" }", "is not a channel type: use lower-case letters"),
    ];
    for (text, expected) in cases {
        let problem = refusal(text);
        let line = text.lines().count();
        assert!(problem.starts_with(&format!("line {line}: ")) && problem.contains(expected), "{text}\n{problem}");
    }
}

#[test]
fn durations_and_sizes_have_units() {
    let config = read(
        "delivery = { retry-delay = '250ms', max-retry-delay = '5m',
          expiration-delay = '0s', max-expiration-delay = '2h' }
        limits = { memory = '64KiB', output-bytes = 2048, log-bytes = '10KB' }",
    );
    let config = config.unwrap();
    assert_eq!(config.delivery.retry_delay, Duration::from_millis(250));
    assert_eq!(config.delivery.max_retry_delay, Duration::from_secs(300));
    assert_eq!(config.delivery.expiration_delay, Some(Duration::ZERO));
    assert_eq!(config.delivery.max_expiration_delay, Some(Duration::from_secs(7200)));
    assert_eq!(
        (config.fixed.limits.memory, config.fixed.limits.output_bytes, config.fixed.limits.log_bytes),
        (65_536, 2048, 10_000)
    );
}

#[test]
fn a_size_is_shown_as_it_is_written() {
    for (bytes, shown) in [(0, "0B"), (1, "1B"), (1500, "1500B"), (65_536, "64KiB"), (1 << 30, "1GiB")] {
        assert_eq!(values::show_size(bytes), shown);
    }
    for (millis, shown) in [(0, "0s"), (250, "250ms"), (100_000, "100s"), (120_000, "2m"), (86_400_000, "1d")] {
        assert_eq!(values::show_duration(Duration::from_millis(millis)), shown);
    }
}

#[test]
fn addresses_are_checked() {
    let good = [
        "a@example.com",
        "webmaster@localhost",
        "first.last+tag@sub.example.co",
        "Org <a@b.example>",
        "<a@b.example>",
        "\"Doe, J.\" <j@b.example>",
        "grüße@bücher.example",
        "Zoë 🎓 <z@b.example>",
    ];
    for sender in good {
        let config = read(&format!("mailer.default-from = {sender:?}"));
        assert_eq!(config.unwrap().fixed.mailer.default_from.as_deref(), Some(sender));
    }
    let bad = [
        "",
        "a",
        "a@",
        "@b.example",
        "a b@c.example",
        "a@b..c",
        ".a@b.example",
        "a@-b.example",
        "a@b.example, c@d.example",
        "Name a@b.example",
        "Name <a@b.example",
        "Name <>",
        "a@b.example\\r\\nBcc: c@d.example",
        "N\\n <a@b.example>",
        "a@b@c d",
    ];
    for sender in bad {
        let problem = refusal(&format!("mailer.default-from = \"{sender}\""));
        assert!(problem.starts_with("line 1: mailer.default-from: "), "{sender}: {problem}");
    }
}

#[test]
fn a_value_without_its_quotes_is_named() {
    let cases = [
        ("plugin-dir = plugins", "1: not TOML: plugins is a string and needs quotes: \"plugins\""),
        (
            "\n[relays.r]\nhost = nothing.example # here",
            "3: not TOML: nothing.example is a string and needs quotes: \"nothing.example\"",
        ),
        ("plugin-dir = /opt/ace", "1: not TOML: /opt/ace is a string and needs quotes: \"/opt/ace\""),
        ("plugin-dir = info", "1: not TOML: info is a string and needs quotes: \"info\""),
        ("[delivery]\nretry-delay = 10s", "2: not TOML: 10s is a string and needs quotes: \"10s\""),
        ("[queue]\nmax-size = 2GiB", "2: not TOML: 2GiB is a string and needs quotes: \"2GiB\""),
        ("enabled-channels = [email, 'x']", "1: not TOML: email is a string and needs quotes: \"email\""),
        ("enabled-channels = [\n  'x',\n  nobody\n]", "3: not TOML: nobody is a string and needs quotes: \"nobody\""),
        ("plugins.x = { enabled = True }", "1: not TOML: write true in lower case, not True"),
        ("plugins.x.secrets = { k = { env = NAME } }", "1: not TOML: NAME is a string and needs quotes: \"NAME\""),
        ("plugin-dir = 'plugins", "1: not TOML: "),
        ("plugin-dir =", "1: not TOML: "),
    ];
    for (text, expected) in cases {
        let problems = read_with(text, &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text:?}: {problems:?}");
        assert!(!problems[0].contains("nan"), "{text:?}: {problems:?}");
    }
}

#[test]
fn colours_of_a_brand_are_read_and_must_be_readable() {
    let brand = |text: &str| read(&format!("[presentation.brand]\n{text}")).map(|config| config.presentation.brand);
    let green = brand("color = '#0a5'\non-color = '#000'\nlink-color = '#00693e'").unwrap();
    assert_eq!(green.value("color").as_deref(), Some("#00aa55"));
    assert_eq!(green.value("link-color").as_deref(), Some("#00693e"));
    for (text, expected) in [
        ("color = 'green'", "presentation.brand.color: must be a colour, as in \"#1f4fd8\" or \"#14d\", not \"green\""),
        ("color = '#12345'", "must be a colour"),
        (
            "color = '#ffcc00'",
            "the text of buttons (on-color) #ffffff on color #ffcc00: the contrast is 1.51:1, and 4.5:1",
        ),
        ("color = '#ffcc00'\non-color = '#000'", "links #ffcc00 on the mail #ffffff: the contrast is 1.51:1"),
        ("background = '#555'", "links in the footer"),
        (
            "link-color = '#777'",
            "presentation.brand.link-color: links #777777 on the mail #ffffff: the contrast is 4.47:1",
        ),
        ("colour = '#000'", "unknown key; did you mean \"color\"?"),
    ] {
        let problems = brand(text).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{text}: {problems}");
    }
}

#[test]
fn a_theme_has_the_brand_except_for_what_it_sets() {
    let text = "[presentation.brand]\nname = 'River'\naddress = 'Quay 1'\nlink-color = '#00693e'\n\
                [presentation.themes.'red.example']\ncolor = '#a00'\n";
    let themes = read(text).unwrap().presentation.themes;
    let red = |name: &str| themes["red.example"].value(name).unwrap();
    assert_eq!(
        [red("name"), red("address"), red("color"), red("link-color")],
        ["River", "Quay 1", "#aa0000", "#aa0000"]
    );
    let wrong = read("[presentation.themes.pale]\ncolor = '#fff'\n").unwrap_err().join("\n");
    assert!(wrong.contains("presentation.themes.pale.color: "), "{wrong}");
}
