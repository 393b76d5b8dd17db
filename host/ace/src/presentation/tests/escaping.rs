//! Values that do not break out of the HTML around them.

use proptest::prelude::*;

use super::*;

/// A template with a value in every kind of position.
const PLACES: &str = "<p title=\"{{ v }}\" class='{{ v }}'>{{ v }}</p>{{ trans(message='Hi %(v)s') }}\
    {{ blocktrans(message='%(v)s', plural='%(v)s', count=2, v=v) }}{{ list | join(sep=', ') }}\
    {% set kept %}{{ v }}{% endset %}{{ kept }}{{ v | upper }}{{ v | replace(from='x', to=v) }}{{ v ~ v }}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The HTML of any value has the same tags, quotes and ampersands as that of a harmless value.
    #[test]
    fn no_value_breaks_out_of_the_html(value in "[<>&\"'`a-c\\\\/={}%()\r\n\u{0}x\u{2028}é-]{0,40}") {
        thread_local! {
            static SHARED: (Folders, Presentation) = {
                let folders = Folders::new();
                folders.hello("body.html", PLACES);
                let presentation = folders.load(&["a"]);
                (folders, presentation)
            };
        }
        let html = SHARED.with(|(_, presentation)| {
            let message = hello(json!({"v": value, "list": [value, value]}));
            render(presentation, &message, &[TemplateFile::required("body.html")]).unwrap().remove(0).text
        });
        let count = |c: char| html.matches(c).count();
        prop_assert_eq!((count('<'), count('>'), count('"'), count('\'')), (2, 2, 2, 2), "{}", html);
        let entities = ["&lt;", "&gt;", "&amp;", "&quot;", "&#x27;", "&LT;", "&GT;"];
        let known: usize = entities.iter().map(|entity| html.matches(entity).count()).sum();
        prop_assert_eq!(count('&'), known, "{}", html);
    }
}

/// A value in each of Django's filters, as in imported templates.
const FILTERED: &str = "{{ v | linebreaks }}{{ v | linebreaksbr }}{{ v | truncatechars_html(length=9) }}\
    {{ v | truncatewords_html(length=2) }}{{ v | truncatechars(length=9) }}{{ v | striptags }}{{ v | addslashes }}{{ v | urlencode }}\
    {{ v | escapejs }}{{ v | django_title }}{{ v | django_upper }}{{ v | capfirst }}{{ v | wordwrap(width=5) }}{{ v | center(width=50) }}\
    {{ v | slugify }}{{ v | make_list | text }}{{ v | make_list | django_join(sep=v) }}{{ v | django_slice(range='1:9') }}\
    {{ v | django_first }}{{ v | django_last }}{{ v | add(value=v) }}{{ v | cut(value='a') }}{{ true | yesno(choices=v) | text }}\
    {{ none | default_if_none(value=v) }}{{ v | force_escape }}{{ v | conditional_escape }}{{ v | stringformat(format='s') }}\
    {{ v | gettext }}{{ v | spaceless }}{{ m | text }}{{ m | items | text }}{{ list | django_last }}{{ (m?.none or v) | text }}\
    {{ interpolate_html(value='{a}', a=v) }}{% filter spaceless %}{{ v }}{% endfilter %}{% filter linebreaks %}{{ v }}{% endfilter %}\
    {% filter django_lower %}{{ v }}{% endfilter %}{% set w = v | default(value='') %}{{ w | text }}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Apart from the tags that filters add, any value is rendered as text.
    #[test]
    fn no_value_breaks_out_of_a_filter(value in "[<>&\"'`a-c;\\/={}%()\r\n\u{0}x é-]{0,40}|(<(p|b)( a=)?|>|</b>|<!--|-->|&(lt|#60|amp);?|\n){0,10}") {
        thread_local! {
            static SHARED: (Folders, Presentation) = {
                let folders = Folders::new();
                folders.hello("body.html", FILTERED);
                let presentation = folders.load(&["a"]);
                (folders, presentation)
            };
        }
        let html = SHARED.with(|(_, presentation)| {
            let message = hello(json!({"v": value, "m": {"k": value}, "list": [value]}));
            render(presentation, &message, &[TemplateFile::required("body.html")]).unwrap().remove(0).text
        });
        let bare = ["<p>", "</p>", "<br>"].iter().fold(html.clone(), |text, tag| text.replace(tag, ""));
        prop_assert!(!bare.contains(['<', '>', '"', '\'']), "{}", html);
        let entities = ["&lt;", "&gt;", "&amp;", "&quot;", "&#x27;"];
        let known: usize = entities.iter().map(|entity| bare.matches(entity).count()).sum();
        prop_assert_eq!(bare.matches('&').count(), known, "{}", html);
    }
}
