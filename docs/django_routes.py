# Prints the addresses of a Django project's pages for ACE: routes.toml in a template folder, or [templates.routes] in ace.toml.
#
#     python manage.py shell < docs/django_routes.py > routes.toml
import json

from django.urls import get_resolver
from django.utils.regex_helper import normalize


def pages(resolver, namespaces=(), before=""):
    for pattern in resolver.url_patterns:
        regex = before + pattern.pattern.regex.pattern.removeprefix("^")
        if hasattr(pattern, "url_patterns"):
            inner = (*namespaces, pattern.namespace) if pattern.namespace else namespaces
            yield from pages(pattern, inner, regex)
        elif pattern.name:
            for path, parameters in normalize(regex):
                yield ":".join((*namespaces, pattern.name)), "/" + path % {name: "{%s}" % name for name in parameters}


def routes():
    found = {}
    # Of several pages with one name, Django prefers the last.
    for name, path in reversed(list(pages(get_resolver()))):
        if path not in found.setdefault(name, []):
            found[name].append(path)
    return found


for name, paths in sorted(routes().items()): print(json.dumps(name), "=", json.dumps(paths if len(paths) > 1 else paths[0]))

