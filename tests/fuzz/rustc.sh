#!/bin/sh
# cargo's RUSTC_WRAPPER: what reads foreign bytes is built with checks, and tells libFuzzer which way it went. The flags are
# cargo-fuzz's and work on a stable compiler; the rest is left as it ships, for speed, and so is what runs at build time,
# which is built without --target.
case " $* " in
*" --crate-name ace "*" --target "* | *" --crate-name toml_parser "*" --target "* | *" --crate-name wasmparser "*" --target "*)
    exec "$@" -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
