#!/bin/sh
# Builds the fuzz targets and runs them: tests/fuzz/run.sh SECONDS [TARGET…]
#
# The corpus starts from the plugins that are built and the Django templates of tests/django, and is kept in target/fuzz/corpus; what broke the host, in
# target/fuzz/artifacts. It ends with an error at the first such input.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
seconds=$1
shift
[ $# -gt 0 ] || set -- manifest loader django
fuzz=$root/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# The versions that ship, and libFuzzer.
cp "$root/Cargo.lock" "$root/tests/fuzz/Cargo.lock"
(cd "$root/tests/fuzz" && RUSTC_WRAPPER=$root/tests/fuzz/rustc.sh \
    cargo build --release --target "$host" --target-dir "$fuzz")

mkdir -p "$fuzz/corpus/manifest" "$fuzz/corpus/loader" "$fuzz/corpus/django" "$fuzz/artifacts"
cp "$root"/target/plugins/*.toml "$fuzz/corpus/manifest/"
# The small ones: compiling a large one takes longer than a fuzzer should wait.
find "$root/target/plugins" "$root/target/test-plugins" -name '*.wasm' -size -64k -exec cp {} "$fuzz/corpus/loader/" \;

cp "$root"/tests/django/cases/*.cases "$fuzz/corpus/django/"

for name in "$@"; do
    "$fuzz/$host/release/$name" -max_total_time="$seconds" -max_len=131072 -timeout=20 -rss_limit_mb=4096 \
        -artifact_prefix="$fuzz/artifacts/$name-" -print_final_stats=1 "$fuzz/corpus/$name"
done
