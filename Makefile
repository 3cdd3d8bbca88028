# Every target works from a fresh clone on Debian with Rust: what is missing is installed first.

SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: help setup build test demo bench lint fmt

# Debian's kubectl lands in target/tools where its package cannot be installed beside another one.
export PATH := $(PATH):$(CURDIR)/target/tools/bin:/usr/sbin:/sbin

help:            ## show this list
	@grep -E '^[a-z]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup:           ## install what is missing: Debian packages, Python virtual environment
	@hack/setup.sh

build: setup     ## build the executable cmn and the examples
	cargo build --locked -p commonage -p wordcount

test: setup      ## run all tests
	@hack/test.sh

demo: build      ## a whole cluster, two frameworks, real containers; leaves nothing behind
	@hack/demo.sh

bench: setup     ## measure, in release mode; ROWS=create,watch picks, hack/bench.sh says which there are
	@hack/bench.sh "$(ROWS)"

lint: setup      ## formatting, clippy, licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; else echo "cargo-deny is not installed, licences and advisories not checked"; fi

fmt:             ## format everything
	cargo fmt --all
