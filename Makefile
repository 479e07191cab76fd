# Thin over the scripts in packaging/. `make help` lists what there is.
#
#   PREFIX    where programs and manual pages go (default /usr)
#   DESTDIR   a directory to install below, for packages

PREFIX ?= /usr
DESTDIR ?=
export PREFIX DESTDIR

.DEFAULT_GOAL := build
.PHONY: help setup build install uninstall demo test test-vm vm-shell kernel-features lint bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 23

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

test-vm: ## on Debian's kernels, in virtual machines; KERNEL=6.1, TESTS="lifecycle network"
	@packaging/test-vm $(if $(KERNEL),--kernel $(KERNEL)) $(TESTS)

vm-shell: ## a console of such a machine; KERNEL=6.1
	@packaging/test-vm --shell $(if $(KERNEL),--kernel $(KERNEL))

kernel-features: ## docs/kernel-features.md anew, from what Debian's kernels have
	@packaging/test-vm --probe

lint: ## format, clippy, cargo-deny, shellcheck, manual pages
	@packaging/lint

bench: build ## speed, beside other container programs
	@packaging/bench

clean: ## what building made
	cargo clean
