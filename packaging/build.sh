#!/usr/bin/env bash
# Makes the packages of a binary: a .deb, a tarball, and SHA256SUMS.
#
#   packaging/build.sh ACE OUT_DIR [VERSION]
#
# ACE is the program, which contains plugins and templates; OUT_DIR is emptied first. VERSION is that of the workspace if none is given.
# MAINTAINER= names the maintainer in the .deb; COMPRESSION=none is quick, for tests.
#
# dpkg-deb makes the .deb, because cargo-deb has to be compiled for minutes on every machine that runs this, and only writes the same
# control files.
set -euo pipefail
ace=$(realpath "${1:?the program, such as target/release/ace}") out=${2:?the folder of the packages}
compression=${COMPRESSION:-xz}
mkdir -p "$out" && out=$(realpath "$out")
cd "$(dirname "$0")/.."
version=${3:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
architecture=$(dpkg --print-architecture)
# The same input makes the same packages.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
umask 022

# The newest version of glibc that the program needs.
glibc=$(objdump -T "$ace" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
glibc=${glibc#GLIBC_}

find "$out" -mindepth 1 -delete
root=$out/root
put() { install -D -m "$1" "$2" "$root/$3"; }
mkdir -p "$root/etc/ace/plugins" "$root/etc/ace/templates"
put 755 "$ace" usr/bin/ace
strip --strip-debug "$root/usr/bin/ace"
for unit in service socket; do put 644 packaging/systemd/ace.$unit usr/lib/systemd/system/ace.$unit; done
put 644 packaging/sysusers.d/ace.conf usr/lib/sysusers.d/ace.conf
put 644 packaging/ace.toml etc/ace/ace.toml
for file in docs/*.md CHANGELOG.md SECURITY.md; do put 644 "$file" usr/share/doc/ace/"$(basename "$file")"; done
put 644 LICENSE usr/share/doc/ace/copyright
put 644 packaging/prometheus/ace.rules.yml usr/share/ace/prometheus/ace.rules.yml
put 644 packaging/grafana/ace.json usr/share/ace/grafana/ace.json
# Completions and man pages.
"$ace" completions bash >"$out/probe" && put 644 "$out/probe" usr/share/bash-completion/completions/ace
"$ace" completions zsh >"$out/probe" && put 644 "$out/probe" usr/share/zsh/vendor-completions/_ace
"$ace" completions fish >"$out/probe" && put 644 "$out/probe" usr/share/fish/vendor_completions.d/ace.fish
mkdir "$out/man" && "$ace" man --out "$out/man"
for page in "$out"/man/*.1; do gzip -9n "$page" && put 644 "$page.gz" usr/share/man/man1/"$(basename "$page")".gz; done
rm -rf "$out/probe" "$out/man"

mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@GLIBC@/$glibc/" \
    -e "s/@MAINTAINER@/${MAINTAINER:-The ACE project <ace@localhost>}/" packaging/debian/control.in >"$root/DEBIAN/control"
install -m 755 packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
echo /etc/ace/ace.toml >"$root/DEBIAN/conffiles"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Z"$compression" --build "$root" "$out/ace_${version}_$architecture.deb" >/dev/null

# The tarball: the same files in one folder, with links that work wherever it is unpacked.
name=ace-$version-$(uname -m)-linux
rm -rf "$root/DEBIAN" "$root/etc/ace/plugins" "$root/etc/ace/templates"
mkdir "$out/$name"
mv "$root/usr/bin/ace" "$root/usr/share/ace/"* "$out/$name/"
mv "$root/usr/share/doc/ace" "$out/$name/docs"
cp -r packaging/systemd packaging/sysusers.d packaging/ace.toml LICENSE README.md "$out/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$out" -c "$name" |
    if [ "$compression" = xz ]; then xz -T0; else cat; fi >"$out/$name.tar.xz"
rm -rf "$root" "${out:?}/$name"
(cd "$out" && sha256sum -- *.deb *.tar.xz >SHA256SUMS)
ls -l "$out"
