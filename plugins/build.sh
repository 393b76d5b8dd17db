#!/bin/sh
# Builds plugins written in Rust: one component NAME.wasm, with its manifest NAME.toml beside it, for each package.
#
#   plugins/build.sh [OUT_DIR [PACKAGE…]]
#
# OUT_DIR is the repository's target/plugins where none is given. Without packages, every one under plugins/policies,
# plugins/channels and plugins/feedback is built; a package is looked for there, in plugins/examples/rust and in tests/guests, in
# a folder of its own name.
#
# The target is wasm32-unknown-unknown, whose components import nothing but what they call. Its standard library comes from
# the first of these that works:
#   1. the Rust toolchain has it, or `rustup target add` can fetch it;
#   2. Debian's packages rustc-web and rust-web-src, from whose sources it is built (30 s, once).
# ACE_GUEST_TOOLCHAIN=rustup or =debian allows only one of them. The linker is the Rust toolchain's own wasm-component-ld
# in both cases. Cargo's files are kept in target/guests.
set -eu

target=wasm32-unknown-unknown
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
out=${1:-$root/target/plugins}
[ $# -eq 0 ] || shift
case "$out" in
    /*) ;;
    *) out=$PWD/$out ;;
esac

say() { echo "plugins/build.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# The folders of plugins that ACE ships.
kinds="plugins/policies plugins/channels plugins/feedback"

# The folder of a package.
folder() {
    for parent in $kinds plugins/examples/rust tests/guests; do
        if [ -f "$root/$parent/$1/Cargo.toml" ]; then
            echo "$root/$parent/$1"
            return
        fi
    done
    die "there is no package $1 in $kinds, plugins/examples/rust or tests/guests"
}

every_plugin() {
    for kind in $kinds; do
        for manifest in "$root/$kind"/*/Cargo.toml; do
            [ ! -f "$manifest" ] || basename "$(dirname "$manifest")"
        done
    done
}

has_target() {
    [ -n "$(find "$(rustc --print sysroot)/lib/rustlib/$target/lib" -name 'libstd-*.rlib' 2>/dev/null)" ]
}

# The toolchain's standard library, fetched where rustup can.
use_rustup() {
    has_target && return
    command -v rustup >/dev/null || return 1
    say "fetching $target by rustup"
    rustup target add "$target" >&2 && has_target
}

# Debian's compiler, and the standard library built from its sources.
use_debian() {
    if ! { [ -x /usr/bin/rustc ] && dpkg -s rustc-web rust-web-src >/dev/null 2>&1; }; then
        command -v apt-get >/dev/null || return 1
        sudo=
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        say "installing rustc-web and rust-web-src by apt-get"
        $sudo apt-get install -y --no-install-recommends rustc-web rust-web-src >&2 || return 1
    fi
    RUSTC=/usr/bin/rustc
    RUSTC_BOOTSTRAP=1
    export RUSTC RUSTC_BOOTSTRAP
    build_std=-Zbuild-std=std,panic_abort
}

# Asked before use_debian sets RUSTC: the linker is the Rust toolchain's.
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/wasm-component-ld" ] || die "$(rustc --version) has no wasm-component-ld; install Rust by rustup (https://rustup.rs)"

build_std=
case "${ACE_GUEST_TOOLCHAIN:-any}" in
    rustup) use_rustup || die "rustup could not provide $target" ;;
    debian) use_debian || die "apt-get could not provide rustc-web and rust-web-src" ;;
    any) use_rustup || use_debian || die "no standard library for $target: run 'rustup target add $target'" ;;
    *) die "ACE_GUEST_TOOLCHAIN=$ACE_GUEST_TOOLCHAIN: it is rustup or debian, or not set" ;;
esac

# Paths of this machine are kept out of the components: panics name their place, and the same source gives the same bytes.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$tools/wasm-component-ld"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Clink-arg=--wasm-ld-path=$tools/gcc-ld/wasm-ld \
--remap-path-prefix=$root=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

[ $# -gt 0 ] || set -- $(every_plugin)
packages=
for name in "$@"; do
    folder "$name" >/dev/null
    packages="$packages -p $name"
done

# shellcheck disable=SC2086 # Both are lists of words.
(cd "$root" && cargo build --profile guest --target "$target" --target-dir target/guests $build_std $packages)

# Puts a file in place in one step, and not at all where it is the same: whoever watches the folder sees real changes.
put() {
    cmp -s "$1" "$2" && return
    cp "$1" "$2.new" && mv "$2.new" "$2"
}

mkdir -p "$out"
for name in "$@"; do
    put "$root/target/guests/$target/guest/$name.wasm" "$out/$name.wasm"
    manifest=$(folder "$name")/$name.toml
    # A manifest is the author's wish; a component without one requests nothing.
    [ ! -f "$manifest" ] || put "$manifest" "$out/$name.toml"
    printf '%8d bytes  %s\n' "$(wc -c <"$out/$name.wasm")" "$name.wasm"
done
