#!/usr/bin/env bash
# Installs Debian packages for commands that are missing: apt.sh COMMAND=PACKAGE …
# Services that a package brings are not started.
set -euo pipefail
PATH=$PATH:/usr/sbin
missing=()
for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}; install these Debian packages (or your system's equivalents) and try again" >&2
  exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
