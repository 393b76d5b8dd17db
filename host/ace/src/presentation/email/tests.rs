//! Post-processing of mails, through whole renders.

use std::collections::BTreeMap;

use serde_json::json;

use crate::config;
use crate::message::{ActionLink, RenderedFile, TemplateFile};
use crate::presentation::tests::support::{Folders, hello, render, subject};
use crate::presentation::{Presentation, Subject};

const HEAD: &str = "a/app/edx_ace/hello/email/head.html";

fn mail(folders: &Folders, settings: config::Presentation) -> Result<BTreeMap<String, RenderedFile>, String> {
    let presentation = Presentation::load(&[folders.0.path().join("a")], &settings);
    assert_eq!(folders.problems(&presentation), [""; 0]);
    let files = ["subject.txt", "body.html", "head.html", "body.txt"].map(TemplateFile::required);
    let message = hello(json!({"n": "<3>", "course_ids": ["course-v1:A+B+C"], "omit": true}));
    let channel = [
        ActionLink { url: "/stop".to_owned(), text: "Stop".to_owned(), unsubscribe: true },
        ActionLink { url: "/view".to_owned(), text: "View".to_owned(), unsubscribe: false },
    ];
    let rendered = presentation.render(&message, &Subject { action_links: &channel, ..subject(&files) });
    let rendered = rendered.map_err(|fault| folders.short(&fault.message))?;
    let names: Vec<&str> = rendered.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, files.each_ref().map(|file| file.name.as_str()), "in the order of the request");
    Ok(rendered.files.into_iter().map(|file| (file.name.clone(), file)).collect())
}

fn folders(body: &str) -> Folders {
    let folders = Folders::new();
    folders.hello("subject.txt", "S").hello("body.html", body).hello("head.html", "<style>p { margin: 0 }</style>");
    folders
}

#[test]
fn style_sheets_are_put_into_the_elements_unless_the_operator_says_no() {
    let folders = folders("<p>{{ n }}</p>");
    folders.hello("body.txt", "T");
    let html = |settings| mail(&folders, settings).unwrap()["body.html"].text.clone();
    assert_eq!(html(config::Presentation::default()), "<p style=\"margin: 0;\">&lt;3&gt;</p>");
    let plain = config::Presentation { inline_css: false, ..Default::default() };
    assert_eq!(html(plain), "<p>&lt;3&gt;</p>");
}

#[test]
fn the_text_is_derived_from_the_html_if_it_is_allowed() {
    let folders = folders(
        "<div style=\"display:none\">preheader</div><h1>Hello</h1>\n<table role=\"presentation\"><tr><td>{{ n }} is less than four\
         </td></tr></table><p>See <a href=\"https://a.example/x?y=1&amp;z=2\">the page</a>.</p>",
    );
    let allowed = config::Presentation { text_from_html: true, ..Default::default() };
    let text = mail(&folders, allowed.clone()).unwrap().remove("body.txt").unwrap();
    assert_eq!(
        text.text.trim_end(),
        "# Hello\n\n<3> is less than four\n\nSee [the page][1].\n\n[1]: https://a.example/x?y=1&z=2"
    );
    assert!(text.source.ends_with("body.html (as text)"), "{}", text.source);
    let fault = mail(&folders, config::Presentation::default()).unwrap_err();
    assert!(fault.starts_with("template app/edx_ace/hello/email/body.txt is missing"), "{fault}");
    folders.hello("body.txt", "its own");
    assert_eq!(mail(&folders, allowed).unwrap()["body.txt"].text, "its own");
}

#[test]
fn minified_html_keeps_visible_content_and_conditional_comments() {
    let folders = folders(
        "<p>  a\n\n   b  <b>c</b></p>\n<!-- gone --><!--[if mso]>  <i>x</i>  <![endif]-->\n\n<pre>\n  keep   this\n</pre>  {{ n }}",
    );
    folders.hello("body.txt", "T").write(HEAD, "<title> a  b </title>\n\n\n<!-- gone -->");
    let settings = config::Presentation { minify_html: true, ..Default::default() };
    let files = mail(&folders, settings).unwrap();
    let expected =
        "<p> a\nb <b>c</b></p>\n<!--[if mso]>  <i>x</i>  <![endif]-->\n<pre>\n  keep   this\n</pre> &lt;3&gt;";
    assert_eq!(files["body.html"].text, expected);
    assert_eq!(files["head.html"].text, "<title> a  b </title>\n");
}

#[test]
fn minified_html_keeps_the_whitespace_that_a_style_preserves() {
    let folders = folders(
        "<p style=\"white-space: pre-wrap\">a  b\n\n<b>c  d</b><br>  e<p>f  </p></p>  <i>g  h</i>\
         <div class=\"code\"><div>i  j</div>  k</div>  l  <s style='color:red;WHITE-SPACE : Pre-Line!important'>m\n\nn</s>  \
         <img style=\"white-space:pre\">  <u style=\"white-space: nowrap\">o  p</u>",
    );
    folders.hello("body.txt", "T").write(HEAD, "<style>.code { white-space: break-spaces }</style>");
    let of = |inline_css| {
        let settings = config::Presentation { minify_html: true, inline_css, ..Default::default() };
        mail(&folders, settings).unwrap()["body.html"].text.clone()
    };
    let html = of(true);
    for kept in
        ["a  b\n\n<b>c  d</b><br>  e<p>f  </p></p> <i>g h</i>", "<div>i  j</div>  k</div> l <s", "m\n\nn</s> <img"]
    {
        assert!(html.contains(kept), "{kept}: {html}");
    }
    assert!(html.ends_with("> <u style=\"white-space: nowrap\">o p</u>"), "{html}");
    assert!(of(false).contains("<i>g  h</i>"), "a sheet may apply to any element");
}

#[test]
fn addresses_are_absolute_and_marked_with_where_they_were_followed() {
    let folders = folders(
        "{{ static(path='/img/a b.png') }} {{ with_link_tracking(url='/courses?a=1&utm_source=old&b=') }} \
         {{ 'https://else.example/#top' | with_link_tracking }} {{ 'mailto:a@b.c' | with_link_tracking }} \
         {% for link in get_action_links() %}{{ link.text }} {% endfor %}\
         {% for link in get_action_links(channel=channel, omit_unsubscribe_link=omit) %}{{ link.text }}{% endfor %}",
    );
    folders.hello("body.txt", "T");
    let settings = config::Presentation {
        base_url: "https://learn.example.org/".parse().ok(),
        static_url: Some("/static/".to_owned()),
        ..Default::default()
    };
    let html = mail(&folders, settings).unwrap()["body.html"].text.clone();
    let (tracked, uuid) = (
        "utm_source=app&amp;utm_medium=email&amp;utm_campaign=hello&amp;utm_term=course-v1%3AA%2BB%2BC",
        "utm_content=",
    );
    assert!(
        html.starts_with(
            "https://learn.example.org/static/img/a%20b.png https://learn.example.org/courses?a=1&amp;b=&amp;"
        ),
        "{html}"
    );
    assert!(html.contains(&format!("&amp;b=&amp;{tracked}&amp;{uuid}")), "{html}");
    assert!(
        html.contains(&format!(" https://else.example/?{tracked}")) && html.contains("#top mailto:a@b.c "),
        "{html}"
    );
    assert!(html.ends_with(" Stop View View"), "{html}");
    let fault = mail(&folders, config::Presentation::default()).unwrap_err();
    assert!(fault.contains("body.html:1: `static` needs presentation.static-url in ace.toml"), "{fault}");
}

#[test]
fn html_that_is_nested_too_deeply_is_a_fault_of_the_template() {
    let folders = Folders::new();
    let nest = "{% for i in range(end=1000) %}{% for j in range(end=100) %}<div>{% endfor %}{% endfor %}deep";
    folders.hello("body.html", nest).hello("head.html", "<style>div > div { margin: 0 }</style>");
    let settings = config::Presentation { text_from_html: true, ..Default::default() };
    let presentation = Presentation::load(&[folders.0.path().join("a")], &settings);
    let files = ["body.html", "head.html", "body.txt"].map(TemplateFile::required);
    let fault = render(&presentation, &hello(json!({})), &files).unwrap_err();
    assert!(fault.message.contains("nested more than 512 elements deep"), "{}", fault.message);
}
