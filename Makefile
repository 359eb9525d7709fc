# `make demo` shows what the program does, and `make test` runs all tests. Both install what they need.

CARGO ?= cargo
SECONDS ?= 60
BUILT = $(abspath $(or $(CARGO_TARGET_DIR),target))
PACKAGES = $(BUILT)/packages

# Most tests wait for servers and processes, so more of them run than there are processors.
TEST_THREADS = $(shell expr 2 '*' "$$(nproc)")

# Features of the program that the demo does not build, because they would make its build longer.
OPTIONAL_FEATURES := boundary-usage-tests/opentelemetry,boundary-usage-tests/parquet

.PHONY: help setup setup-component setup-curl setup-postgres setup-pgbouncer setup-chromium setup-shells setup-groff \
  setup-faketime setup-deploy-tools setup-c setup-go setup-nginx setup-valgrind demo test test-c test-intake \
  test-python test-mitmproxy test-node test-go test-hosts test-nginx test-pingora test-spark test-webhooks \
  page-pictures fuzz simulate bench instructions mutants mutants-guest mutants-library lint audit release install-c \
  deb image test-packages test-upgrade package setup-packaging test-proxies setup-proxies

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: setup-component ## Run two replicas with real clients and print the period's summary
	@$(CARGO) run --bin boundary-usage -- demo

test: setup ## Run all tests, on SQLite and on a PostgreSQL server that they start
	$(CARGO) test --workspace -- --test-threads=$(TEST_THREADS)
	$(CARGO) test --workspace --features $(OPTIONAL_FEATURES) --test rules -- opentelemetry:: export_parquet::
	$(MAKE) test-intake test-python test-node test-c test-go test-hosts

test-intake: ## Explore the interleavings of the intake's threads with a model checker
	CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),target) $(CARGO) test --manifest-path tests/intake_model/Cargo.toml

test-python: setup ## Build the Python package and run its tests, together with Rust replicas
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_support -- scripts/test-python

test-mitmproxy: setup ## Run only the tests of the addon for mitmproxy, with mitmdump and curl
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_support -- scripts/test-python tests/test_mitmproxy.py

test-proxies: setup setup-proxies ## Track the access logs of Squid, HAProxy, Caddy, Envoy and Traefik
	$(CARGO) build --workspace --bins
	BOUNDARY_USAGE_TEST_PROXIES=$(BUILT)/proxies/bin \
	  $(CARGO) run --quiet --bin with_support -- scripts/test-python tests/proxies

test-node: setup ## Build the Node.js package and run its tests, together with Rust replicas
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_support -- scripts/test-node

test-c: setup-component setup-postgres setup-c setup-valgrind ## Run C and C++ programs on the C library
	$(CARGO) build --workspace
	@scripts/install-c $(BUILT)/debug $(BUILT)/c
	$(CARGO) run --quiet --bin with_support -- scripts/test-c $(BUILT)/c $(ARGS)

test-go: setup setup-go ## Build the C library and run the tests of the Go package, together with Rust replicas
	$(CARGO) build --workspace
	@scripts/install-c $(BUILT)/debug $(BUILT)/c
	$(CARGO) run --quiet --bin with_support -- scripts/test-go

test-hosts: setup setup-go ## Run one replica each of Rust, C, Go, Python and Node.js on one PostgreSQL database
	$(CARGO) build --workspace
	@scripts/install-c $(BUILT)/debug $(BUILT)/c
	$(CARGO) run --quiet --bin with_support -- scripts/test-hosts

test-nginx: setup-component setup-postgres setup-curl setup-nginx ## Build the module for nginx and test it under load
	$(CARGO) build --workspace
	@scripts/install-c $(BUILT)/debug $(BUILT)/c
	$(CARGO) run --quiet --bin with_support -- scripts/test-nginx $(BUILT)/c $(ARGS)

test-pingora: setup-component ## Run the tests of the Pingora crate; builds Pingora, which takes minutes
	@scripts/setup-tool cmake cmake # builds zlib-ng, a dependency of Pingora
	CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),target) $(CARGO) test --manifest-path host/boundary-usage-pingora/Cargo.toml

test-webhooks: setup ## Verify signed deliveries with the reference libraries for Python and JavaScript
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_support -- scripts/test-webhooks

test-spark: setup-component setup-faketime ## Compare Apache Spark's numbers with those of reports; downloads 400 MB
	$(CARGO) build --workspace --features $(OPTIONAL_FEATURES) --bins
	@scripts/test-spark

page-pictures: setup ## Take pictures of the status page: target/page/, and docs/page.png for the README
	@mkdir -p target/page
	PAGE_PICTURES=$(CURDIR)/target/page $(CARGO) test --workspace --test rules -- page::the_page_is_readable
	cp target/page/page.png docs/page.png

fuzz: setup-component ## Send mutated input to every parser of untrusted bytes, for SECONDS=60 each
	FUZZ_SECONDS=$(SECONDS) $(CARGO) test --workspace --test rules fuzzing -- --nocapture

# A development build is fast enough, because the component does most of the work and is optimised in every build.
simulate: setup-component ## Simulate replicas and faults: SEEDS=2000 or STEPS=1000000; SEED=7 replays one
	$(CARGO) run --bin simulate -- \
	  $(if $(SEED),--seed $(SEED),$(if $(STEPS),--steps $(STEPS),--seeds $(or $(SEEDS),2000))) \
	  $(if $(FIRST),--first $(FIRST)) $(if $(MUTATION),--mutation $(MUTATION))

bench: setup setup-c ## Measure speed and memory; ONLY=databases runs one part, see tests/benches/main.rs
	$(CARGO) build --workspace --lib --profile bench
	@scripts/install-c $(BUILT)/release $(BUILT)/bench/c
	$(CARGO) bench --workspace --bench usage -- $(ONLY)

# Incremental compilation splits a crate into many more units. Less is inlined, and the counts more than double.
OPTIMISED_TESTS := profile.dev.package.boundary-usage-tests.opt-level=1

instructions: export CARGO_INCREMENTAL = 0
instructions: setup-component setup-valgrind ## Count instructions per activity; SAVE=1 saves a new baseline
	$(CARGO) --config $(OPTIMISED_TESTS) run --quiet --bin instructions -- $(if $(SAVE),--save)

lint: setup-component ## Check formatting, clippy and documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features $(OPTIONAL_FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

mutants: mutants-guest mutants-library ## Run all mutation tests; takes hours

mutants-guest: ## Run mutation tests of the guest; takes 20 minutes
	@scripts/mutants guest $(ARGS)

mutants-library: setup ## Run mutation tests of the library; ARGS='--file PATH' or '--shard 1/20' for a part
	@scripts/mutants library $(ARGS)

audit: ## Check the dependencies: licences, bans, sources and advisories
	@scripts/audit-dependencies

release: setup-component ## Build target/release/boundary-usage, with Parquet
	$(CARGO) build --release --package boundary-usage-cli --features parquet --bin boundary-usage

install-c: setup-component ## Install the C library with its header: PREFIX=/usr/local, and DESTDIR for packagers
	$(CARGO) build --release --package boundary-usage-c
	@scripts/install-c $(or $(CARGO_TARGET_DIR),target)/release $(or $(PREFIX),/usr/local)

deb: setup-packaging release ## Build a Debian package of the release in target/packages
	@scripts/package-debian $(BUILT)/release/boundary-usage $(PACKAGES)

image: setup-packaging release ## Build a container image of the release in target/packages; needs root
	@scripts/debian-root $(PACKAGES)/debian-root
	@scripts/build-image $(BUILT)/release/boundary-usage $(PACKAGES)/debian-root \
	  $(PACKAGES)/boundary-usage.oci.tar

test-packages: setup-component setup-packaging ## Test the Debian package in a booted system, and the image; needs root
	$(CARGO) build --workspace --bins
	@scripts/test-packages $(BUILT)/debug/boundary-usage

test-upgrade: setup-component setup-postgres ## Upgrade from another release's program with both databases: OLD=path
	@scripts/setup-tool psql postgresql-client
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --bin with_support -- scripts/test-upgrade "$(OLD)"

package: setup-component ## Pack the published crates with the component inside, and build them from there
	@scripts/package

setup: setup-component setup-curl setup-postgres setup-pgbouncer setup-chromium setup-shells setup-groff
setup: setup-faketime setup-deploy-tools
setup: ## Install what build and tests need and the machine lacks

setup-component:
	@scripts/setup-component

setup-curl:
	@scripts/setup-tool curl curl

setup-postgres:
	@scripts/setup-postgres

setup-pgbouncer:
	@PATH="$$PATH:/usr/sbin" scripts/setup-tool pgbouncer pgbouncer

setup-chromium:
	@scripts/setup-tool chromium chromium fonts-dejavu-core

setup-shells:
	@scripts/setup-tool bash bash
	@scripts/setup-tool zsh zsh
	@scripts/setup-tool fish fish

setup-faketime:
	@scripts/setup-tool faketime faketime

setup-groff:
	@scripts/setup-tool groff groff-base

setup-deploy-tools:
	@scripts/setup-deploy-tools

setup-packaging:
	@scripts/setup-packaging

# psql creates the databases of the tests.
setup-go:
	@scripts/setup-tool go golang-go
	@scripts/setup-tool gcc gcc libc6-dev
	@scripts/setup-tool pkg-config pkg-config
	@scripts/setup-tool psql postgresql-client

setup-nginx: setup-c
	@PATH="$$PATH:/usr/sbin" scripts/setup-tool nginx nginx
	@scripts/setup-tool dh_nginx nginx-dev
	@scripts/setup-tool wrk wrk

setup-proxies:
	@scripts/setup-proxies $(BUILT)/proxies

setup-valgrind:
	@scripts/setup-tool valgrind valgrind libc6-dbg # without its symbols, valgrind reports false errors

setup-c:
	@scripts/setup-tool gcc gcc libc6-dev
	@scripts/setup-tool g++ g++
	@scripts/setup-tool pkg-config pkg-config
	@scripts/setup-tool readelf binutils
	@scripts/setup-tool psql postgresql-client
