//! Variables of the environment, and files beside ace.toml.

use super::*;

#[test]
fn a_secret_from_the_environment_overlay_is_refused_without_its_value() {
    let problems = read_with(&relay_with(""), &[("ACE_RELAYS__R__PASSWORD", "hunter2")]).unwrap_err();
    assert!(problems[0].starts_with("ACE_RELAYS__R__PASSWORD: a secret must not be in this file"), "{problems:?}");
    assert!(!problems.join("\n").contains("hunter2"));
}

#[test]
fn the_environment_lies_over_the_file() {
    let text =
        "[delivery]\nconcurrency = 4\n[plugins.my-channel]\norder = 3\n[relays.main]\nkind = \"smtp\"\nhost = \"a\"";
    let env = [
        ("ACE_DELIVERY__CONCURRENCY", "16"),
        ("ACE_DELIVERY__RETRY_DELAY", "7s"),
        ("ACE_RELAYS__MAIN__HOST", "smtp.example.com"),
        ("ACE_RELAYS__MAIN__USERNAME", "12345"),
        ("ACE_RELAYS__MAIN__PASSWORD__ENV", "P"),
        ("ACE_PLUGINS__MY_CHANNEL__ENABLED", "false"),
        ("ACE_PLUGINS__DJANGO_EMAIL__CONFIG__CAMPAIGNS", "{ b = 'x', a = 1979-05-27 }"),
        ("ACE_ROUTING__DEFAULT", "{ email = 'a', push = 'p' }"),
        ("ACE_ROUTING__DEFAULT__EMAIL", "django_email"),
        ("ACE_ENABLED_CHANNELS", "['django_email']"),
        ("ACE_CONFIG", "ace.toml"),
        ("ACE_LOG", "debug"),
        ("ACE_SERVER__PORT", "80"),
        ("PATH", "/bin"),
        ("P", "secret"),
    ];
    let config = read_with(text, &env).unwrap();
    assert_eq!((config.delivery.concurrency, config.delivery.retry_delay), (16, Duration::from_secs(7)));
    let RelayKind::Smtp(smtp) = &config.fixed.mailer.relays["main"].kind else { panic!("not SMTP") };
    assert_eq!((smtp.host.as_str(), smtp.login.as_ref().unwrap().username.as_str()), ("smtp.example.com", "12345"));
    let plugin = &config.plugins["my-channel"];
    assert_eq!((plugin.enabled, plugin.order), (false, 3));
    let campaigns = serde_json::to_string(&config.plugins["django_email"].config).unwrap();
    assert_eq!(campaigns, r#"{"campaigns":{"b":"x","a":"1979-05-27"}}"#);
    assert_eq!(config.routing.default["email"], "django_email");
    assert_eq!(config.routing.default["push"], "p");
    assert_eq!(config.enabled_channels, Some(names(&["django_email"])));
}

#[test]
fn a_problem_of_the_environment_names_its_variable() {
    let cases = [
        ("ACE_DELIVERY__CONCURRENCY", "many", "must be a whole number from 1 to 10000, not a string"),
        ("ACE_DELIVERY__CONCURENCY", "1", "unknown setting; did you mean ACE_DELIVERY__CONCURRENCY?"),
        ("ACE_DELIVERY_CONCURRENCY", "1", "unknown setting; did you mean ACE_DELIVERY__CONCURRENCY?"),
        ("ACE_RELAY__MAIN__HOST", "h", "unknown setting; did you mean ACE_RELAYS__MAIN__HOST?"),
        ("ACE_delivery__concurrency", "1", "unknown setting"),
        ("ACE_PLUGINS__", "1", "unknown setting; did you mean ACE_PLUGINS?"),
        ("ACE_ENTIRELY_ELSEWHERE_IN_ANOTHER_PROGRAM", "1", "unknown setting; docs/configuration.md lists all of them"),
        ("ACE_CHANNEL_DEFAULT_EMAIL", "x", "is a setting of edx-ace; here it is routing.default.email"),
        (
            "ACE_CHANNEL_SAILTHRU_DEBUG",
            "x",
            "is a setting of edx-ace; here it is config and secrets of plugins.sailthru_email",
        ),
        ("ACE_PLUGIN_DIR__X", "1", "\"plugin-dir\" is a string, not a table"),
        ("ACE_ENABLED_CHANNELS", "a,b", "must be a list, as in [\"a\", \"b\"], not a string"),
    ];
    for (name, value, expected) in cases {
        let problems = read_with("plugin-dir = \".\"", &[(name, value)]).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("{name}: ")) && problems[0].contains(expected),
            "{name}: {problems:?}"
        );
    }
    let problems = read_with("plugins.a-b.order = 1\nplugins.a_b.order = 1", &[("ACE_PLUGINS__A_B__ORDER", "2")]);
    assert!(problems.unwrap_err()[0].contains("could mean both \"a-b\" and \"a_b\""));
    let deep = format!("ACE{}", "_A_".repeat(30_000));
    assert!(read_with("", &[(&deep, "1")]).unwrap_err()[0].contains("unknown setting"));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_settings() {
    let of_services = [
        ("ACE_SERVICE_HOST", "10.0.0.7"),
        ("ACE_SERVICE_PORT", "8025"),
        ("ACE_SERVICE_PORT_HTTP", "8025"),
        ("ACE_SERVICE_PORT_HTTP_ALT", "8026"),
        ("ACE_PORT", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP_PROTO", "tcp"),
        ("ACE_PORT_8025_TCP_PORT", "8025"),
        ("ACE_PORT_8025_TCP_ADDR", "10.0.0.7"),
        ("ACE_PORT_53_UDP", "udp://10.0.0.7:53"),
        ("ACE_PORT_3868_SCTP_ADDR", "10.0.0.7"),
        // A Service called ace-mail.
        ("ACE_MAIL_SERVICE_HOST", "fd00::7"),
        ("ACE_MAIL_SERVICE_PORT_SMTP", "25"),
        ("ACE_MAIL_PORT", "tcp://[fd00::7]:25"),
        ("ACE_MAIL_PORT_25_TCP_ADDR", "fd00::7"),
        // The program's own.
        ("ACE_LOG_FORMAT", "json"),
        ("ACE_FEEDBACK_SECRET", "hush"),
        ("ACE_FEEDBACK_SECRET_FILE", "/etc/ace/reports.secret"),
    ];
    for variable in of_services {
        assert_eq!(read_with("", &[variable]).map(|_| ()), Ok(()), "{variable:?}");
    }
    assert_eq!(read_with("", &of_services).map(|_| ()), Ok(()));
    let still_refused = [
        ("ACE_PORT", "8025"),
        ("ACE_SERVICE", "ace"),
        ("ACE_SERVICE_HOSTS", "10.0.0.7"),
        ("ACE_SERVICE_PORTS", "8025"),
        ("ACE_PORT_8025", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_80250_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_HTTP_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP_HOST", "10.0.0.7"),
        ("ACE_FEEDBACK_SECRETS", "hush"),
    ];
    for variable in still_refused {
        let problems = read_with("", &[variable]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("unknown setting"), "{variable:?}: {problems:?}");
    }
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let folder = Folder::new("paths");
    fs::create_dir(folder.0.join("plugins")).unwrap();
    let config = folder.read("plugin-dir = \"plugins\"\ncache-dir = \"/var/cache/ace\"", &[]).unwrap();
    assert_eq!(config.fixed.plugin_dir, Some(folder.0.join("plugins")));
    assert_eq!(config.fixed.cache_dir, Some(PathBuf::from("/var/cache/ace")));
    let database =
        |path| folder.read(&format!("keyvalue.database = \"{path}\""), &[]).map(|c| c.fixed.keyvalue.database);
    assert_eq!(database("facts.db"), Ok(Some(folder.0.join("facts.db"))));
    assert_eq!(database("plugins/facts.db"), Ok(Some(folder.0.join("plugins/facts.db"))));
    assert_eq!(database("plugins"), Err(vec!["ace.toml:1: keyvalue.database: plugins is not a file".to_owned()]));
    let text = "plugin-dir = \"plugin\"\ntemplate-dirs = [\"plugins\", \"templates\"]\nkeyvalue.files = [\"plugins\"]\n\
        keyvalue.database = \"state/facts.db\"";
    let problems = folder.read(text, &[]).unwrap_err();
    let expected = [
        "ace.toml:1: plugin-dir: there is no folder plugin",
        "ace.toml:2: template-dirs[1]: there is no folder templates",
        "ace.toml:3: keyvalue.files[0]: plugins is not a file",
        "ace.toml:4: keyvalue.database: there is no folder state",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_file_is_loaded_with_the_environment_of_the_process() {
    let folder = Folder::new("load");
    folder.write("ace.toml", "[delivery]\nconcurrency = 3");
    let config = Config::load(&folder.0.join("ace.toml")).unwrap();
    assert_eq!(config.delivery.concurrency, 3);
    assert_eq!(config.file, Some(folder.0.join("ace.toml")));
    let missing = Config::load(&folder.0.join("none.toml")).unwrap_err();
    assert!(missing.to_string().contains("none.toml cannot be read: "), "{missing}");
}

#[test]
fn a_group_is_a_name_or_a_number() {
    let group =
        |text: &str| read(text).map(|config| (config.fixed.queue.access.group, config.fixed.mailer.access.group));
    assert_eq!(group("").unwrap(), (None, None));
    assert_eq!(group("file-group = \"root\"").unwrap(), (Some(0), Some(0)));
    assert_eq!(group("file-group = 4711").unwrap(), (Some(4711), Some(4711)));
    let config = read("file-group = \"4711\"\nplugins.p = { grants = { outbox = 'out' } }").unwrap();
    assert_eq!((config.fixed.keyvalue.access.group, config.plugins["p"].grants.access.group), (Some(4711), Some(4711)));
    let unknown = group("file-group = \"no such group\"").unwrap_err().concat();
    assert!(unknown.contains("file-group") && unknown.contains("there is no group"), "{unknown}");
    assert!(group("file-group = -1").is_err());
}

#[test]
fn compiled_plugins_are_stored_where_the_service_or_the_user_keeps_caches() {
    let dir = |variables: &[(&str, &str)]| {
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        cache_dir_of(of).display().to_string()
    };
    assert_eq!(dir(&[]), "/var/cache/ace");
    assert_eq!(dir(&[("HOME", "/home/zoe")]), "/home/zoe/.cache/ace");
    assert_eq!(dir(&[("HOME", "/home/zoe"), ("XDG_CACHE_HOME", "/caches")]), "/caches/ace");
    assert_eq!(dir(&[("HOME", "/home/zoe"), ("XDG_CACHE_HOME", "relative")]), "/home/zoe/.cache/ace");
    assert_eq!(dir(&[("HOME", "/"), ("CACHE_DIRECTORY", "/var/cache/a:/var/cache/b")]), "/var/cache/a");
}
