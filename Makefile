# `make demo` shows the main job, `make test` proves it; both set up what they need.

CARGO ?= cargo
SECONDS ?= 60

.PHONY: help setup setup-component setup-curl setup-postgres setup-chromium setup-shells setup-groff \
  setup-deploy-tools setup-valgrind demo test \
  test-intake test-python test-node test-pingora page-pictures fuzz simulate bench instructions mutants mutants-guest \
  mutants-library lint audit release package

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: setup-component ## Plays a boundary's traffic through the tracker and prints the period's summary
	@$(CARGO) run --bin boundary-usage -- demo

test: setup ## Runs all tests, on SQLite and on a PostgreSQL that they start themselves
	$(CARGO) test --workspace
	$(CARGO) test --workspace --features boundary-usage-tests/opentelemetry --test rules -- opentelemetry::
	$(MAKE) test-intake test-python test-node

test-intake: ## Explores the interleavings of the intake's threads with a model checker
	CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),target) $(CARGO) test --manifest-path tests/intake_model/Cargo.toml

test-python: setup ## Builds the Python package and runs its tests, with Rust replicas beside it
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_equipment -- scripts/test-python

test-node: setup ## Builds the Node.js package and runs its tests, with Rust replicas beside it
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_equipment -- scripts/test-node

test-pingora: setup-component ## Runs the tests of the Pingora host, which builds for minutes: Pingora and its dependencies
	@scripts/setup-tool cmake cmake # builds a dependency of Pingora, zlib-ng
	CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),target) $(CARGO) test --manifest-path host/boundary-usage-pingora/Cargo.toml

page-pictures: setup ## Takes pictures of the status page: target/page/, and docs/page.png for the README
	@mkdir -p target/page
	PAGE_PICTURES=$(CURDIR)/target/page $(CARGO) test --workspace --test rules -- page::the_page_is_readable
	cp target/page/page.png docs/page.png

fuzz: setup-component ## Feeds mutated input to everything that reads bytes of others, for SECONDS=60 each
	FUZZ_SECONDS=$(SECONDS) $(CARGO) test --workspace --test rules fuzzing -- --nocapture

# The development build is fast enough: the component, which does most of the work, is compiled to machine code at full
# optimisation in every build.
simulate: setup-component ## Simulates replicas and faults: SEEDS=2000, or STEPS=1000000; SEED=7 replays one
	$(CARGO) run --bin simulate -- \
	  $(if $(SEED),--seed $(SEED),$(if $(STEPS),--steps $(STEPS),--seeds $(or $(SEEDS),2000))) \
	  $(if $(FIRST),--first $(FIRST)) $(if $(MUTATION),--mutation $(MUTATION))

bench: setup ## Measures everything beside its rivals; ONLY=throughput|operations|memory|starts|databases for a part, ONLY=picture to draw again
	$(CARGO) bench --workspace --bench usage -- $(ONLY)

# Not incremental: that compiles a crate in many more pieces, between which less is inlined, and more than doubles the counts.
instructions: export CARGO_INCREMENTAL = 0
instructions: setup-component setup-valgrind ## Counts instructions per activity, and fails beyond the baseline; SAVE=1 makes a new one
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin instructions -- $(if $(SAVE),--save)

lint: setup-component ## Formatting, clippy and documentation, without warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features boundary-usage-tests/opentelemetry -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

mutants: mutants-guest mutants-library ## Changes the code in one place at a time, and expects a test to fail; takes hours

mutants-guest: ## Does so with the guest only, in about 20 minutes
	@scripts/mutants guest $(ARGS)

mutants-library: setup ## Does so with ledger, checkpoint, collection and database; ARGS='--file PATH' or '--shard 1/20' for a part
	@scripts/mutants library $(ARGS)

audit: ## Checks the dependencies: licences, bans, sources, and advisories where they can be had
	@scripts/audit-dependencies

release: setup-component ## Builds target/release/boundary-usage
	$(CARGO) build --release --package boundary-usage-cli --bin boundary-usage

package: setup-component ## Packs the crates that users need, with the component inside, and builds them from that
	@scripts/package

setup: setup-component setup-curl setup-postgres setup-chromium setup-shells setup-groff setup-deploy-tools ## Installs what building and testing need, where it is missing

setup-component:
	@scripts/setup-component

setup-curl:
	@scripts/setup-tool curl curl

setup-postgres:
	@scripts/setup-postgres

setup-chromium:
	@scripts/setup-tool chromium chromium fonts-dejavu-core

setup-shells:
	@scripts/setup-tool bash bash
	@scripts/setup-tool zsh zsh
	@scripts/setup-tool fish fish

setup-groff:
	@scripts/setup-tool groff groff-base

setup-deploy-tools:
	@scripts/setup-deploy-tools

setup-valgrind:
	@scripts/setup-tool valgrind valgrind
