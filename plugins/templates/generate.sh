#!/usr/bin/env bash
# Regenerates the bindings of C and Go from wit/, with wit-bindgen 0.63.0 (`cargo install wit-bindgen-cli --version 0.63.0 --locked`) and
# gofmt. Go's modules that are the same for all kinds are in gen/common.
set -euo pipefail
cd "$(dirname "$0")"

kinds=(policy channel resolver feedback)
[[ $(wit-bindgen --version) == "wit-bindgen-cli 0.63.0" ]] || { echo "generate.sh needs wit-bindgen 0.63.0" >&2; exit 1; }

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for kind in "${kinds[@]}"; do
    wit-bindgen c ../../wit --world "$kind-plugin" --out-dir c/gen
    wit-bindgen go ../../wit --world "$kind-plugin" --pkg-name ace_plugin/gen --out-dir "$fresh/$kind"
done
gofmt -w "$fresh"

mkdir -p "$fresh/common/imports"
for module in "$fresh/${kinds[0]}"/imports/*; do
    name=$(basename "$module")
    for kind in "${kinds[@]}"; do
        diff -rq "$module" "$fresh/$kind/imports/$name" >/dev/null 2>&1 || continue 2
    done
    mv "$module" "$fresh/common/imports/"
    for kind in "${kinds[@]:1}"; do
        rm -r "$fresh/$kind/imports/$name"
    done
done
for kind in "${kinds[@]}" common; do
    rm -rf "go/gen/$kind"
    cp -r "$fresh/$kind" "go/gen/$kind"
done
