#!/usr/bin/env bash
# Builds the program for production, for every Linux with glibc 2.28 or later (Debian 10, RHEL 8), and its packages in
# target/dist-packages: dist.sh [PROFILE]
#
# zig, from PyPI, is the linker and the C compiler: it has the symbols of every version of glibc.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-dist} glibc=2.28 target=$(rustc -vV | sed -n 's/host: //p') tools=target/zig
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
if [ ! -x $tools/bin/cargo-zigbuild ]; then
    python3 -m venv $tools
    $tools/bin/python -m pip install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.1
fi
export PATH=$PWD/$tools/bin:$PATH
cargo zigbuild --locked --profile "$profile" -p ace-cli --target "$target.$glibc"
folder=$profile
[ "$profile" != dev ] || folder=debug
ace=$CARGO_TARGET_DIR/$target/$folder/ace

# `version` compares as versions do: no symbol is newer than the oldest glibc.
newest=$( (objdump -T "$ace"; echo "GLIBC_$glibc") | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
[ "$newest" = "GLIBC_$glibc" ] || { echo "$ace needs $newest" >&2; exit 1; }
mkdir -p target/dist && cp "$ace" target/dist/ace
packaging/build.sh target/dist/ace target/dist-packages
packaging/sbom.py "$target" >target/dist-packages/ace.cdx.json
(cd target/dist-packages && sha256sum -- *.deb *.tar.xz *.json >SHA256SUMS)
