"""Makes a Go proxy in a folder of the one module that bindings by wit-bindgen-go import: their generator's crate carries it.

    go_proxy.py METADATA.json OUT_DIR MODULE VERSION      METADATA.json is what `cargo metadata` says of a package that uses the crate
"""

import json
import sys
import zipfile
from pathlib import Path

metadata, out, module, version = sys.argv[1:]
packages = json.loads(Path(metadata).read_text())["packages"]
generator = next(package for package in packages if package["name"] == "wit-bindgen-go")
source = Path(generator["manifest_path"]).parent / "src" / "pkg"

versions = Path(out) / module / "@v"
versions.mkdir(parents=True)
(versions / "list").write_text(f"{version}\n")
(versions / f"{version}.info").write_text(json.dumps({"Version": version, "Time": "2026-01-01T00:00:00Z"}))
(versions / f"{version}.mod").write_bytes((source / "go.mod").read_bytes())
with zipfile.ZipFile(versions / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for file in sorted(source.rglob("*")):
        if file.is_file():
            archive.write(file, f"{module}@{version}/{file.relative_to(source)}")
