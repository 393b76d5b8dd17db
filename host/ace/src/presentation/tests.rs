mod escaping;
pub(crate) mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::message::TemplateFile;
use support::{Folders, hello, optional, render, subject};

#[test]
fn files_come_in_the_order_the_channel_asks_for_and_name_their_source() {
    let folders = Folders::new();
    folders.hello("body.txt", "B").hello("subject.txt", "S\n");
    let presentation = folders.load(&["a"]);
    let files = [TemplateFile::required("subject.txt"), optional("icon.txt"), TemplateFile::required("body.txt")];
    let rendered = render(&presentation, &hello(json!({})), &files).unwrap();
    let shown: Vec<_> = rendered.iter().map(|f| (f.name.as_str(), folders.short(&f.source), f.text.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("subject.txt", "a/app/edx_ace/hello/email/subject.txt".to_owned(), "S\n"),
            ("body.txt", "a/app/edx_ace/hello/email/body.txt".to_owned(), "B"),
        ]
    );
    assert_eq!(presentation.problems(), []);
}

#[test]
fn the_first_folder_that_has_a_file_wins_for_layouts_and_includes_too() {
    let folders = Folders::new();
    folders
        .write("b/app/edx_ace/hello/email/body.txt", "{% extends 'common/base.txt' %}{% block c %}site{% endblock c %}")
        .write("b/app/edx_ace/hello/email/subject.txt", "site subject")
        .write("b/common/base.txt", "site[{% block c %}{% endblock c %}]{% include 'common/end.txt' %}")
        .write("b/common/end.txt", "site end")
        .write("a/app/edx_ace/hello/email/subject.txt", "theme subject")
        .write("a/common/end.txt", "theme end");
    let presentation = folders.load(&["a", "b"]);
    let files = [TemplateFile::required("subject.txt"), TemplateFile::required("body.txt")];
    let rendered = render(&presentation, &hello(json!({})), &files).unwrap();
    assert_eq!(rendered[0].text, "theme subject");
    assert_eq!(rendered[1].text, "site[site]theme end");
    assert!(rendered[0].source.contains("/a/app/") && rendered[1].source.contains("/b/app/"));
    assert_eq!(presentation.problems(), []);
}

#[test]
fn a_missing_required_file_names_every_searched_folder() {
    let folders = Folders::new();
    folders.hello("subject.txt", "S").write("b/x.txt", "");
    let presentation = folders.load(&["a", "b"]);
    let files = [TemplateFile::required("subject.txt"), TemplateFile::required("body.txt"), optional("x.txt")];
    let fault = render(&presentation, &hello(json!({})), &files).unwrap_err();
    assert!(!fault.absent);
    assert_eq!(
        folders.short(&fault.message),
        "template app/edx_ace/hello/email/body.txt is missing; \
         looked in a/app/edx_ace/hello/email, b/app/edx_ace/hello/email"
    );
}

#[test]
fn a_message_without_any_required_file_is_absent() {
    let folders = Folders::new();
    folders.hello("extra.txt", "E");
    let presentation = folders.load(&["a"]);
    let files = [TemplateFile::required("subject.txt"), TemplateFile::required("body.txt"), optional("extra.txt")];
    let fault = render(&presentation, &hello(json!({})), &files).unwrap_err();
    assert!(fault.absent);
    assert!(
        fault
            .message
            .starts_with("templates subject.txt, body.txt are missing from app/edx_ace/hello/email; looked in ")
    );
    let push = Subject { channel_type: "push", ..subject(&files[..1]) };
    assert!(presentation.render(&hello(json!({})), &push).unwrap_err().absent);
    assert_eq!(render(&presentation, &hello(json!({})), &[optional("none.txt")]), Ok(vec![]));
}

#[test]
fn html_is_escaped_and_text_is_not() {
    let folders = Folders::new();
    folders
        .hello("body.html", "{{ name }}|{{ name | safe }}")
        .hello("body.txt", "{{ name }}")
        .hello("body.xml", "{{ name }}");
    let context = json!({"name": "<Tom> & 'Jerry\""});
    let escaped = "&lt;Tom&gt; &amp; &#x27;Jerry&quot;|<Tom> & 'Jerry\"";
    assert_eq!(folders.render("body.html", context.clone()).unwrap(), escaped);
    assert_eq!(folders.render("body.txt", context.clone()).unwrap(), "<Tom> & 'Jerry\"");
    assert_eq!(folders.render("body.xml", context).unwrap(), "<Tom> & 'Jerry\"");
}

#[test]
fn a_context_value_that_looks_like_a_template_stays_text() {
    let folders = Folders::new();
    folders.hello("body.txt", "{{ a }} {{ list[0] }}{% set b = a %}{{ b }}");
    let context = json!({"a": "{{ 7 * 7 }}{% include 'x' %}", "list": ["{# no #}"]});
    assert_eq!(
        folders.render("body.txt", context).unwrap(),
        "{{ 7 * 7 }}{% include 'x' %} {# no #}{{ 7 * 7 }}{% include 'x' %}"
    );
}

#[test]
fn templates_see_the_message_and_the_channel() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "{{ message.unique_name }} {{ message.uuid }} [{{ message.send_uuid }}] {{ message.language }} \
         {{ message.recipient.lms_user_id }} {{ message.recipient.email_address }} {{ message.expiration_time }} \
         {{ message.options.reply_to[0] }} {{ message.headers['X-One'] }} {{ message.context is defined }} \
         {{ channel.name }} {{ channel.channel_type }} \
         {% for l in channel.action_links %}{{ l.text }}={{ l.url }} {% endfor %}{{ channel.tracker_image_sources[0] }}",
    );
    let mut message = Message::from_json(
        br#"{"app_label": "app", "name": "hello", "recipient": {"lms_user_id": 7, "email_address": "z@example.org"},
             "uuid": "7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01", "language": "es", "context": {},
             "expiration_time": "2030-01-01 00:00:00", "options": {"reply_to": ["r@example.org"]},
             "headers": {"X-One": "1"}}"#,
    )
    .unwrap();
    let link = |text: &str, unsubscribe| ActionLink { url: format!("/{text}"), text: text.to_owned(), unsubscribe };
    let files = [TemplateFile::required("body.txt")];
    let subject = Subject {
        action_links: &[link("stop", true), link("more", false)],
        tracker_image_sources: &["/t.png".to_owned()],
        ..subject(&files)
    };
    let presentation = folders.load(&["a"]);
    let head = "app.hello 7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01 [] es 7 z@example.org 2030-01-01 00:00:00 \
                r@example.org 1 true file_email email ";
    assert_eq!(
        presentation.render(&message, &subject).unwrap().files[0].text,
        format!("{head}stop=/stop more=/more /t.png")
    );
    message.context.insert("omit_unsubscribe_link", true);
    assert_eq!(presentation.render(&message, &subject).unwrap().files[0].text, format!("{head}more=/more /t.png"));
    message.context = Default::default();
    message.options.insert("omit_unsubscribe_link".to_owned(), json!(1));
    assert_eq!(presentation.render(&message, &subject).unwrap().files[0].text, format!("{head}more=/more /t.png"));
}

#[test]
fn the_context_may_shadow_message_and_channel() {
    let folders = Folders::new();
    folders.hello("body.txt", "{{ message }} {{ channel.name }}");
    let context = json!({"message": "mine", "channel": {"name": "TV"}});
    assert_eq!(folders.render("body.txt", context).unwrap(), "mine TV");
}

#[test]
fn undefined_variables_and_failing_filters_name_file_line_and_expression() {
    let cases = [
        ("\n\n{{ nick }}", "3: Variable `nick` is not defined."),
        ("\n{{ user.nick }}", "2: Field `nick` is not defined."),
        ("{{ nick | upper }}", "1: "),
        ("{% for x in nick %}{% endfor %}", "1: Iteration not possible on type `undefined` at `nick`"),
        ("\n{{ user?.nick }}", "2: Tried to render a variable that is undefined at `"),
        ("{{ 'x' | round }}", "1: "),
        ("{{ 'x' | json_encode(pretty=true) }}", "1: json_encode takes no arguments, not `pretty`"),
        ("{{ range(end=100000000) }}", "1: `range` gives at most 1000 numbers"),
        ("{{ range(end=4, step_by=0) }}", "1: `range` needs a `step_by` other than 0"),
    ];
    for (text, expected) in cases {
        let folders = Folders::new();
        folders.hello("body.txt", text);
        let fault = folders.render("body.txt", json!({"user": {}})).unwrap_err();
        let expected = format!("a/app/edx_ace/hello/email/body.txt:{expected}");
        assert!(fault.starts_with(&expected), "{fault}\n should start with\n{expected}");
    }
}

#[test]
fn a_fault_names_all_undefined_variables_of_a_message() {
    let folders = Folders::new();
    folders.hello("subject.txt", "{{ a }}").hello(
        "body.txt",
        "{{ b.x.y }}{{ b.z }}\n{{ user.c }} {{ user.d | upper }} {{ n.k }}{% for x in list %}{{ x.e }}{% endfor %}{{ a }}\n{{ f }}",
    );
    let files = ["subject.txt", "body.txt"].map(TemplateFile::required);
    let presentation = folders.load(&["a"]);
    let message = hello(json!({"user": {"name": "Z"}, "list": [{}, {}], "n": 7}));
    let fault = folders.short(&render(&presentation, &message, &files).unwrap_err().message);
    assert!(
        fault.starts_with("a/app/edx_ace/hello/email/subject.txt:1: Variable `a` is not defined. Available"),
        "{fault}"
    );
    assert!(
        fault.ends_with(
            "; also undefined: `b` (body.txt:1), `user.c` (body.txt:2), `user.d` (body.txt:2), `n.k` (body.txt:2)"
        ),
        "up to one that cannot be filled in: {fault}"
    );
    folders
        .hello("body.txt", "{% for x in list %}{{ x.e }}{% endfor %}")
        .hello("subject.txt", "{{ a }}{{ 'x' | round }}{{ g }}");
    let fault = render(&folders.load(&["a"]), &message, &files).unwrap_err().message;
    assert!(fault.ends_with("; also undefined: `x.e` (body.txt:1)"), "{fault}");
    folders.hello("subject.txt", "{{ 'x' | round }}{{ a }}");
    let fault = render(&folders.load(&["a"]), &message, &files).unwrap_err().message;
    assert!(!fault.contains("not defined"), "another fault comes first: {fault}");
    let many: String = (0..50).map(|n| format!("{{{{ v{n} }}}}")).collect();
    folders.hello("subject.txt", &many);
    let fault = render(&folders.load(&["a"]), &message, &files).unwrap_err().message;
    assert!(fault.contains("`v9` (subject.txt:1)") && !fault.contains("`v10`"), "{fault}");
}

#[test]
fn a_fault_in_a_layout_names_the_layout_and_the_file_asked_for() {
    let folders = Folders::new();
    folders.hello("body.txt", "{% extends 'common/base.txt' %}").write("a/common/base.txt", "\n{{ gone }}");
    let fault = folders.render("body.txt", json!({"b": 1})).unwrap_err();
    assert_eq!(
        fault,
        "a/common/base.txt:2: Variable `gone` is not defined. Available variables: b, channel, message \
         (in a/app/edx_ace/hello/email/body.txt)"
    );
}

#[test]
fn optional_variables_can_be_tested() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "{{ a?.b or 'x' }} {{ a | default(value='d') }} {{ a or 'o' }} {% if a is defined %}yes{% else %}no{% endif %} \
         {% if a %}yes{% else %}no{% endif %} {{ u?.n | default(value='-') }} {{ z | default(value='0', boolean=true) }} \
         [{{ null }}]{% for x in l or [] %}{% else %} none{% endfor %}",
    );
    assert_eq!(folders.render("body.txt", json!({"u": {}, "z": "", "null": null})).unwrap(), "x d o no no - 0 [] none");
}

#[test]
fn range_counts_as_tera_says() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "{{ range(end=3) }} {{ range(start=1, end=8, step_by=3) }} {{ range(start=3, end=0, step_by=-1) }}",
    );
    assert_eq!(folders.render("body.txt", json!({})).unwrap(), "[0, 1, 2] [1, 4, 7] [3, 2, 1]");
}

#[test]
fn broken_templates_are_listed_and_stop_only_what_uses_them() {
    let folders = Folders::new();
    folders
        .hello("good.txt", "{% extends 'common/good.txt' %}{% block c %}good{% endblock c %}")
        .hello("syntax.txt", "\n{% if %}")
        .hello("filter.txt", "\n\n{{ a | shout }}")
        .hello("orphan.txt", "{# x #}\n{% extends 'common/gone.txt' %}")
        .hello("child.txt", "{% extends 'common/broken.txt' %}")
        .hello("grandchild.txt", "{% extends 'app/edx_ace/hello/email/child.txt' %}")
        .hello("include.txt", "a\n{% include 'common/gone.txt' %}")
        .hello("include2.txt", "{% include 'common/broken.txt' %}")
        .hello("self.txt", "{% extends 'app/edx_ace/hello/email/self.txt' %}")
        .hello("loop1.txt", "{% include 'app/edx_ace/hello/email/loop2.txt' %}")
        .hello("loop2.txt", "{% include 'app/edx_ace/hello/email/loop1.txt' %}")
        .hello("latin1.txt", "")
        .write("a/app/edx_ace/hello/email/latin1.txt", b"a\nb\nZo\xeb")
        .write("a/common/good.txt", "<{% block c %}{% endblock c %}>")
        .write("a/common/broken.txt", "{{ }}");
    let presentation = folders.load(&["a", "nowhere"]);
    let email = "a/app/edx_ace/hello/email";
    let starts = [
        format!("{email}/child.txt:1: extends `common/broken.txt`, which is broken"),
        format!("{email}/filter.txt:3: Unknown filter `shout`"),
        format!("{email}/grandchild.txt:1: extends `app/edx_ace/hello/email/child.txt`, which is broken"),
        format!("{email}/include.txt:2: includes `common/gone.txt`, which is in no template folder"),
        format!("{email}/include2.txt:1: includes `common/broken.txt`, which is broken"),
        format!("{email}/latin1.txt: is not UTF-8 from line 3 on"),
        format!("{email}/loop1.txt: includes itself: "),
        format!("{email}/loop2.txt:1: includes `app/edx_ace/hello/email/loop1.txt`, which is broken"),
        format!("{email}/orphan.txt:2: extends `common/gone.txt`, which is in no template folder"),
        format!("{email}/self.txt: extends itself: "),
        format!("{email}/syntax.txt:2: "),
        "a/common/broken.txt:1: ".to_owned(),
        "nowhere: cannot read this template folder: ".to_owned(),
    ];
    let problems = folders.problems(&presentation);
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(&starts) {
        assert!(problem.starts_with(start), "{problem}\n should start with\n{start}");
    }
    let good = render(&presentation, &hello(json!({})), &[TemplateFile::required("good.txt")]).unwrap();
    assert_eq!(good[0].text, "<good>");
    for name in ["syntax", "filter", "orphan", "child", "grandchild", "include", "include2", "self", "loop1", "latin1"]
    {
        let file = TemplateFile::required(format!("{name}.txt"));
        let fault = render(&presentation, &hello(json!({"a": "a"})), &[file]).unwrap_err();
        assert!(problems.contains(&folders.short(&fault.message)) && !fault.absent, "{name}: {fault}");
    }
}

#[test]
fn a_component_defined_twice_breaks_the_second_only() {
    let folders = Folders::new();
    let component = "{% component Hi() %}hi{% endcomponent Hi %}";
    folders.write("a/common/one.txt", component).write("a/common/two.txt", component).hello("body.txt", "{{<Hi />}}");
    let problems = folders.problems(&folders.load(&["a"]));
    assert_eq!(problems, ["a/common/two.txt: Component `Hi` is defined in both `common/one.txt` and `common/two.txt`"]);
    assert_eq!(folders.render("body.txt", json!({})).unwrap(), "hi");
}

#[test]
fn a_broken_optional_file_is_a_fault_too() {
    let folders = Folders::new();
    folders.hello("icon.txt", "{{");
    assert!(render(&folders.load(&["a"]), &hello(json!({})), &[optional("icon.txt")]).is_err());
}

#[test]
fn output_ends_at_its_limit_for_all_files_together() {
    let folders = Folders::new();
    let loops = "{% for i in range(end=1000) %}{% for j in range(end=100) %}{{ fifty }}{% endfor %}{% endfor %}";
    folders.hello("one.txt", loops).hello("two.txt", loops);
    let message = hello(json!({"fifty": "1234567890".repeat(5)}));
    let presentation = folders.load(&["a"]);
    let one = [TemplateFile::required("one.txt")];
    assert_eq!(render(&presentation, &message, &one).unwrap()[0].text.len(), 5_000_000);
    let both = [TemplateFile::required("one.txt"), TemplateFile::required("two.txt")];
    let fault = render(&presentation, &message, &both).unwrap_err();
    assert_eq!(
        folders.short(&fault.message),
        "a/app/edx_ace/hello/email/two.txt: the message's templates wrote more than 8 MiB; \
         check for a loop that does not terminate"
    );
}

#[test]
fn only_templates_are_read() {
    let folders = Folders::new();
    folders
        .hello("payload.json", "{\"n\": {{ n }}}")
        .hello("body.txt~", "{{")
        .hello(".body.txt.swp", "{{")
        .write("a/README.md", "{{ broken")
        .write("a/samples/hello.json", "{{ broken")
        .write("a/app/logo.png", b"\x89PNG\xff")
        .write("a/partials/x.txt", "x");
    let presentation = folders.load(&["a"]);
    assert_eq!(folders.problems(&presentation), [""; 0]);
    let files = presentation.messages().map(|m| (m.app_label, m.name, m.channel_type, m.files)).collect::<Vec<_>>();
    assert_eq!(files, [("app", "hello", "email", vec!["payload.json"])]);
    assert_eq!(folders.render("payload.json", json!({"n": 1})).unwrap(), "{\"n\": 1}");
}

#[test]
fn a_fault_says_if_there_is_no_template_folder() {
    let presentation = Presentation::load(&[], &config::Presentation::default());
    let fault = render(&presentation, &hello(json!({})), &[TemplateFile::required("body.txt")]).unwrap_err();
    assert_eq!(fault.message, "template app/edx_ace/hello/email/body.txt is missing; no template folder is configured");
    assert!(fault.absent);
}

/// The project's own templates and the messages beside them.
mod own {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates")
    }

    fn sample(name: &str) -> Message {
        let path = folder().join("samples").join(format!("{name}.json"));
        Message::from_json(&fs::read(path).unwrap()).unwrap()
    }

    fn email(message: &Message) -> Vec<RenderedFile> {
        let presentation = Presentation::load(&[folder()], &config::Presentation::default());
        assert_eq!(presentation.problems(), []);
        let files = ["from_name.txt", "subject.txt", "body.html", "head.html", "body.txt"].map(TemplateFile::required);
        let tracker = ["https://t.example.org/?a=1&b=2".to_owned()];
        render_with(&presentation, message, &files, &tracker)
    }

    fn render_with(p: &Presentation, m: &Message, files: &[TemplateFile], tracker: &[String]) -> Vec<RenderedFile> {
        let link = ActionLink { url: "/c?a&b".to_owned(), text: "From the channel".to_owned(), unsubscribe: true };
        p.render(m, &Subject { action_links: &[link], tracker_image_sources: tracker, ..subject(files) }).unwrap().files
    }

    #[test]
    fn every_sample_renders_escaped_and_complete() {
        for (name, in_html, in_text) in [
            ("passwordreset", "zoe&lt;o&#x27;neil&gt;&amp;co", "zoe<o'neil>&co"),
            ("coursedigest", "Algorithms &amp; Data Structures &lt;2nd edition&gt;", "Structures <2nd edition>"),
            ("weeklynews", "it stays {{ x }}", "Łukasz's bridge"),
        ] {
            let files = email(&sample(name));
            let [from_name, subject, html, head, text] = &files[..] else { panic!("{files:?}") };
            assert_eq!(from_name.text.trim(), "Riverside Learning", "{name}");
            assert!(subject.text.contains("Riverside Learning") && subject.text.trim().lines().count() == 1, "{name}");
            assert!(html.text.contains(in_html) && html.text.contains("lang=\"en\" dir=\"ltr\""), "{name}");
            assert!(html.text.contains("<img src=\"https://t.example.org/?a=1&amp;b=2\" width=\"1\""), "{name}");
            assert!(head.text.contains("prefers-color-scheme: dark") && head.text.contains("<title>"), "{name}");
            assert!(text.text.contains(in_text) && !text.text.contains("&amp;"), "{name}");
            assert!(text.text.contains("Uferstraße 12"), "{name}");
        }
    }

    #[test]
    fn the_digest_has_an_empty_state() {
        let mut message = sample("coursedigest");
        message.context.insert("courses", json!([]));
        let files = email(&message);
        assert!(files[2].text.contains("You are not in a course") && files[4].text.contains("You are not in a course"));
        assert!(files[2].text.contains("Find a course") && !files[2].text.contains("Go on learning"));
    }

    #[test]
    fn the_news_always_offer_one_way_to_unsubscribe() {
        let mut message = sample("weeklynews");
        let own = "https://riverside.example/unsubscribe/news?u=19&t=9b20";
        let files = email(&message);
        assert!(files[2].text.contains(&own.replace('&', "&amp;")) && files[4].text.contains(own));
        assert!(!files[2].text.contains("From the channel") && !files[4].text.contains("From the channel"));
        message.context.remove("unsubscribe_url");
        let files = email(&message);
        assert!(files[2].text.contains("href=\"/c?a&amp;b\"") && files[4].text.contains("From the channel: /c?a&b"));
    }

    #[test]
    fn a_mail_without_tracking_has_no_tracker_image() {
        let presentation = Presentation::load(&[folder()], &config::Presentation::default());
        let html = render_with(&presentation, &sample("weeklynews"), &[TemplateFile::required("body.html")], &[]);
        assert!(!html[0].text.contains("<img"));
    }
}
