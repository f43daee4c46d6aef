# netmond: `sudo make run` shows the main job on real traffic, `sudo make test` runs every test tier.

PYTHON := /usr/bin/python3
RUFF := 0.17.5
export DEBIAN_FRONTEND := noninteractive

# Debian packages that running needs, and those that testing needs beyond.
RUN_PACKAGES := python3-bpfcc python3-dbus-next python3-systemd python3-tomli python3-numpy python3-pylibacl \
	libbpf1 libpcap0.8 dbus-daemon iproute2
TEST_PACKAGES := $(RUN_PACKAGES) python3-pytest python3-pytest-xdist python3-hypothesis python3-pytest-timeout \
	python3-scapy python3-argcomplete python3-docutils python3-venv mypy iperf3 nftables tcpdump tshark ethtool bpftool procps \
	util-linux systemd iputils-ping mandoc man-db groff bash-completion zsh fish polkitd \
	prometheus victoria-metrics nfdump libfixbuf-tools rsyslog openssh-client openssh-server openssl python3-prometheus-client
DEB_PACKAGES := debhelper dh-python dpkg-dev lintian pybuild-plugin-pyproject python3-docutils python3-numpy \
	python3-pylibacl python3-setuptools
BENCH_PACKAGES := gcc libc6-dev
SERVICE_PACKAGES := systemd-container mmdebstrap debian-archive-keyring
VM_PACKAGES := $(SERVICE_PACKAGES) qemu-system-x86 qemu-utils e2fsprogs cpio

# Installs those of the packages $(1) that are missing, and says nothing if there are none. Services that come with
# them do not start: the tests have their own (invoke-rc.d(8)).
POLICY := /usr/sbin/policy-rc.d
install = @missing=$$({ dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(1) 2>/dev/null || true; } | \
	sed -n 's/^ii *//p' | sort | comm -13 - <(printf '%s\n' $(1) | sort -u)); \
	if [ -n "$$missing" ]; then echo "Installing:" $$missing; \
	[ -e $(POLICY) ] || { printf '\#!/bin/sh\nexit 101\n' | install -m 755 /dev/stdin $(POLICY); trap 'rm $(POLICY)' EXIT; }; \
	apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends $$missing >/dev/null; fi
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

.PHONY: help run test test-unit test-bus test-export test-kernel test-service test-vm lint bench deb rpm install-data \
	run-deps test-deps clean

help:
	@echo "sudo make run      what netmond does, live, on this machine's traffic (Ctrl-C ends it, FOR=20 after 20 s);"
	@echo "                   where systemd runs, the Debian packages are built and installed first"
	@echo "sudo make test     the test tiers unit, bus, export, kernel and service"
	@echo "sudo make test-vm  the service tier on Debian's own kernel, emulated: slow"
	@echo "sudo make bench    the cost of everything, as ratios measured in one run"
	@echo "     make lint     ruff and mypy"
	@echo "     make deb      the Debian packages, in build/deb (rpm: an RPM, in build/rpm)"

run-deps:
	$(call install,$(RUN_PACKAGES))

test-deps: .venv/bin/ruff
	$(call install,$(TEST_PACKAGES))

# ruff is in no Debian package; its wheel is a plain binary.
.venv/bin/ruff:
	$(call install,python3-venv)
	$(PYTHON) -m venv .venv
	.venv/bin/pip -q --disable-pip-version-check install ruff==$(RUFF)

# Where systemd runs, the packages are built and installed, and the service is shown.
BOOTED := $(wildcard /run/systemd/system)
run: run-deps $(if $(BOOTED),deb)
	$(if $(BOOTED),apt-get -qq install -y --no-install-recommends --reinstall --allow-downgrades \
		-o Dpkg::Options::=--force-confold $(abspath $(DEB_DIR))/*.deb >/dev/null)
	@exec $(PYTHON) packaging/demo/run.py $(if $(BOOTED),--service) $(if $(FOR),--seconds $(FOR))

# The two long tiers beside each other: one is busy, the other mostly waits for machines. What they say comes when
# each is over.
test: test-unit test-bus test-export
	@echo "The kernel and the service tier, beside each other: some 18 minutes"
	@$(MAKE) -j2 -Otarget --no-print-directory test-kernel test-service

test-unit: test-deps
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m pytest tests/unit -q -n auto --timeout 300

test-bus: test-deps
	$(PYTHON) -m pytest tests/bus -q --timeout 120

# Against the systems that figures are delivered to.
test-export: test-deps
	$(PYTHON) -m pytest tests/export -q --timeout 120

test-kernel: test-deps
	$(PYTHON) -m pytest tests/kernel -q --timeout 120

# In a Debian container that boots systemd. ARGS are for pytest; --shell keeps the machine for a look.
test-service: test-deps deb
	$(call install,$(SERVICE_PACKAGES))
	$(PYTHON) -m tests.service.container $(ARGS)

# The same with Debian's own kernel, in an emulated machine.
test-vm: test-deps deb
	$(call install,$(VM_PACKAGES))
	$(PYTHON) -m tests.vm.machine $(ARGS)

lint: test-deps
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && mypy

# NAMES are of what `python3 -m bench --list` lists; QUICK=1 takes three minutes instead of fifteen.
bench: test-deps
	$(call install,$(BENCH_PACKAGES))
	$(PYTHON) -m bench $(if $(QUICK)$(NAMES),$(if $(QUICK),--quick) $(NAMES),--write)

# Built in a copy, so that the checkout stays as it is, and with Debian's own tools only. No compiler is needed,
# though Debian takes one for granted. tar ends with 1 if a directory changed meanwhile: tests that run beside keep
# their caches there.
DEB_DIR := build/deb
deb:
	$(call install,$(DEB_PACKAGES))
	rm -rf $(DEB_DIR)/netmon*
	mkdir -p $(DEB_DIR)/netmond
	{ tar -c --exclude-vcs --exclude=./build --exclude=./.venv --exclude='./.*_cache' --exclude=./.hypothesis \
		--exclude=__pycache__ . || [ $$? -eq 1 ]; } | tar -x -C $(DEB_DIR)/netmond
	cd $(DEB_DIR)/netmond && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -us -uc \
		--ignore-builtin-builddeps >../build.log 2>&1 || { tail -n 40 ../build.log; false; }
	rm -r $(DEB_DIR)/netmond
	lintian --allow-root --fail-on error,warning $(DEB_DIR)/*.changes
	@ls $(DEB_DIR)/*.deb

rpm: deb
	$(call install,rpm)
	$(PYTHON) packaging/rpm/build.py

# Everything that is not Python, below DESTDIR. Distributions differ in the two directories.
UNITDIR := /usr/lib/systemd/system
ZSHDIR := /usr/share/zsh/site-functions
put = install -D -m 644 -t $(DESTDIR)$(1) $(2)
install-data:
	$(call put,/etc/netmond,packaging/netmond.toml)
	install -d $(DESTDIR)/etc/netmond/netmond.d
	$(call put,$(UNITDIR),systemd/netmond*.service systemd/netmond*.socket)
	$(call put,/usr/lib/sysusers.d,packaging/sysusers/netmond.conf)
	$(call put,/usr/lib/systemd/catalog,packaging/journal/netmond.catalog)
	$(call put,/usr/share/dbus-1/system.d,packaging/dbus/org.netmond1.conf)
	$(call put,/usr/share/dbus-1/system-services,packaging/dbus/org.netmond1.service)
	$(call put,/usr/share/dbus-1/interfaces,packaging/dbus/org.netmond1.*.xml)
	$(call put,/usr/share/netmond/bpf,bpf/*.[ch])
	$(call put,/usr/share/netmond/grafana,packaging/grafana/*.json)
	$(call put,/usr/share/netmond/prometheus,packaging/prometheus/*.yml)
	$(call put,/usr/share/doc/netmond/examples,packaging/examples/*.py)
	cd bpf && find kheaders -name '*.h' -exec cp --parents -t $(abspath $(DESTDIR))/usr/share/netmond/bpf {} +
	$(call put,$(ZSHDIR),packaging/completions/_netmonctl)
	$(call put,/usr/share/fish/vendor_completions.d,packaging/completions/netmonctl.fish)
	install -D -m 644 packaging/completions/netmonctl.bash \
		$(DESTDIR)/usr/share/bash-completion/completions/netmonctl
	$(call put,/usr/share/polkit-1/actions,packaging/polkit/org.netmond1.policy)
	$(PYTHON) -B packaging/man/build.py build/man
	$(call put,/usr/share/man/man1,build/man/*.1)
	$(call put,/usr/share/man/man5,build/man/*.5)
	$(call put,/usr/share/man/man8,build/man/*.8)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
