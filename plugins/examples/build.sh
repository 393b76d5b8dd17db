#!/usr/bin/env bash
# Builds plugins of every language: ROOT/LANGUAGE/NAME/ becomes OUT_DIR/NAME_LANGUAGE.wasm, with its manifest NAME.toml beside it
# as NAME_LANGUAGE.toml.
#
#   plugins/examples/build.sh [ROOT OUT_DIR [WIT]]        plugins/examples, target/plugins-examples and wit where none are given
#
# What a language needs and this machine lacks is installed: Debian packages by apt-get, the rest into target/tools. What has been
# built of the same sources by the same tools is not built again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
from=$(cd "${1:-$root/plugins/examples}" && pwd)
out=${2:-$root/target/plugins-examples}
mkdir -p "$out"
out=$(cd "$out" && pwd)

here=$root/plugins/examples/tools
tools=$root/target/tools
work=$root/target/examples
node=$tools/node/node_modules/.bin
py=$tools/py/bin
wit=$(cd "${3:-$root/wit}" && pwd)
bindings=$root/plugins/templates/c/gen
languages=(c js ts starling python rust)

say() { echo "plugins/examples/build.sh: $*" >&2; }
hash() { find -L "$@" -type f -not -path '*/node_modules/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

# The world of a plugin.
world_of() {
    case "$1" in
        slack_webhook | frozen_channel) echo channel-plugin ;;
        frozen_feedback) echo feedback-plugin ;;
        *) echo policy-plugin ;;
    esac
}

# Whether a stamp says otherwise than the text.
is_stale() { [ "$(cat "$1" 2>/dev/null)" != "$2" ]; }

need_node() {
    "$root/tests/apt.sh" node=nodejs npm=npm
    local is
    is=$(hash "$here/package.json" "$here/package-lock.json")
    is_stale "$tools/node.stamp" "$is" || return 0
    say "installing the tools for JavaScript"
    mkdir -p "$tools/node"
    cp "$here/package.json" "$here/package-lock.json" "$tools/node/"
    (cd "$tools/node" && npm ci --silent --no-audit --no-fund >&2)
    echo "$is" >"$tools/node.stamp"
}

need_python() {
    "$root/tests/apt.sh" python3=python3
    local is
    is=$(hash "$here/requirements.txt")
    is_stale "$tools/py.stamp" "$is" || return 0
    say "installing the tools for Python and C"
    python3 -m venv --clear "$tools/py" || { say "python3 cannot make environments: apt-get install python3-venv"; exit 1; }
    "$py/pip" install --quiet --disable-pip-version-check --no-input --requirement "$here/requirements.txt" >&2
    echo "$is" >"$tools/py.stamp"
}

need_c() {
    need_python
    "$root/tests/apt.sh" clang-19=clang-19 wasm-ld-19=lld-19
    # These bring no command.
    [ -d /usr/lib/wasm32-wasi ] || "$root/tests/apt.sh" /usr/lib/wasm32-wasi=wasi-libc
    [ -d /usr/lib/llvm-19/lib/clang/19/lib/wasi ] ||
        "$root/tests/apt.sh" /usr/lib/llvm-19/lib/clang/19/lib/wasi=libclang-rt-19-dev-wasm32
}

# Go comes from PyPI, and the module that the bindings import from the crate of their generator: a proxy in a folder.
need_go() {
    need_python
    local is crate=$tools/go/crate module=go.bytecodealliance.org/pkg version=v0.4.0
    is="$module $version of wit-bindgen-go 0.63.0"
    is_stale "$tools/go.stamp" "$is" || return 0
    say "fetching the Go module $module"
    rm -rf "$tools/go"
    mkdir -p "$crate"
    printf '[package]\nname = "crate"\nedition = "2024"\n[lib]\npath = "lib.rs"\n[dependencies]\nwit-bindgen-go = "=0.63.0"\n[workspace]\n' \
        >"$crate/Cargo.toml"
    touch "$crate/lib.rs"
    cargo metadata --quiet --format-version 1 --manifest-path "$crate/Cargo.toml" >"$crate/metadata.json"
    "$py/python" "$here/go_proxy.py" "$crate/metadata.json" "$tools/go/proxy" $module $version
    echo "$is" >"$tools/go.stamp"
}

need_js() { need_node; }
need_ts() { need_node; }
need_starling() { need_node; }
need_rust() { :; }

# Each leaves o.wasm in its working folder, a copy of the sources: tools write beside them. `set -e` does not hold here.
build_c() {
    clang-19 --target=wasm32-wasi -O2 -Wall -Wextra -Werror -ffunction-sections -mexec-model=reactor -Wl,-s -I"$bindings" \
        "$1.c" "$bindings/policy_plugin.c" "$bindings/policy_plugin_component_type.o" -o core.wasm &&
        "$py/wasm-tools" component new core.wasm -o o.wasm
}

build_js() { "$node/componentize-qjs" --wit "$wit" --world "$world" --js "$1.js" -o o.wasm --sync; }

build_ts() {
    "$node/tsc" --project . &&
    build_js "$1"
}

build_starling() {
    "$node/componentize-js" "$1.js" --wit "$wit" -n "$world" -d stdio -d random -d clocks -d http -d fetch-event -o o.wasm
}

build_python() { "$py/componentize-py" -d "$wit" -w "$world" componentize "$1" -o o.wasm; }

build_rust() {
    "$root/plugins/build.sh" "$work" "$1" &&
    mv "$work/$1.wasm" o.wasm
}

# Puts a file in place in one step: whoever watches the folder sees whole files.
put() { cp "$1" "$2.new" && mv "$2.new" "$2"; }

# What every component depends on.
common=$(hash "${BASH_SOURCE[0]}" "$here" "$wit" "$bindings")

for language in "${languages[@]}"; do
    for folder in "$from/$language"/*/; do
        [ -d "$folder" ] || continue
        plugin=$(basename "$folder")
        name=${plugin}_$language
        world=$(world_of "$plugin")
        is="$common $(hash "$folder")"
        # Cargo knows best what a Rust plugin depends on.
        if [ $language != rust ] && [ -f "$out/$name.wasm" ] && ! is_stale "$work/$name.stamp" "$is"; then continue; fi
        need_$language
        rm -rf "${work:?}/$name"
        mkdir -p "$work/$name"
        cp -RL "$folder/." "$work/$name/"
        (cd "$work/$name" && build_$language "$plugin" >build.log 2>&1) || { cat "$work/$name/build.log" >&2; exit 1; }
        cmp -s "$work/$name/o.wasm" "$out/$name.wasm" || put "$work/$name/o.wasm" "$out/$name.wasm"
        [ ! -f "$folder/$plugin.toml" ] || put "$folder/$plugin.toml" "$out/$name.toml"
        echo "$is" >"$work/$name.stamp"
        printf '%8d bytes  %s\n' "$(wc -c <"$out/$name.wasm")" "$name.wasm"
    done
done

# No example is in Go; `ace plugin new --lang go` is tested with it.
need_go
