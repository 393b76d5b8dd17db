#!/usr/bin/env bash
# Measures the time from nothing to a verdict in each language: the table in docs/authoring.md.
#
#   tests/kit/measure.sh [LANGUAGE…]       with `ace` on the PATH
#
# Each project is new and installs its own tools (npm, pip, cargo and Go use their caches). Go's module comes from
# target/tools/go/proxy if it exists (`make examples`). Writes a line of JSON for each language.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
export XDG_CACHE_HOME=$home/cache
if [ -d "$root/target/tools/go/proxy" ]; then
    export GOPROXY=file://$root/target/tools/go/proxy GOSUMDB=off GOMODCACHE=$home/gomod GOFLAGS=-modcacherw
fi
echo '{"app_label":"shop","name":"sale","recipient":{"lms_user_id":7,"email_address":"zoe@learner.example"}}' >message.json

# Runs a command. Prints its wall time and its CPU time, which does not depend on other load.
timed() {
    local TIMEFORMAT='{"wall_s":%R,"cpu_s":[%U,%S]}'
    { time "$@" >>"$home/log" 2>&1 || { cat "$home/log" >&4; exit 1; }; } 4>&2 2>&1
}

[ $# -gt 0 ] || set -- rust js ts python c go
for language in "$@"; do
    ace plugin new night_off --kind policy --lang "$language" --dir "$language" >/dev/null 2>&1
    first=$(timed ace plugin build "$language" --install)
    verdict=$(timed ace plugin run "$language/night_off.wasm" message.json)
    # Change the sources, so that the compiler has something to do.
    for source in "$language"/night_off.* "$language"/src/lib.rs "$language"/main.go; do
        case "$source" in
            *.wasm | *.toml) ;;
            *.py) [ ! -f "$source" ] || echo '# again' >>"$source" ;;
            *) [ ! -f "$source" ] || echo '// again' >>"$source" ;;
        esac
    done
    again=$(timed ace plugin build "$language")
    bench=$(ace plugin bench --json "$language/night_off.wasm" message.json -n 5000)
    echo "{\"language\":\"$language\",\"first_build\":$first,\"first_verdict\":$verdict,\"next_build\":$again,\"bench\":$bench}"
done
