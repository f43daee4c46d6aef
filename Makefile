# netmond: `sudo make run` shows the main job on real traffic, `sudo make test` runs every test tier.

PYTHON := /usr/bin/python3
RUFF := 0.17.5
export DEBIAN_FRONTEND := noninteractive

# Debian packages that running needs, and those that testing needs beyond.
RUN_PACKAGES := python3-bpfcc python3-dbus-next python3-systemd python3-tomli python3-numpy libbpf1 \
	dbus-daemon iproute2
TEST_PACKAGES := $(RUN_PACKAGES) python3-pytest python3-pytest-xdist python3-hypothesis python3-pytest-timeout python3-scapy \
	python3-argcomplete python3-venv mypy iperf3 tcpdump ethtool bpftool procps util-linux systemd \
	iputils-ping

# Installs those of the packages $(1) that are missing, and says nothing if there are none.
install = @missing=$$({ dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(1) 2>/dev/null || true; } | \
	sed -n 's/^ii *//p' | sort | comm -13 - <(printf '%s\n' $(1) | sort -u)); \
	if [ -n "$$missing" ]; then echo "Installing:" $$missing; \
	apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends $$missing >/dev/null; fi
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

.PHONY: help run test test-unit test-bus test-kernel lint bench run-deps test-deps clean

help:
	@echo "sudo make run     what netmond does, live, on this machine's traffic (Ctrl-C ends it, FOR=20 after 20 s)"
	@echo "sudo make test    all test tiers this machine can run (unit, bus, kernel)"
	@echo "sudo make bench   the cost of everything, as ratios measured in one run"
	@echo "     make lint    ruff and mypy"

run-deps:
	$(call install,$(RUN_PACKAGES))

test-deps: .venv/bin/ruff
	$(call install,$(TEST_PACKAGES))

# ruff is in no Debian package; its wheel is a plain binary.
.venv/bin/ruff:
	$(call install,python3-venv)
	$(PYTHON) -m venv .venv
	.venv/bin/pip -q --disable-pip-version-check install ruff==$(RUFF)

run: run-deps
	@exec $(PYTHON) packaging/demo/run.py $(if $(FOR),--seconds $(FOR))

test: test-unit test-bus test-kernel

test-unit: test-deps
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m pytest tests/unit -q -n auto --timeout 300

test-bus: test-deps
	$(PYTHON) -m pytest tests/bus -q --timeout 120

test-kernel: test-deps
	$(PYTHON) -m pytest tests/kernel -q --timeout 120

lint: test-deps
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && mypy

bench: test-deps
	$(PYTHON) -m bench --write

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
