#!/usr/bin/env python3
"""Writes cases of random nested templates, to find what the other cases miss.

    random_cases.py SEED COUNT FOLDER      FOLDER/cases/random.cases, and Django's output in FOLDER/golden

    ACE_DJANGO_CASES=FOLDER cargo test --release -p ace --test django

Templates that Django rejects are left out.
"""
import json
import pathlib
import random
import subprocess
import sys

CONTEXT = {
    "name": "Zoe <z>", "e": "", "n": None, "t": True, "f": False, "i": 3, "zero": 0, "x": 2.5, "neg": -7, "s": "some Words & 'more'",
    "html": "<p>one <b>two</b></p>", "l": ["a", "<b>", "c"], "nums": [3, 1, 2], "nothing": [], "m": {"k": "v", "a": "<i>", "n": 1},
    "rows": [["a", 1], ["b", 2]], "objs": [{"n": "x", "q": [1, 2]}, {"n": "y", "q": []}], "d": {"$date": "2026-03-07T15:04:05+00:00"},
    "url": "https://x.org/?a=1&b=2", "one": 1, "text": "line\nnext\n\nlast",
}
NAMES = [
    "name", "e", "n", "t", "f", "i", "zero", "x", "neg", "s", "html", "l", "nums", "nothing", "m", "rows", "objs", "url", "one", "text",
    "missing", "m.k", "m.nothing", "l.0", "l.7", "objs.0.n", "objs.1.q", "name.first", "n.field", "rows.1.0", "user.name",
]
FILTERS = [
    "upper", "lower", "title", "capfirst", "length", "safe", "escape", "force_escape", "striptags", "linebreaks", "linebreaksbr", "first",
    "last", "yesno:\"a,b,c\"", "yesno:\"a,b\"", "default:\"d\"", "default:name", "default_if_none:\"none\"", "add:1", "add:\"x\"", "add:i",
    "join:\", \"", "join:\"<br>\"", "truncatechars:5", "truncatechars_html:6", "truncatewords:2", "urlencode", "pluralize", "floatformat",
    "floatformat:2", "slice:\":2\"", "date:\"Y-m-d\"", "wordcount", "cut:\"o\"", "addslashes", "slugify", "ljust:6", "make_list",
    "default:_(\"Hello\")", "divisibleby:2",
]
OPERATORS = ["==", "!=", "<", ">", "<=", ">=", "in", "not in"]


class Writer:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = list(NAMES)
        self.loops = 0

    def pick(self, *choices):
        return self.random.choice(choices)

    def operand(self):
        choices = ['"text"', "'<i>'", "5", "1.5", "-2", "True", "None", '_("Hello")']
        if self.random.random() < 0.2:
            return self.random.choice(choices)
        if self.loops and self.random.random() < 0.15:
            return self.pick("forloop.counter", "forloop.counter0", "forloop.first", "forloop.last", "forloop.revcounter")
        return self.random.choice(self.names)

    def value(self):
        if self.random.random() < 0.05:
            # A date is a string in a message, so only filters for dates are used with it.
            return "d|date" + self.pick("", ':"Y-m-d"', ':"j. F Y"')
        filters = self.random.choices(FILTERS, k=self.pick(0, 0, 0, 1, 1, 2, 3))
        return "|".join([self.operand(), *filters])

    def condition(self, depth=2):
        if depth and self.random.random() < 0.3:
            return f"{self.condition(depth - 1)} {self.pick('and', 'or')} {self.condition(depth - 1)}"
        left = self.value()
        text = self.pick(left, left, f"{left} {self.random.choice(OPERATORS)} {self.value()}", f"{left} is None", f"{left} is not None")
        return self.pick(text, text, text, f"not {text}")

    def within(self, names, depth):
        self.names += names * 3
        body = self.body(depth)
        del self.names[len(self.names) - len(names) * 3:]
        return body

    def body(self, depth):
        return "".join(self.node(depth) for _ in range(self.random.randint(1, 3)))

    def node(self, depth):
        kinds = ["text", "out", "out", "out", "trans", "blocktrans", "firstof", "now", "comment"]
        if depth:
            kinds += ["if", "if", "for", "for", "with", "filter", "autoescape", "spaceless", "include", "tuple", "set"]
        return getattr(self, "tag_" + self.random.choice(kinds))(depth - 1)

    def tag_text(self, _):
        return self.pick("a ", "<b> & ", "\n", " x{ ", "100% ")

    def tag_out(self, _):
        return "{{ " + self.value() + " }}"

    def tag_trans(self, _):
        return self.pick('{% trans "Hello" %}', '{% trans name %}', '{% trans "100% sure" %}', '{% trans "May" context "month" %}')

    def tag_blocktrans(self, _):
        return self.pick(
            "{% blocktrans %}Hello {{ name }}!{% endblocktrans %}",
            "{% blocktrans with name=" + self.value() + " %}Hello {{ name }}!{% endblocktrans %}",
            "{% blocktrans count n=" + self.pick("i", "one", "l|length", "zero") + " %}{{ n }} course{% plural %}{{ n }} courses{% endblocktrans %}",
            "{% blocktrans trimmed %}\n  Hello {{ name }}!\n  How are you?\n{% endblocktrans %}",
        )

    def tag_firstof(self, _):
        return "{% firstof " + " ".join(self.value() for _ in range(self.random.randint(1, 3))) + " %}"

    def tag_now(self, _):
        return '{% now "\\Y" %}'

    def tag_comment(self, _):
        return self.pick("{# x {{ y }} #}", "{% comment %}{% if %}{% endcomment %}")

    def tag_if(self, depth):
        text = "{% if " + self.condition() + " %}" + self.body(depth)
        if self.random.random() < 0.3:
            text += "{% elif " + self.condition() + " %}" + self.body(depth)
        if self.random.random() < 0.5:
            text += "{% else %}" + self.body(depth)
        return text + "{% endif %}"

    def tag_for(self, depth):
        name = self.pick("v", "w", "name")
        over = self.pick("l", "nums", "nothing", "objs", "m", "missing", "objs.0.q", "l|slice:\":2\"", "s|make_list")
        self.loops += 1
        body = self.within([name], depth)
        self.loops -= 1
        empty = "{% empty %}" + self.body(depth) if self.random.random() < 0.3 else ""
        return "{% for " + name + " in " + over + self.pick("", "", " reversed") + " %}" + body + empty + "{% endfor %}"

    def tag_tuple(self, depth):
        self.loops += 1
        body = self.within(["k", "v"], depth)
        self.loops -= 1
        return "{% for k, v in " + self.pick("rows", "m.items") + " %}" + body + "{% endfor %}"

    def tag_with(self, depth):
        name = self.pick("v", "w", "name", "s")
        return "{% with " + name + "=" + self.value() + " %}" + self.within([name], depth) + "{% endwith %}"

    def tag_filter(self, depth):
        filters = self.pick("upper", "force_escape", "lower|capfirst", "linebreaksbr", "striptags", "truncatechars:20", "title")
        return "{% filter " + filters + " %}" + self.body(depth) + "{% endfilter %}"

    def tag_autoescape(self, depth):
        return "{% autoescape " + self.pick("on", "off", "off") + " %}" + self.body(depth) + "{% endautoescape %}"

    def tag_spaceless(self, depth):
        return "{% spaceless %}" + self.body(depth) + "{% endspaceless %}"

    def tag_set(self, _):
        name = self.pick("v", "w", "name")
        return self.pick(
            '{% trans "Goodbye" as ' + name + " %}", "{% firstof " + self.value() + " as " + name + " %}",
            "{% blocktrans asvar " + name + " %}Hello {{ name }}!{% endblocktrans %}", "{% get_current_language as " + name + " %}",
        ) + "{{ " + name + " }}"

    def tag_include(self, _):
        options = self.pick("", "", " only", " with v=" + self.value(), " with v=" + self.value() + " w=name only")
        return '{% include "' + self.pick("part.html", "other.html") + '"' + options + " %}"

    def block(self, name):
        body = self.body(2) + self.pick("", "{{ block.super }}") + self.pick("", self.tag_out(0))
        return "{% block " + name + " %}" + body + "{% endblock %}"

    def case(self, name):
        load = "{% load i18n %}"
        files = {
            "part.html": load + "[{{ v }}{{ w|default:'-' }}" + self.pick("", self.tag_out(0), self.tag_set(0)) + "]",
            "other.html": "({{ name }}{{ v|upper }})",
        }
        main = load + self.body(3)
        if self.random.random() < 0.25:
            main = '{% extends "base.html" %}' + load + "".join(self.block(block) for block in self.pick("a", "b", "ab", ""))
            files["base.html"] = load + self.body(1) + "".join(self.block(block) + self.pick("|", self.tag_set(0)) for block in "ab")
        options = self.pick("", "", "", " [fr]", "" if "base.html" in files else " [main.txt]")
        files = "".join(f"--- {file}\n{text}\n" for file, text in files.items())
        return f"=== {name}{options}\n@ {json.dumps(CONTEXT)}\n{main}\n{files}"


def main():
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    for name in ("cases", "golden"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    text = "".join(Writer(seed * 1_000_000 + at).case(f"random {seed}.{at}") for at in range(count))
    (folder / "cases/random.cases").write_text(text)
    make = pathlib.Path(__file__).with_name("make.py")
    subprocess.run([sys.executable, make, "--random", folder], check=True)


if __name__ == "__main__":
    main()
