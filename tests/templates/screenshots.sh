#!/bin/sh
# Photographs mails as a mail client shows them: narrow and wide, light and dark.
#
#   tests/templates/screenshots.sh HTML_FOLDER OUT_FOLDER
#
# HTML_FOLDER holds the .html files that the file_email channel wrote (`make demo` leaves some). OUT_FOLDER gets a PNG for
# each file, width and colour scheme. Look at them by eye; they are not committed.
set -eu

[ $# -eq 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v chromium >/dev/null || { echo "chromium is missing: apt-get install chromium" >&2; exit 1; }
html=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A frame has the width it is given (a window is never narrower than about 500 pixels), and takes over the colour scheme
# of its element.
page() { # FILE WIDTH HEIGHT SCHEME
    printf '<!DOCTYPE html><style>body{margin:0}iframe{display:block;border:0;width:%spx;height:%spx;color-scheme:%s}</style><iframe src="file://%s"></iframe>\n' \
        "$2" "$3" "$4" "$1" >"$work/page.html"
}

shoot() { # FILE WIDTH HEIGHT SCHEME PNG
    page "$1" "$2" "$3" "$4"
    chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" \
        --window-size="$2,$3" --screenshot="$5" "file://$work/page.html" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
}

for file in "$html"/*.html; do
    [ -e "$file" ] || { echo "no .html in $1" >&2; exit 1; }
    name=$(basename "$file" .html)
    for scheme in light dark; do
        shoot "$file" 360 1900 "$scheme" "$out/$name-360-$scheme.png"
        shoot "$file" 1200 1500 "$scheme" "$out/$name-1200-$scheme.png"
    done
    echo "$name"
done
