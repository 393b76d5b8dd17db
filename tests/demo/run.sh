#!/usr/bin/env bash
# The demo: creates a working configuration in target/demo, sends the samples, and shows what to try next.
#
#   tests/demo/run.sh ACE
set -euo pipefail
cd "$(dirname "$0")/../.."
ace=${1:?name the program, such as target/debug/ace} demo=target/demo config=target/demo/ace.toml
mkdir -p $demo
rm -rf $demo/outbox
cp tests/demo/ace.toml tests/demo/facts.ndjson $demo/

run() { printf '\n$ %s\n' "$*"; "$@"; }
run $ace plugins --config $config
run $ace explain --config $config templates/samples/passwordreset.json | sed -n '1,/--- body.html ---/p'
run $ace send --config $config templates/samples/passwordreset.json
run $ace send --config $config --limit-to file_email templates/samples/coursedigest.json
run $ace send --config $config templates/samples/weeklynews.json
printf '\nThe mails are in %s:\n' $demo/outbox
ls $demo/outbox
cat <<END

Next:
  $ace explain --config $config templates/samples/weeklynews.json     why it is sent, and over which channels
  $ace check --config $config                                         problems, with file and line
  $ace --help
  edit $config: use another relay or policy, or copy a plugin into target/plugins
END
