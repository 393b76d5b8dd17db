# The front door. Everything a target needs that is missing is installed by it.
SHELL := /bin/bash
export CARGO_TARGET_DIR := $(CURDIR)/target
export PATH := $(PATH):/usr/sbin

# The crates of the host, and the others.
HOST := -p ace -p ace-server -p ace-django -p ace-store -p ace-cli
GUESTS := --workspace $(patsubst -p,--exclude,$(HOST))

.DEFAULT_GOAL := help
.PHONY: help build dist quick plugins test-plugins examples languages demo test lint fixtures importing bench fuzz soak docs clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## The host: target/release/ace
	cargo build --release -p ace-cli

dist: ## The host for production, linked as one piece (12 minutes): target/dist/ace
	cargo build --profile dist -p ace-cli

quick: ## Unit tests and lints of the host without optimisation: seconds after an edit
	cargo fmt --all --check
	cargo clippy $(HOST) --no-default-features --all-targets -- -D warnings
	cargo test $(HOST) --no-default-features --lib --bins

plugins: ## The plugins of this repository: target/plugins/NAME.wasm and NAME.toml
	plugins/build.sh target/plugins

test-plugins: ## Plugins that misbehave, for the tests: target/test-plugins
	plugins/build.sh target/test-plugins $(notdir $(wildcard tests/guests/*))

examples: ## Plugins in every language: target/plugins-examples
	plugins/examples/build.sh

languages: ## Plugins in every language that misbehave, for the tests: target/test-plugins/lang_LANGUAGE.wasm
	plugins/examples/build.sh tests/languages target/test-plugins

demo: plugins ## Send sample messages through plugins into target/demo/outbox, with a build that is not optimised: target/debug/ace
	cargo build -p ace-cli --no-default-features
	tests/demo/run.sh target/debug/ace

# smtp-sink is a part of Postfix; the server for TLS and AUTH and the real edx-ace come from PyPI; Chromium looks at mails.
target/.tools: tests/apt.sh tests/venv.sh
	tests/apt.sh smtp-sink=postfix chromium=chromium
	tests/venv.sh target/venv
	@touch $@

# The same random cases each time: what chance finds is for `make soak`, and no reason for a build to fail.
test: export PROPTEST_RNG_SEED = 1

# The host and the guests apart: together they would agree on other features, and wasmtime would be built twice.
test: lint plugins test-plugins examples languages target/.tools ## Everything that CI runs
	target/venv/bin/python tests/fixtures/make.py --check
	target/venv/bin/python tests/fixtures/record_http.py --check
	target/venv/bin/python tests/django/make.py --check
	target/venv/bin/python tests/django/language_names.py --check
	target/venv/bin/python tests/django/conventions.py --check
	cargo test --release $(HOST)
	tests/demo/run.sh target/release/ace
	cargo test --release $(GUESTS)

lint: ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --release $(HOST) --all-targets -- -D warnings
	cargo clippy --release $(GUESTS) --all-targets -- -D warnings

fixtures: target/.tools ## Make the fixtures anew with the real edx-ace
	target/venv/bin/python tests/fixtures/make.py

importing: build target/.tools ## Count what of real Django projects' mail templates is imported whole; fetches them from PyPI
	target/venv/bin/python tests/importing/measure.py target/release/ace --stub --left

docs: ## Write docs/wit.md, the reference of the plugin interface, from wit/
	ACE_WRITE_DOCS=1 cargo test --release -p ace --test wit

bench: export BENCH_PROFILE = dist
bench: dist plugins test-plugins target/.tools ## Measure the build for production, against references in the same run; writes target/bench/summary.json
	cargo bench --profile dist -p ace-cli --bench ace
	cargo bench --profile dist -p ace-cli --bench presentation

SOAK_FILES ?= 20000
# The test prints it: the same one makes the same files.
SOAK_SEED ?= $(shell date +%s)
soak: plugins test-plugins target/.tools ## Long tests: 100 kills of the service under load, a batch of a million, 20,000 hostile plugin files, every odd SMTP reply, the rates of channels, other random cases
	ACE_SOAK_FILES=$(SOAK_FILES) ACE_SOAK_SEED=$(SOAK_SEED) cargo test --release -p ace-cli --test e2e -- hostile_files:: --nocapture
	ACE_SOAK_ROUNDS=100 ACE_SOAK_BATCH=1000000 cargo test --release -p ace-cli --test e2e -- serve::crash serve::batches
	ACE_SOAK_ROUNDS=1 cargo test --release -p ace --lib -- mailer::tests::odd_replies
	ACE_SOAK_RATES=1 cargo test --release -p ace-cli --test e2e -- serve::rates --nocapture
	for round in {1..20}; do cargo test --release -q -p ace -p ace-store -p ace-server -p ace-django --lib --test django || exit; done

FUZZ_SECONDS ?= 60
fuzz: plugins test-plugins ## Fuzz what is read from a plugin folder, FUZZ_SECONDS (60) for each target; needs a C++ compiler
	tests/fuzz/run.sh $(FUZZ_SECONDS)

clean: ## Remove all that was built
	rm -rf target
