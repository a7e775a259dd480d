# uxdp: `make demo` and `make test` set up everything they need, on a Debian 12 with python3, make and root.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# As many tests at once as there are CPUs; those that serve traffic have the machine for themselves.
PYTEST := $(BIN)/pytest -n auto
READY := .venv/.ready

# What the programs need: headers for XDP sources, libbpf and bpftool to load objects, ip(8) for interfaces.
PACKAGES := python3-venv libbpf1 libbpf-dev linux-libc-dev bpftool iproute2 iputils-ping procps
# What serving on DPDK needs: its headers, drivers, testpmd, and a compiler.
DPDK_PACKAGES := dpdk dpdk-dev libdpdk-dev gcc libc6-dev pkg-config
# What only the tests need: another front end than ziglang's clang 22, a compiler for a libbpf loader, an emulated aarch64.
TEST_PACKAGES := clang-14 llvm libelf-dev zlib1g-dev qemu-user-static ethtool $(DPDK_PACKAGES)

SOURCES := uxdp_bundle clang-wrapper hatch_plugin runtime tests examples
C_SOURCES = $(shell find examples tests clang-wrapper runtime -name '*.[ch]' -not -path '*/.*')

.PHONY: demo demo-dpdk test lint unit hostile privileged serving soak differential packaging bench bench-afxdp bench-dpdk bench-serve bench-packaging bench-compile format dist clean
.DEFAULT_GOAL := test

demo: $(READY)
	@examples/demo.sh

# The same network function on DPDK, between a memif and captures.
demo-dpdk: $(READY) .venv/.dpdk-packages
	@examples/dpdk_demo.sh

test: lint unit hostile privileged serving differential packaging
	@echo "all tests passed"

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)

unit: $(READY) .venv/.test-packages
	$(PYTEST) tests/unit --cov=uxdp_bundle --cov-report=term:skip-covered --cov-fail-under=95

hostile: $(READY)
	$(PYTEST) tests/hostile

privileged: $(READY) .venv/.test-packages
	$(PYTEST) tests/privileged --ignore-glob="*/test_serve*"

serving: $(READY) .venv/.test-packages
	$(BIN)/pytest -n 3 tests/privileged/test_serve*.py

# A million random frames for each example, hundreds of killed processes, a minute of load; ten thousand random programs.
soak: $(READY) .venv/.test-packages
	UXDP_LONG=1 $(BIN)/pytest -s tests/privileged/test_serve_accounting.py
	UXDP_LONG=1 $(PYTEST) tests/differential/test_random_programs.py tests/differential/test_fuzz_examples.py

differential: $(READY) .venv/.test-packages
	$(PYTEST) tests/differential

packaging: $(READY)
	$(BIN)/pytest tests/packaging

# ns per frame of every example, in the kernel and natively; needs root and a quiet machine.
bench: $(READY)
	@mkdir -p build/bench
	$(BIN)/python tests/bench_native.py --json build/bench/native.json --plot build/bench

# Frames per second of uxdp serve and of the kernel on a veth pair; needs root and a quiet machine.
bench-afxdp: $(READY) .venv/.test-packages
	@mkdir -p build/bench
	$(BIN)/python -m tests.bench_afxdp --json build/bench/afxdp.json --plot build/bench/afxdp.svg

# Time to the first frame, and of a round trip; needs root and a quiet machine.
bench-serve: $(READY) .venv/.test-packages
	$(BIN)/python -m tests.bench_serve

# Frames per second of uxdp serve on DPDK, and of dpdk-testpmd; needs root and a quiet machine.
bench-dpdk: $(READY) .venv/.test-packages
	@mkdir -p build/bench
	$(BIN)/python -m tests.bench_dpdk --json build/bench/dpdk.json --plot build/bench/dpdk.svg

bench-packaging: $(READY)
	$(BIN)/python tests/bench_packaging.py

bench-compile: $(READY)
	$(BIN)/python -m tests.bench_compile

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/clang-format -i $(C_SOURCES)

dist: $(READY)
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf .venv build dist

# $(call install,PACKAGES): install the Debian packages of which one is missing; quick if none is.
define install
	@missing=$$(for package in $(1); do \
		dpkg-query -W -f='$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed || echo $$package; \
	done); \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "missing packages; run as root: apt-get install" $$missing >&2; exit 1; \
		fi; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi
endef

$(READY): pyproject.toml Makefile
	$(call install,$(PACKAGES))
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "uxdp needs Python 3.11 or newer")'
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,clang]'
	@touch $@

.venv/.test-packages: Makefile | $(READY)
	$(call install,$(TEST_PACKAGES))
	@touch $@

.venv/.dpdk-packages: Makefile | $(READY)
	$(call install,$(DPDK_PACKAGES))
	@touch $@
