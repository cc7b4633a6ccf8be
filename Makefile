# The only entry points. `make up` and `make test` do all the set-up that they need.
#
#   HEARTH_HOME     where an instance lives          (/var/lib/hearth)
#   HEARTH_ADDRESS  the address of its front door    (127.0.0.1)
#   HEARTH_CACHE    builds, shared by instances      (/var/cache/hearth)

SHELL := /bin/bash
.DEFAULT_GOAL := help

export HEARTH_CACHE ?= /var/cache/hearth
export CARGO_TARGET_DIR ?= $(HEARTH_CACHE)/target
export HEARTH_HOME ?= /var/lib/hearth
export HEARTH_ADDRESS ?= 127.0.0.1

HEARTH := $(HEARTH_CACHE)/programs/hearth
XTASK := cargo run --quiet --locked --package xtask --

.PHONY: help up down purge test soak check bench require

help:
	@echo "make up     build what is missing, start everything, serve a first tool"
	@echo "make down   stop everything; data stays"
	@echo "make purge  stop everything and remove the instance's data"
	@echo "make test   every test, in its short form"
	@echo "make soak   the long tests (SOAK_MINUTES for each, 60)"
	@echo "make check  format, lints, tidy, rules on dependencies"
	@echo "make bench  every measurement"

require:
	@[ "$$(id -u)" = 0 ] || { echo "make: this makes network namespaces and mounts, which only root may; run it as root" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "make: Rust is needed (cargo is not on the PATH); install it, for example by rustup" >&2; exit 1; }
	@command -v go >/dev/null || { echo "make: Go 1.26 or newer is needed (go is not on the PATH); install it" >&2; exit 1; }
	@command -v cc >/dev/null || { apt-get install -qq -y gcc libc6-dev make >/dev/null || { apt-get update -qq && apt-get install -qq -y gcc libc6-dev make; } >/dev/null; }

up: require
	@$(XTASK) build
	@$(HEARTH) up

down:
	@if [ -x $(HEARTH_HOME)/bin/hearth ]; then $(HEARTH_HOME)/bin/hearth down; else echo "There is no instance of Hearth in $(HEARTH_HOME)."; fi

purge:
	@if [ -x $(HEARTH_HOME)/bin/hearth ]; then $(HEARTH_HOME)/bin/hearth purge; else echo "There is no instance of Hearth in $(HEARTH_HOME)."; fi

test: require
	@$(XTASK) build
	@$(XTASK) build control-plane
	@cd images/mkimage && GOMODCACHE=$(HEARTH_CACHE)/go/mod GOCACHE=$(HEARTH_CACHE)/go/build GOFLAGS=-buildvcs=false GOTOOLCHAIN=local CGO_ENABLED=0 go test ./...
	@cargo test --locked --workspace --no-fail-fast

soak: require
	@$(XTASK) build
	@$(XTASK) build control-plane
	@SOAK_MINUTES=$${SOAK_MINUTES:-60} cargo test --locked --package e2e --test it of_generated_objects -- --nocapture
	@SOAK_MINUTES=$${SOAK_MINUTES:-60} cargo test --locked --package e2e --test it -- --nocapture platform_soak platform_topologies
	@SOAK_MINUTES=$${SOAK_MINUTES:-60} cargo test --locked --package hearth-server --test it -- --nocapture proxy_shuffle proxy_steady
	@fuzz/run
	@crates/server/benches/autobahn/run

check: require
	@cargo fmt --all --check
	@$(XTASK) tidy
	@cargo clippy --locked --workspace --all-targets -- --deny warnings

bench: require
	@$(XTASK) build
	@bench/run
