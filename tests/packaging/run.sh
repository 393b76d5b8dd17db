#!/usr/bin/env bash
# Tests the packages, and everything in packaging/: run.sh ACE. Needs root.
set -euo pipefail
ace=${1:?the program} here=$(dirname "$0")
"$here/../apt.sh" systemd-analyze=systemd strace=strace promtool=prometheus nginx=nginx-light caddy=caddy openssl=openssl objdump=binutils \
    xz=xz-utils
python=${PYTHON:-$here/../../target/venv/bin/python}
"$here/units.sh" "$ace"
for test in monitoring proxy manifests container package; do
    echo "== $test"
    "$python" "$here/$test.py" "$ace"
done
