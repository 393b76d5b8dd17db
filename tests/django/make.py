#!/usr/bin/env python3
"""Renders the cases with Django itself and writes its output to golden/, one file for each file of cases.

    make.py            write the files
    make.py --check    exit code 1 if one differs from Django's output

A case starts with a line `=== name [options]`. Options: a language, or `*` for every language of Django, with Django's catalogues
alone; the name of the main file (default: main.html); `zone=Europe/Berlin` (default: UTC); and `differs`: ACE's output is known to
differ, follows after `--- ours`, and docs/templates.md says why. A line `@ {…}` may follow: the context, in which
{"$date": "…"} is a date, {"$ago": 90} the time that many seconds ago, and "$channel" what the channel has: `links`, each [address,
text, whether it is for unsubscribing], and `trackers`. Then follow the main file and, after `--- name`, others.
"""

import contextlib
import datetime
import io
import json
import pathlib
import re
import struct
import sys
import tempfile
import types
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import django
from django.conf import settings
from django.template import Context, Engine, Library
from django.template.defaultfilters import floatformat
from django.test.utils import override_settings
from django.urls import include, path, re_path
from django.utils import translation
from django.utils.html import format_html
from django.utils.safestring import mark_safe

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = "app/edx_ace/case/email/"
# The same as in ace.toml and in the message of ../django.rs.
SITE = "https://courses.example.org"
STATIC = "https://static.example.org/app/"
UUID = "7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01"


def cases(text):
    for part in re.split(r"^=== ", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        name, options = re.fullmatch(r"(.*?)(?: \[(.*)\])?", head).groups()
        context, language, main, zone, differs = {}, "en", "main.html", "UTC", False
        for option in (options or "").split():
            if option.startswith("zone="):
                zone = option.removeprefix("zone=")
            elif "." in option:
                main = option
            elif option == "differs":
                differs = True
            else:
                language = option
        if body.startswith("@ "):
            line, _, body = body.partition("\n")
            context = json.loads(line[2:])
        pieces = re.split(r"^--- (.*)\n", body, flags=re.M)
        files = {FOLDER + main: pieces[0]} | dict(zip(pieces[1::2], pieces[2::2]))
        assert (files.pop("ours", None) is not None) == differs, f"{name}: what differs says what ours is, and nothing else"
        files = {file: text.removesuffix("\n") for file, text in files.items()}
        yield name, differs, zone, language, FOLDER + main, context, files


def value(json_value):
    if isinstance(json_value, list):
        return [value(item) for item in json_value]
    if not isinstance(json_value, dict):
        return json_value
    if set(json_value) == {"$ago"}:
        return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=json_value["$ago"])
    if set(json_value) == {"$date"}:
        text = json_value["$date"]
        return datetime.datetime.fromisoformat(text) if "T" in text else datetime.date.fromisoformat(text)
    return {key: value(item) for key, item in json_value.items()}


def compile_catalog(po, mo):
    """A catalogue as gettext's msgfmt compiles it."""
    entries, current, key = [], None, None
    for line in po.read_text().splitlines():
        if not line or line.startswith("#"):
            current = None
            continue
        word, quoted = re.fullmatch(r'(?:(msg\S+) )?(".*")', line).groups()
        if word in ("msgctxt", "msgid") and current is None:
            current = {}
            entries.append(current)
        key = word or key
        current[key] = current.get(key, "") + json.loads(quoted)
    messages = {}
    for entry in entries:
        id = (entry["msgctxt"] + "\x04" if "msgctxt" in entry else "") + entry["msgid"]
        id += "\0" + entry["msgid_plural"] if "msgid_plural" in entry else ""
        messages[id] = "\0".join(text for key, text in sorted(entry.items()) if key.startswith("msgstr"))
    ids, table, strings, at = sorted(messages), b"", b"", 28 + 16 * len(messages)
    for text in ids + [messages[id] for id in ids]:
        data = text.encode()
        table += struct.pack("<II", len(data), at + len(strings))
        strings += data + b"\0"
    mo.parent.mkdir(parents=True)
    mo.write_bytes(struct.pack("<7I", 0x950412DE, 0, len(ids), 28, 28 + 8 * len(ids), 0, 0) + table + strings)


class Channel:
    """What a template sees of edx-ace's channels: links of which some are for unsubscribing, and trackers."""

    def __init__(self, links=(), trackers=()):
        self.links, self.tracker_image_sources = links, trackers

    def get_action_links(self, omit_unsubscribe_link=False):
        return [(url, text) for url, text, unsubscribes in self.links if not (unsubscribes and omit_unsubscribe_link)]


def openedx_tags():
    """The tags of the LMS, which is not on PyPI, as its documentation describes them."""
    library = Library()

    @library.simple_tag(takes_context=True)
    def with_link_tracking(context, url):
        message = context["message"]
        parts = urlsplit(urljoin(SITE + "/", url))
        tracking = {"utm_source": message.app_label, "utm_medium": "email", "utm_campaign": message.name}
        if context.get("course_ids"):
            tracking["utm_term"] = context["course_ids"][0]
        tracking["utm_content"] = message.uuid
        own = {key: values for key, values in parse_qs(parts.query).items() if key not in tracking}
        return mark_safe(parts._replace(query=urlencode(own | tracking, doseq=True)).geturl())

    @library.simple_tag(takes_context=True)
    def google_analytics_tracking_pixel(context):
        account = context.get("google_analytics_account")
        if not account:
            return ""
        source = "https://www.google-analytics.com/collect?" + urlencode({"v": 1, "t": "event", "tid": account})
        return format_html('<img src="{}" alt="" role="presentation" aria-hidden="true" />', source)

    return library


def project_tags():
    """Tags and filters of a project; ../django.rs defines their replacements."""
    library = Library()
    library.simple_tag(lambda default=None: SITE, name="base_url_setting")
    library.simple_tag(lambda: mark_safe("The <b>Site</b>"), name="site_name")
    library.simple_tag(lambda context, *more: context["user"]["name"], takes_context=True, name="current_user")
    library.filter("currency", lambda value, unit=None: floatformat(value, 2))
    library.filter("display", lambda value: value)
    return library


def pages():
    """A project's pages."""
    nobody = lambda request: None
    return [
        path("", nobody, name="home"),
        path("orders/<int:pk>/", nobody, name="order"),
        path("orders/<int:pk>/<slug:slug>/", nobody, name="order"),
        re_path(r"^old/(\d+)/$", nobody, name="old"),
        path("shop/", include(([
            path("items/<str:name>", nobody, name="item"),
            path("<int:year>/", include(([re_path(r"^deep/(?:x/)?$", nobody, name="deep")], "nested"))),
        ], "shop"))),
        path("<path:all>", nobody, name="any"),
    ]


def routes():
    """What docs/django_routes.py prints of these pages."""
    sys.modules["project_urls"] = types.ModuleType("project_urls")
    sys.modules["project_urls"].urlpatterns = pages()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile((HERE.parents[1] / "docs/django_routes.py").read_text(), "django_routes.py", "exec"), {})
    return printed.getvalue() + '"nowhere" = false\n'


def languages():
    """Every language that Django has texts or formats of."""
    folders = pathlib.Path(django.__file__).parent.glob("conf/locale/*/LC_MESSAGES")
    return sorted(translation.to_language(folder.parent.name) for folder in folders)


def render_zoned(zone, language, *case):
    with override_settings(TIME_ZONE=zone):
        if language != "*":
            return render(language, *case)
        return {language: render(language, *case) for language in languages()}


def render(language, main, context, files):
    sys.modules.setdefault("openedx_tags", types.ModuleType("openedx_tags")).register = openedx_tags()
    sys.modules.setdefault("project_tags", types.ModuleType("project_tags")).register = project_tags()
    engine = Engine(
        loaders=[("django.template.loaders.locmem.Loader", files)],
        libraries={
            "i18n": "django.templatetags.i18n",
            "static": "django.templatetags.static",
            "l10n": "django.templatetags.l10n",
            "tz": "django.templatetags.tz",
            "cache": "django.templatetags.cache",
            "humanize": "django.contrib.humanize.templatetags.humanize",
            "project": "project_tags",
            "acetags": "edx_ace.templatetags.acetags",
            "django_markup": "xss_utils.templatetags.django_markup",
            "ace": "openedx_tags",
        },
    )
    context = dict(context)
    given = {
        "channel": Channel(**context.pop("$channel", {})),
        # The attributes of edx-ace's Message, of a message that sets none of what is optional.
        "message": types.SimpleNamespace(
            app_label="app", name="case", unique_name="app.case", uuid=UUID, send_uuid=None, log_id=f"app.case.no_send_uuid.{UUID}",
            recipient=None, expiration_time=None, options={}, headers={}, language=None, log_level=None, context=value(context),
        ),
    }
    with translation.override(language):
        # Text files are not escaped in ACE, which is a documented departure.
        context = Context(given | value(context), autoescape=main.endswith(".html"))
        return engine.get_template(main).render(context)


def main():
    with tempfile.TemporaryDirectory() as folder:
        for po in HERE.glob("locale/*/LC_MESSAGES/*.po"):
            compile_catalog(po, pathlib.Path(folder, po.relative_to(HERE / "locale")).with_suffix(".mo"))
        settings.configure(USE_I18N=True, USE_TZ=True, TIME_ZONE="UTC", LOCALE_PATHS=[folder], LANGUAGE_CODE="en",
                           STATIC_URL=STATIC, ROOT_URLCONF="project_urls")
        django.setup()
        known = routes()
        # The cases of random_cases.py are in another folder, and Django may reject them.
        is_random = sys.argv[1:2] == ["--random"]
        place = pathlib.Path(sys.argv[2]) if is_random else HERE
        wrong, count = [], 0
        for source in sorted(place.glob("cases/*.cases")):
            given = {}
            for name, differs, *case in cases(source.read_text()):
                assert name not in given, f"{source.name}: two cases are called {name!r}"
                try:
                    given[name] = render_zoned(*case)
                except Exception as error:
                    if not differs and not is_random:
                        sys.exit(f"{source.name}: {name}: {error!r}")
                    given[name] = f"raises {type(error).__name__}"
            count += len(given)
            golden = place / "golden" / f"{source.stem}.json"
            text = json.dumps(given, indent=1, ensure_ascii=False) + "\n"
            if "--check" not in sys.argv:
                golden.write_text(text)
            elif not golden.exists() or golden.read_text() != text:
                wrong.append(golden.name)
        if not is_random and "--check" not in sys.argv:
            (HERE / "routes.toml").write_text(known)
        elif not is_random and (HERE / "routes.toml").read_text() != known:
            wrong.append("routes.toml")
        if wrong:
            sys.exit(f"{', '.join(wrong)}: not what Django gives; run {pathlib.Path(__file__).name}")
        print(f"{count} cases, Django {django.get_version()}")


main()
