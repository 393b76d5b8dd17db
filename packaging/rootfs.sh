#!/bin/sh
# Collects the files of a container image: rootfs.sh ACE FOLDER
#
# The program, which contains plugins and templates, the shared libraries that it needs with their loader, certificates, a user and a
# configuration.
set -eu
ace=$(realpath "${1:?the program}") root=${2:?the folder}
cd "$(dirname "$0")/.."
umask 022
[ ! -e "$root" ] || { echo "$root exists" >&2; exit 1; }
mkdir -p "$root"
root=$(realpath "$root")
put() { mkdir -p "$(dirname "$root$2")" && cp -L "$1" "$root$2"; }

put "$ace" /usr/bin/ace
# `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or the loader alone.
ldd "$ace" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r library; do
    put "$library" "$library"
done
# libc opens these by name, to look up hosts.
for library in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
    path=$(ldd "$ace" | sed -n 's/.*=> \(\/[^ ]*\/\)libc.so.6.*/\1/p')$library
    [ ! -e "$path" ] || put "$path" "$path"
done
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || put /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
mkdir -p "$root/etc/ace" "$root/tmp" "$root/var/lib/ace"
echo 'ace:x:65532:65532:ACE:/var/lib/ace:/sbin/nologin' >"$root/etc/passwd"
echo 'ace:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
put packaging/container.toml /etc/ace/ace.toml
chmod 1777 "$root/tmp"
chmod 750 "$root/var/lib/ace"
[ "$(id -u)" != 0 ] || chown -R 65532:65532 "$root/var/lib/ace"
