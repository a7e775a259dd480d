#!/usr/bin/env bash
# From one C file to an installed, signed network function, packets through its native code, and the very same file in
# the kernel by bpftool.
# Everything happens in a temporary folder; the trust of this machine (/etc/uxdp) is not touched.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/.venv/bin
work=$(mktemp -d /tmp/uxdp-demo.XXXXXX)
export UXDP_SYSTEM_CONFIG=$work/etc UXDP_STATE_DIR=$work/state UXDP_CACHE_DIR=$work/cache UXDP_RUN_DIR=$work/run HOME=$work/home XDG_CONFIG_HOME=$work/home/.config
mkdir -p "$HOME" "$work/bpf"
chmod 755 "$work"

cleanup() {
	mountpoint -q "$work/bpf" && umount "$work/bpf"
	rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
	printf '$ %s\n' "$(printf '%s ' "$@" | sed "s#$bin/##g; s#$work/##g; s#$top/##g")"
	"$@"
}

if [ "$(id -u)" != 0 ]; then
	echo "the demo loads a program into the kernel: run it as root" >&2
	exit 1
fi

step "An ordinary XDP program becomes a bundle: clang's command line, uxdp-cc's name"
cp -r "$top/examples/load_balancer" "$work/load_balancer"
cd "$work/load_balancer"
run "$bin/uxdp-cc" -O2 -Wall -c load_balancer.c
run ls -l load_balancer.uxdp

step "A publisher's key, and a wheel whose bundle is signed with it"
run "$bin/uxdp" keygen -o "$work/publisher.pem"
export UXDP_SIGNING_KEY=$work/publisher.pem
run "$bin/pip" wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w "$work/dist" .
unset UXDP_SIGNING_KEY

step "A user's machine: a fresh virtual environment"
run "$bin/pip" wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w "$work/dist" "$top"
run "$bin/python" -m venv "$work/venv"
run "$work/venv/bin/pip" install --quiet --disable-pip-version-check --find-links "$work/dist" uxdp uxdp-load-balancer
user=$work/venv/bin
run "$user/uxdp" list

step "Nobody trusts that publisher yet: refused, with the line that would change it"
bundle=$("$user/uxdp" list --json | "$user/python" -c 'import json, sys; print(json.load(sys.stdin)["functions"][0]["path"])')
run "$user/uxdp" authenticate load_balancer && exit 1
run "$user/uxdp" trust add "$work/publisher.pem.pub" --names load_balancer
run "$user/uxdp" authenticate load_balancer
run "$user/uxdp" bind load_balancer
run "$user/uxdp" inspect load_balancer

step "The kernel's verifier judges it; then native code, compiled from its IR, must do what the kernel does"
run "$user/uxdp" verify load_balancer
run "$user/uxdp" test load_balancer -n 2000 --maps maps.json

step "Packets: a capture through the native code, with the maps that a control plane would have filled"
run "$user/python" "$top/examples/traffic.py" traffic.pcap 10000
run "$user/uxdp" replay load_balancer traffic.pcap -o sent.pcap --maps maps.json --dump

step "The very same file is an eBPF object: unmodified bpftool loads it"
mount -t bpf bpf "$work/bpf"
run bpftool prog load "$bundle" "$work/bpf/load_balancer" type xdp
run bpftool prog show pinned "$work/bpf/load_balancer"
rm "$work/bpf/load_balancer"

step "Live traffic, in network namespaces of their own: the same network function, native, on AF_XDP"
run "$user/python" "$top/examples/live_demo.py" "$user/uxdp" load_balancer

step "Done"
