#!/usr/bin/env python3
"""Writes the names of Django's languages (BSD licence) to host/ace/src/presentation/i18n/language_names.rs.

    language_names.py            rewrite the file
    language_names.py --check    exit code 1 if it differs from Django's list
"""

import json
import pathlib
import sys

from django.conf.locale import LANG_INFO

FILE = pathlib.Path(__file__).resolve().parents[2] / "host/ace/src/presentation/i18n/language_names.rs"


def info(code):
    entry = LANG_INFO[code]
    return info(entry["fallback"][0]) if "fallback" in entry else entry


def main():
    rows = [(code, entry["code"], entry["name"], entry["name_local"], entry["bidi"]) for code in sorted(LANG_INFO) for entry in [info(code)]]
    quoted = lambda text: json.dumps(text, ensure_ascii=False)
    text = "//! Made by tests/django/language_names.py from Django's own list, which is under the BSD licence.\n\n"
    text += "/// Per requested code: the language's code, its name in English, its native name, and whether it is written from right to left.\n"
    text += f"#[rustfmt::skip]\npub(crate) const LANGUAGES: [(&str, &str, &str, &str, bool); {len(rows)}] = [\n"
    text += "".join(f"    ({quoted(code)}, {quoted(own)}, {quoted(name)}, {quoted(local)}, {str(bidi).lower()}),\n" for code, own, name, local, bidi in rows)
    text += "];\n"
    if "--check" not in sys.argv:
        FILE.write_text(text)
    elif not FILE.exists() or FILE.read_text() != text:
        sys.exit(f"{FILE.name} differs from Django's list; run {pathlib.Path(__file__).name}")


main()
