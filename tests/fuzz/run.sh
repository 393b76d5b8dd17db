#!/bin/sh
# Builds the fuzz targets and runs them:
#
#   tests/fuzz/run.sh SECONDS [TARGET…]
#   tests/fuzz/run.sh check                checks that the targets compile
#
# The corpus starts with the plugins in target and the Django templates of tests/django, and is kept in target/fuzz/corpus. It ends
# with an error at the first input that breaks the host, which is stored in target/fuzz/artifacts.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
seconds=${1:?SECONDS or check}
shift
[ $# -gt 0 ] || set -- manifest loader django
fuzz=$root/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# The same versions of dependencies as in the workspace, and libFuzzer.
cp "$root/Cargo.lock" "$root/tests/fuzz/Cargo.lock"
run_cargo() {
    (cd "$root/tests/fuzz" && RUSTC_WRAPPER=$root/tests/fuzz/rustc.sh \
        cargo "$1" --release --target "$host" --target-dir "$fuzz")
}
if [ "$seconds" = check ]; then
    run_cargo check
    exit
fi
run_cargo build

mkdir -p "$fuzz/corpus/manifest" "$fuzz/corpus/loader" "$fuzz/corpus/django" "$fuzz/artifacts"
cp "$root"/target/plugins/*.toml "$fuzz/corpus/manifest/"
# Only small components, because compiling a large one takes too long for a fuzzer.
find "$root/target/plugins" "$root/target/test-plugins" -name '*.wasm' -size -64k -exec cp {} "$fuzz/corpus/loader/" \;

cp "$root"/tests/django/cases/*.cases "$fuzz/corpus/django/"

for name in "$@"; do
    "$fuzz/$host/release/$name" -max_total_time="$seconds" -max_len=131072 -timeout=20 -rss_limit_mb=4096 \
        -artifact_prefix="$fuzz/artifacts/$name-" -print_final_stats=1 "$fuzz/corpus/$name"
done
