#!/usr/bin/env bash
# Checks the systemd units: units.sh ACE
set -euo pipefail
ace=$(realpath "${1:?the program}")
cd "$(dirname "$0")/../.."
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
cp packaging/systemd/ace.* "$units"
sed -i "s#/usr/bin/ace#$ace#" "$units/ace.service"
faults=$(systemd-analyze verify --man=no --recursive-errors=no "$units/ace.service" "$units/ace.socket" 2>&1) || { echo "$faults"; exit 1; }
[ -z "$faults" ] || { echo "$faults"; exit 1; }
# Exposure below 2.0.
systemd-analyze security --offline=yes --threshold=20 packaging/systemd/ace.service >"$units/exposure" || { cat "$units/exposure"; exit 1; }
# The last line, without its emoji.
sed -n '$s/ [^ ]*$//p' "$units/exposure"

# No system call of a server is outside the filter: it compiles a plugin, sends a message, reloads and stops under strace.
exec python3 tests/packaging/system_calls.py "$ace"
