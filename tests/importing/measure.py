#!/usr/bin/env python3
"""How many mail templates of real Django projects `ace templates import` converts completely.

    tests/importing/measure.py ACE [PROJECT ...] [--stub] [--left]

ACE is the program to run. The projects of packages.txt are downloaded once from the package index that pip uses, into
target/importing. All template folders of a project are merged, as Django's loaders see them, and imported. A mail file counts if
nothing in it, or in the files that it extends or includes, has to be rewritten, and ACE can load the result. Addresses of pages are
looked up when a mail is rendered, so `{% url %}` counts as converted; `ace check` names missing ones. With `--stub` a project's own
tags and filters are omitted, which the count says. `--left` lists what is not converted, by the number of mail files that it
affects.
"""

import collections
import json
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from pip._internal.models.index import PyPI

HERE = Path(__file__).resolve().parent
PLACE = HERE.parents[1] / "target" / "importing"
SIMPLE = "application/vnd.pypi.simple.v1+json"

# Mail files of a project: in a folder for mails, or with a name that Django and its packages use for mails.
MAIL = re.compile(r"(^|/)(e?mails?|mail_templates|notifications?)/.*\.(txt|html|subject)$"
                  r"|(_e?mail|^e?mail|/e?mail)[^/]*\.(txt|html)$|_subject\.txt$|_message\.txt$", re.IGNORECASE)
# Copies for tests and demonstrations, and pages about mails.
APART = re.compile(r"(^|/)(tests?|testproject|sandbox|demo|examples?|docs|node_modules)/")
NAMED = re.compile(r"{%-?\s*(?:extends|include)\s+[\"']([^\"']+)[\"']")


def main():
    arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
    if not arguments:
        sys.exit(__doc__)
    ace, chosen = arguments[0], set(arguments[1:])
    lines = (line.split() for line in (HERE / "packages.txt").read_text().splitlines() if line[:1] not in ("#", ""))
    whole = total = stubbed = 0
    reasons = collections.Counter()
    for name, version in lines:
        if chosen and name not in chosen:
            continue
        folder = PLACE / f"{name}-{version}"
        if not folder.exists():
            fetch(name, version, folder)
        if not folder.exists():
            sys.exit(f"{name} {version}: no template folders in it")
        mails = sorted(path for path in files(folder) if MAIL.search(path) and not is_page(folder, path))
        problems, stubs = imported(ace, folder)
        chains = {mail: chain(folder, mail) for mail in mails}
        for file, why in refused(ace):
            problems[file].append(why)
        stopped = {mail: [why for file in files for why in problems[file]] for mail, files in chains.items()}
        good = sum(not why for why in stopped.values())
        print(f"{name:24} {good:4} of {len(mails):4}")
        whole, total = whole + good, total + len(mails)
        stubbed += sum(not stopped[mail] and any(file in stubs for file in files) for mail, files in chains.items())
        for why in stopped.values():
            reasons.update(why)
    print(f"{'all':24} {whole:4} of {total:4}" + (f", {stubbed} of them with stubs" if stubbed else ""))
    if "--left" in sys.argv:
        for reason, count in reasons.most_common():
            print(f"{count:4}  {reason}")


def files(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def fetch(name, version, folder):
    """The template folders of a project, together."""
    page = urllib.parse.urljoin(PyPI.simple_url + "/", f"{name}/")
    request = urllib.request.Request(page, headers={"Accept": SIMPLE})
    with urllib.request.urlopen(request, timeout=60) as answer:
        listed = json.load(answer)["files"]
    stem = re.compile(re.sub(r"[-_.]+", "[-_.]+", f"{name}-{version}") + r"\.(tar\.gz|zip|tar\.bz2)", re.IGNORECASE)
    found = [entry for entry in listed if stem.fullmatch(entry["filename"])]
    if not found:
        sys.exit(f"{name} {version}: the index has no sdist of that version")
    archive = PLACE / found[0]["filename"]
    archive.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(urllib.parse.urljoin(page, found[0]["url"]), timeout=300) as answer:
        archive.write_bytes(answer.read())
    for path, content in members(archive):
        _, _, inner = path.partition("/templates/")
        if inner and not APART.search(path) and not (folder / inner).exists():
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            (folder / inner).write_bytes(content)
    archive.unlink()


def members(archive):
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            yield from ((name, opened.read(name)) for name in opened.namelist() if safe(name))
    else:
        with tarfile.open(archive) as opened:
            yield from ((m.name, opened.extractfile(m).read()) for m in opened if m.isfile() and safe(m.name))


def safe(name):
    return "/templates/" in name and ".." not in name.split("/") and not name.endswith("/")


def imported(ace, folder):
    """The findings of the import by file: what has to be rewritten; and the files in which something was omitted."""
    out = PLACE / "out"
    command = [ace, "templates", "import", str(folder), "--out", str(out), "--force", "--json", "--config", str(PLACE / "none")]
    command += ["--stub"] if "--stub" in sys.argv else []
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"{folder.name}: {done.stderr}")
    problems, stubs = collections.defaultdict(list), set()
    for line in done.stdout.splitlines():
        problem = json.loads(line)
        if problem.get("severity") in ("untranslated", "unreadable"):
            problems[problem["file"]].append(f"{problem['reason']}: {problem.get('source', '')}"[:120])
        elif problem.get("severity") == "stub":
            stubs.add(problem["file"])
    return problems, stubs


def refused(ace):
    """The files that ACE cannot load, and why; addresses of pages are filled in later."""
    config = PLACE / "check.toml"
    config.write_text(f"template-dirs = [{json.dumps(str(PLACE / 'out'))}]\n")
    done = subprocess.run([ace, "check", "--config", str(config), "--json"], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        problem = json.loads(line)
        file, _, _ = problem["location"].removeprefix(str(PLACE / "out") + "/").partition(":")
        if "has no route" not in problem["message"]:
            yield file, problem["message"][:120]


def chain(folder, file):
    """A file, and all files that it extends and includes."""
    found, waiting = [], [file]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.append(file)
            waiting += NAMED.findall(text(folder, file))
    return found


def is_page(folder, file):
    """Whether a file is for a browser: mails have no forms."""
    return any("csrf_token" in text(folder, part) for part in chain(folder, file))


def text(folder, file):
    path = folder / file
    return path.read_text(errors="replace") if path.is_file() else ""


main()
