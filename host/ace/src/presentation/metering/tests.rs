//! Limits of rendering, through whole renders.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config;
use crate::message::TemplateFile;
use crate::presentation::Presentation;
use crate::presentation::tests::support::{Folders, hello, render};

const FILE: &str = "a/app/edx_ace/hello/email/body.txt";

/// The fault of rendering `app.hello`'s body with one second of CPU time.
fn fault(folders: &Folders, context: Value) -> String {
    let settings = config::Presentation { render_timeout: Duration::from_secs(1), ..Default::default() };
    let presentation = Presentation::load(&[folders.0.path().join("a")], &settings);
    let started = Instant::now();
    let fault = render(&presentation, &hello(context), &[TemplateFile::required("body.txt")]).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(300), "it took {:?}", started.elapsed());
    folders.short(&fault.message)
}

#[test]
fn loops_that_write_nothing_end_at_their_limit() {
    let folders = Folders::new();
    let nested = "{% for b in range(end=1000) %}{% for c in range(end=1000) %}";
    folders.hello("body.txt", &format!("\n{nested}{nested}{}", "{% endfor %}".repeat(4)));
    let expected = format!(
        "{FILE}:2: the message's templates ran more than 200000 loop bodies and blocks; check for nested loops"
    );
    assert_eq!(fault(&folders, json!({})), expected);
    folders.hello("body.txt", "{% set x = [[1 for a in r if [2 for b in r if [3 for c in r if false]]] for d in r] %}");
    assert!(fault(&folders, json!({"r": vec![1; 1000]})).contains("more than 200000 loop bodies"));
}

#[test]
fn files_and_components_that_double_themselves_end_at_their_limit() {
    let folders = Folders::new();
    for n in 0..30 {
        folders
            .write(&format!("a/c/{n}.txt"), format!("{{% include 'c/{0}.txt' %}}{{% include 'c/{0}.txt' %}}", n + 1));
    }
    folders.write("a/c/30.txt", "").hello("body.txt", "{% include 'c/0.txt' %}");
    assert!(fault(&folders, json!({})).contains("more than 200000 loop bodies and blocks"));
    let again = "{{<again />}}".repeat(4);
    folders.hello("body.txt", &format!("{{% component again() %}}{again}{{% endcomponent %}}{again}"));
    let said = fault(&folders, json!({}));
    assert!(said.contains("more than 200000 loop bodies") || said.contains("recursion depth"), "{said}");
}

#[test]
fn files_in_too_long_a_row_are_refused_when_they_are_read() {
    let folders = Folders::new();
    for n in 0..40 {
        folders.write(&format!("a/c/{n:02}.txt"), format!("{{% include 'c/{:02}.txt' %}}", n + 1));
    }
    folders.write("a/c/40.txt", "end").hello("body.txt", "fine").hello("subject.txt", "{% include 'c/00.txt' %}");
    let presentation = folders.load(&["a"]);
    let files = [TemplateFile::required("body.txt")];
    assert_eq!(render(&presentation, &hello(json!({})), &files).unwrap()[0].text, "fine");
    let problems = folders.problems(&presentation);
    assert!(
        problems.contains(&"a/c/00.txt: more than 32 files include or extend one another in a row".to_owned()),
        "{problems:?}"
    );
    assert!(!problems.iter().any(|problem| problem.contains("c/20.txt")), "{problems:?}");
}

#[test]
fn variables_that_grow_and_slow_filters_end_at_their_limit() {
    let folders = Folders::new();
    folders.hello("body.txt", &format!("{{% set s = 'abcdefgh' %}}\n{}", "{% set s = s ~ s %}".repeat(40)));
    assert_eq!(
        fault(&folders, json!({})),
        format!("{FILE}:2: a variable holds more than 8 MiB; check for one that grows in a loop")
    );
    folders.hello("body.txt", "{% set s = big | replace(from='a', to=big) %}");
    assert!(fault(&folders, json!({"big": "a".repeat(100_000)})).contains("holds more than 8 MiB"));
    folders.hello("body.txt", "{{ list | join(sep=big) }}");
    assert!(
        fault(&folders, json!({"big": "a".repeat(100_000), "list": vec![1; 1000]})).contains("holds more than 8 MiB")
    );
    folders.hello("body.txt", "{% for x in range(end=1000) %}{% for y in range(end=100) %}{% if big | upper %}{% endif %}{% endfor %}{% endfor %}");
    let said = fault(&folders, json!({"big": "a".repeat(1_000_000)}));
    assert!(said.contains("rendering the message computed longer than 1000 ms"), "{said}");
}

/// Tera holds what a `set` block or a filter section captures: none of these may take more memory than the bound.
#[test]
fn text_that_is_captured_ends_at_its_limit_while_it_is_captured() {
    let expected =
        "the message's templates wrote more than 32 MiB in loops, including text captured by variables and filters";
    let loops = |body: &str| {
        format!("{{% for x in range(end=1000) %}}{{% for y in range(end=100) %}}{body}{{% endfor %}}{{% endfor %}}")
    };
    let long = "x".repeat(100_000);
    let bodies = [
        ("{{ big }}", "a value"),
        ("{{ big | safe }}", "a value with a filter"),
        ("{{ m.big[0] }}", "a field"),
        ("{{ [big, big] }}", "a list"),
        ("{{ big if true else 1 }}", "an expression"),
        (&long, "text"),
        ("{% include 'c/big.txt' %}", "a file"),
        ("{% include 'c/text.txt' %}", "text of a file"),
        ("{% include 'c/outer.txt' %}", "a file of a file"),
        ("{{<wide text={big} />}}", "a component"),
    ];
    for (body, what) in bodies {
        let folders = Folders::new();
        folders
            .write("a/c/big.txt", "{{ big }}")
            .write("a/c/text.txt", &long)
            .write("a/c/outer.txt", "{% include 'c/big.txt' %}");
        let component = "{% component wide(text) %}{{ text }}{% endcomponent %}";
        for (begin, end) in [("{% set kept %}", "{% endset %}"), ("{% filter upper %}", "{% endfilter %}")] {
            folders.hello("body.txt", &format!("{component}{begin}{}{end}", loops(body)));
            let said = fault(&folders, json!({"big": "a".repeat(100_000), "m": {"big": ["a".repeat(100_000)]}}));
            assert!(said.contains(expected), "{what} in {begin}: {said}");
        }
    }
}

#[test]
fn faults_where_values_are_counted_show_the_expression_as_it_is_written() {
    let folders = Folders::new();
    for (body, expected) in [
        ("{{ nick }}", "Variable `nick` is not defined."),
        ("{{ x.nick }}", "Field `nick` is not defined."),
        ("{{ l | first | round }}", "1: "),
        ("{{ (x?.nick) }}", "undefined at `(x?.nick)`"),
    ] {
        folders.hello("body.txt", &format!("{{% set kept %}}{{% for x in l %}}{body}{{% endfor %}}{{% endset %}}"));
        let said = fault(&folders, json!({"l": [{"a": "b"}]}));
        assert!(said.contains(expected) && !said.contains("__"), "{said}");
    }
}

#[test]
fn instrumentation_does_not_change_the_output() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "  {% for x in [y ~ '!' for y in list if y != 'b'] -%}\n  {{ x }}{% if loop.last %}.{% else %},{% endif %}\n{%- endfor %}\n\
         {% set both = list | join(sep='+') -%}  {{ both | replace(from='+', to='-') }} {% set none_at_all = m?.x %}\
         {% set said -%}  <{{ both }}>  {%- endset %}{{ said }}{% raw %}{% for %}{% endraw %}\n",
    );
    let text = folders.render("body.txt", json!({"list": ["a", "b", "c"], "m": null})).unwrap();
    assert_eq!(text, "  a!,c!.\na-b-c <a+b+c>{% for %}\n");
    folders.hello("body.html", "{{ [a, '<' | safe] | join(sep='&') }} {{ a | replace(from='>', to='<b>' | safe) }}");
    assert_eq!(folders.render("body.html", json!({"a": "<>"})).unwrap(), "&lt;&gt;&amp;< &lt;&gt;");
}
