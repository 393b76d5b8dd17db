#!/bin/sh
# Copies the plugins and templates that are part of `ace` to the folder of its crate, whose build.rs embeds them. What is the same
# is not touched, so that cargo builds nothing again.
#
#   plugins/ship.sh PLUGINS OUT_DIR
set -eu

from=$1 out=$2
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

for kind in policies channels feedback; do
    mkdir -p "$new/plugins/$kind"
    for source in "$root/plugins/$kind"/*/Cargo.toml; do
        name=$(basename "$(dirname "$source")")
        [ -f "$from/$name.wasm" ] || { echo "plugins/ship.sh: $from/$name.wasm is missing: run make plugins" >&2; exit 1; }
        gzip -9nc "$from/$name.wasm" >"$new/plugins/$kind/$name.wasm.gz"
        cp "$from/$name.toml" "$new/plugins/$kind/$name.toml"
    done
done
mkdir -p "$new/templates/locale"
cp -R "$root/templates/ace_common" "$root/templates/ace_demo" "$new/templates/"
(cd "$root/templates" && find locale -name '*.po') | while read -r file; do
    mkdir -p "$new/templates/$(dirname "$file")"
    cp "$root/templates/$file" "$new/templates/$file"
done

if ! diff -rq "$new" "$out" >/dev/null 2>&1; then
    rm -rf "$out"
    mkdir -p "$(dirname "$out")"
    cp -R "$new" "$out"
fi
echo "plugins/ship.sh: $(cat "$out"/plugins/*/*.gz | wc -c) bytes of plugins and $(find "$out/templates" -type f -exec cat {} + | wc -c) bytes of templates in $out"
