#!/usr/bin/env python3
"""Prints the software bill of materials of the program `ace`, in CycloneDX's JSON: sbom.py TARGET

The crates that are linked into the program for this target, from `cargo metadata` and Cargo.lock. cargo-cyclonedx would have to be
compiled for it, and writes a file into every package of the workspace.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def linked(metadata, name):
    """The ids of a package and of everything that is linked into it: no dependencies of builds and tests, and no macros."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    [start] = [package["id"] for package in metadata["packages"] if package["name"] == name]
    found, ahead = set(), [start]
    while ahead:
        here = ahead.pop()
        if here in found or any("proc-macro" in target["kind"] for target in packages[here]["targets"]):
            continue
        found.add(here)
        ahead += [dep["pkg"] for dep in nodes[here]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return [packages[id] for id in sorted(found)]


def component(package, checksums):
    reference = f"pkg:cargo/{package['name']}@{package['version']}"
    checksum = checksums.get((package["name"], package["version"]))
    return {
        "type": "library",
        "bom-ref": reference,
        "name": package["name"],
        "version": package["version"],
        "purl": reference,
        **({"licenses": [{"expression": package["license"].replace("/", " OR ")}]} if package["license"] else {}),
        **({"hashes": [{"alg": "SHA-256", "content": checksum}]} if checksum else {}),
    }


def main():
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={sys.argv[1]}"]
    metadata = json.loads(subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout)
    lock = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    packages = linked(metadata, "ace-cli")
    [program] = [package for package in packages if package["name"] == "ace-cli"]
    print(json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(program, {}), "type": "application", "name": "ace"}},
        "components": [component(package, checksums) for package in packages if package is not program],
    }, indent=1, ensure_ascii=False))


main()
