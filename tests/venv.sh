#!/usr/bin/env bash
# Creates the Python environment for the fixtures, the end-to-end tests and the benchmarks of peers.
#
#   tests/venv.sh [PATH]        PATH: target/venv by default; prints nothing if it is up to date
#
# Idempotent: the environment has a stamp, a hash of the list below and of the interpreter's version. If the stamp is the same,
# nothing is done; otherwise the environment is created again. PYTHON= names another interpreter (3.11 or later). Two callers
# at once are safe: the second waits for the first.
set -euo pipefail

# edx-ace, Django and xss-utils (a tag of Open edX) determine the fixtures; aiosmtpd is the SMTP server for TLS, AUTH and refusals
# in tests; Jinja2 is a peer in the benchmarks; Schemathesis compares the HTTP API with its description; dkimpy verifies DKIM signatures,
# google-auth, PyJWT, botocore and py-vapid tokens and signatures of credentials (tests/signatures). The clients of providers, of which
# botocore is one, make the recordings of tests/fixtures/record_vendors.py; http-ece decrypts Web Push. Direct dependencies are pinned, transitive ones are not.
requirements='edx-ace==1.15.0
xss-utils==1.0.0
Django==5.2.19
aiosmtpd==1.4.6
Jinja2==3.1.6
schemathesis==4.32.5
dkimpy[ed25519]==1.1.8
google-auth==2.63.0
PyJWT==2.15.1
botocore==1.44.8
py-vapid==1.9.6
firebase-admin==7.7.0
aioapns==4.0
pywebpush==2.5.0
http-ece==1.2.1
twilio==9.13.0
'

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${1:-$root/target/venv}
python=${PYTHON:-python3}

fail() {
    printf 'venv.sh: %s\n' "$1" >&2
    printf '  hint: %s\n' "$2" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not on the PATH" 'apt-get install -y python3 python3-venv, or PYTHON=/path/to/python3'
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11" 'PYTHON=/path/to/a/newer/python3'
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot create environments" 'apt-get install -y python3-venv'

stamp=$({ printf '%s' "$requirements"; "$python" -V; } | sha256sum | cut -d' ' -f1)
current() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ]; }
current && exit 0

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
current && exit 0

[ ! -e "$venv" ] || [ -e "$venv/pyvenv.cfg" ] || fail "$venv exists and is not a Python environment" 'name a path that does not exist'
printf 'venv.sh: creating %s\n' "$venv" >&2
rm -rf "$venv"
"$python" -m venv "$venv"
printf '%s' "$requirements" >"$venv/requirements.txt"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$venv/requirements.txt" >&2 ||
    fail 'pip could not install the requirements above' 'check that PyPI (or its mirror in pip.conf) is reachable, then run this again'
printf '%s\n' "$stamp" >"$venv/stamp"
