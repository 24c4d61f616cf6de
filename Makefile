# What a person types. Everything is built with the one optimised profile.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
# Cargo's own progress is welcome on a terminal and noise in a log.
QUIET := $(if $(CI),--quiet)
CARGO_BUILD := cargo build --release --workspace --locked $(QUIET)

# What a person may give, each in its target's help below; MINUTES is the chaos run's length.
MINUTES ?= 3
# Only what was given is handed on: make exports a name without a value as an empty one, which no
# program takes for a number.
GIVEN := ORDERS SAMPLE ONCE ONLY STREAMS MINUTES RATE SEED CASES SEEDS FIRST PAIRS CRASH_AT
$(foreach name,$(GIVEN),$(eval $(if $($(name)),export,unexport) $(name)))

.PHONY: help setup build demo up test fuzz simulate bench chaos check

help: ## This list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Check the tools, install missing Debian packages (as root; otherwise say the command)
	@.ci/setup

build: setup ## Build everything (the first time takes about half an hour on two cores: RocksDB)
	@$(CARGO_BUILD)

demo: build ## Replay real invoices and reconcile; ORDERS=<file.csv[.gz]> SAMPLE=<invoices> ONCE=1
	@$(BIN)/tillroll-demo

up: build ## Start everything, empty, and stay
	@$(BIN)/tillroll-demo --up

# The planted bugs have a build of their own: what is shipped holds none of them.
# One test at a time: several start the whole stack, and two cores carry one.
test: build ## All tests
	@cargo test --release --workspace --locked $(QUIET) --no-run
	@RUST_TEST_THREADS=1 cargo test --release --workspace --locked
	@CARGO_TARGET_DIR=$(TARGET)/simulation cargo test --release --package simulation --locked $(QUIET) \
	--features planted --test planted -- --nocapture

fuzz: build ## Hostile bytes for the decoder, tasks and HTTP bodies; CASES=1000000 SEED=<n>
	@cargo test --release --workspace --locked $(QUIET) --test records --test tasks --test bodies

simulate: ## Simulated crashes; SEEDS=<n> FIRST=<seed>, or SEED=<seed>, or PAIRS=1 CRASH_AT=<pair>
	@CARGO_TARGET_DIR=$(TARGET)/simulation cargo run --release --package simulation --locked $(QUIET) --bin simulate

bench: build ## Orders per second and latencies; ONLY=<part>
	@$(BIN)/tillroll-bench

chaos: build ## Faults on the real stack under load, then everything is compared; MINUTES=3 RATE=<orders/s> SEED=<n>
	@$(BIN)/tillroll-chaos

check: setup ## Formatting, lints, licences of dependencies
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets --locked $(QUIET) -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check licenses bans sources; \
	else echo "check: cargo-deny is not installed, licences were not checked (cargo install cargo-deny)"; fi
