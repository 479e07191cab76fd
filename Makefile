# Thin over the scripts in packaging/. `make help` lists what there is.
#
#   PREFIX    where programs and manual pages go (default /usr)
#   DESTDIR   a directory to install below, for packages

PREFIX ?= /usr
DESTDIR ?=
export PREFIX DESTDIR

.DEFAULT_GOAL := build
.PHONY: help setup build install uninstall demo test lint bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: ## the programs, optimised (the default)
	@packaging/build

setup: ## install what building and running need
	@packaging/setup run

install: ## into PREFIX and /etc/vz, /vz; edited configuration is kept
	@packaging/install

uninstall: ## what install put; configuration you edited, containers and templates stay
	@packaging/uninstall

demo: ## everything, up to a running container
	@packaging/demo

test: ## everything that can be checked, on this host
	@packaging/test

lint: ## format, clippy, cargo-deny, shellcheck, manual pages
	@packaging/lint

bench: build ## speed, beside other container programs
	@packaging/bench

clean: ## what building made
	cargo clean
