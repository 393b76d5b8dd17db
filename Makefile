# Targets install what they need, if it is missing.
SHELL := /bin/bash
export CARGO_TARGET_DIR := $(CURDIR)/target
export PATH := $(PATH):/usr/sbin

# The crates of the host, and all other crates.
HOST := -p ace -p ace-server -p ace-address -p ace-django -p ace-store -p ace-signatures -p ace-cli
GUESTS := --workspace $(patsubst -p,--exclude,$(HOST))

.DEFAULT_GOAL := help
.PHONY: help build package dist quick plugins shipped test-plugins examples languages demo test lint fixtures importing bench fuzz fuzz-check soak docs clean

help: ## List all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: shipped ## Build the host: target/release/ace
	cargo build --release -p ace-cli

package: build ## Make packages of the release build: target/packages (a .deb, a tarball, checksums)
	packaging/build.sh target/release/ace target/packages

dist: shipped ## Build the host for production, for glibc 2.28 and later (15 minutes): target/dist/ace, packages in target/dist-packages
	packaging/dist.sh

quick: ## Run unit tests and lints of the host without optimization: seconds after an edit
	cargo fmt --all --check
	cargo clippy $(HOST) --no-default-features --all-targets -- -D warnings
	cargo test $(HOST) --no-default-features --lib --bins

plugins: ## Build the plugins of this repository: target/plugins/NAME.wasm and NAME.toml
	plugins/build.sh target/plugins

shipped: plugins ## Copy the plugins and templates into the crate of the program, which contains them: host/cli/shipped
	plugins/ship.sh target/plugins host/cli/shipped

test-plugins: ## Build faulty plugins for the tests: target/test-plugins
	plugins/build.sh target/test-plugins $(notdir $(wildcard tests/guests/*))

examples: ## Build example plugins in every language: target/plugins-examples
	plugins/examples/build.sh

languages: ## Build plugins in every language for the tests, faulty ones and those of the frozen interface: target/test-plugins/NAME_LANGUAGE.wasm
	plugins/examples/build.sh tests/languages target/test-plugins
	plugins/examples/build.sh tests/compat/languages target/test-plugins tests/compat/wit-1.1.0

demo: shipped ## Send sample messages through plugins into target/demo/outbox, with an unoptimized build: target/debug/ace
	cargo build -p ace-cli --no-default-features
	tests/demo/run.sh target/debug/ace

# smtp-sink is part of Postfix; the server for TLS and AUTH and the real edx-ace come from PyPI; Chromium renders mails.
target/.tools: tests/apt.sh tests/venv.sh
	tests/apt.sh smtp-sink=postfix chromium=chromium
	tests/venv.sh target/venv
	@touch $@

# The same random cases each time; other cases are for `make soak`, so that no build fails by chance.
test: export PROPTEST_RNG_SEED = 1

# The host and the guests are tested separately: together they would have other features, and wasmtime would be built twice.
test: shipped lint test-plugins examples languages target/.tools ## Run everything that CI runs
	target/venv/bin/python tests/fixtures/make.py --check
	target/venv/bin/python tests/fixtures/record_http.py --check
	target/venv/bin/python tests/fixtures/record_vendors.py --check
	target/venv/bin/python plugins/feedback/ses/tests/make.py --check
	target/venv/bin/python tests/django/make.py --check
	target/venv/bin/python tests/django/language_names.py --check
	target/venv/bin/python tests/django/conventions.py --check
	cargo test --release $(HOST)
	tests/demo/run.sh target/release/ace
	packaging/build.sh target/release/ace target/packages
	tests/packaging/run.sh target/release/ace
	cargo test --release $(GUESTS)

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --release $(HOST) --all-targets -- -D warnings
	cargo clippy --release $(GUESTS) --all-targets -- -D warnings

fixtures: target/.tools ## Regenerate the fixtures with the real edx-ace
	target/venv/bin/python tests/fixtures/make.py

importing: build target/.tools ## Count the mail templates of real Django projects that are imported completely; downloads them from PyPI
	target/venv/bin/python tests/importing/measure.py target/release/ace --stub --left

docs: ## Generate docs/wit.md, the reference of the plugin interface, from wit/
	ACE_WRITE_DOCS=1 cargo test --release -p ace --test wit

bench: export BENCH_PROFILE = dist
bench: shipped test-plugins target/.tools ## Measure the build for production, and references in the same run; writes target/bench/summary.json
	cargo bench --profile dist -p ace-cli --bench ace
	cargo bench --profile dist -p ace-cli --bench presentation

SOAK_FILES ?= 20000
# The test prints the seed; the same seed makes the same files.
SOAK_SEED ?= $(shell date +%s)
soak: dist test-plugins target/.tools ## Run long tests: 100 kills of the server under load, a batch of a million, 20,000 hostile plugin files, every odd SMTP reply, the rates of channels, 100,000 events of feedback, other random cases
	tests/packaging/run.sh target/dist/ace
	ACE_SOAK_FILES=$(SOAK_FILES) ACE_SOAK_SEED=$(SOAK_SEED) cargo test --release -p ace-cli --test e2e -- hostile_files:: --nocapture
	ACE_SOAK_ROUNDS=100 ACE_SOAK_BATCH=1000000 cargo test --release -p ace-cli --test e2e -- serve::crash serve::batches
	ACE_SOAK_EVENTS=100000 cargo test --release -p ace-cli --test e2e -- serve::feedback
	ACE_SOAK_ROUNDS=1 cargo test --release -p ace --lib -- mailer::tests::odd_replies
	ACE_SOAK_RATES=1 cargo test --release -p ace-cli --test e2e -- serve::rates --nocapture
	for round in {1..20}; do cargo test --release -q -p ace-cli --test e2e -- credential_urls:: || exit; done
	for round in {1..20}; do cargo test --release -q -p ace -p ace-store -p ace-address -p ace-server -p ace-django --lib --test django || exit; done

FUZZ_SECONDS ?= 60
fuzz: plugins test-plugins ## Fuzz the readers of plugin files and templates, FUZZ_SECONDS (60) for each target; needs a C++ compiler
	tests/fuzz/run.sh $(FUZZ_SECONDS)

fuzz-check: ## Check that the fuzz targets compile
	tests/fuzz/run.sh check

clean: ## Remove everything that was built
	rm -rf target
