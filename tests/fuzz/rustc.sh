#!/bin/sh
# Cargo's RUSTC_WRAPPER: builds the crates that read foreign bytes with checks and with instrumentation for libFuzzer. The flags are
# those of cargo-fuzz, and work with a stable compiler. All other crates are built as usual, for speed, and so is everything that
# runs at build time, which is built without --target.
case " $* " in
*" --crate-name ace "*" --target "* | *" --crate-name ace_django "*" --target "* | *" --crate-name toml_parser "*" --target "* | *" --crate-name wasmparser "*" --target "*)
    exec "$@" -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
