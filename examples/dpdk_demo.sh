#!/usr/bin/env bash
# A load balancer on DPDK: testpmd plays a capture into one end of a memif, uxdp serves the other, what comes back is
# captured, and compared with what `uxdp replay` says. In a temporary folder and a network namespace of its own.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/.venv/bin
work=$(mktemp -d /tmp/uxdp-demo.XXXXXX)
where=uxdp-demo-$$
frames=10000
export UXDP_SYSTEM_CONFIG=$work/etc UXDP_STATE_DIR=$work/state UXDP_CACHE_DIR=$work/cache UXDP_RUN_DIR=$work/run HOME=$work/home XDG_CONFIG_HOME=$work/home/.config
mkdir -p "$HOME" "$UXDP_RUN_DIR"
children=()

cleanup() {
	for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
	wait
	ip netns del "$where" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
	printf '$ %s\n' "$(printf '%s ' "$@" | sed "s#$bin/##g; s#$work/##g; s#$top/##g; s#ip netns exec $where ##")"
	"$@"
}
# until COMMAND...: wait for it, but not for long
await() {
	for _ in $(seq 100); do
		"$@" && return 0
		sleep 0.1
	done
	echo "not within 10 s: $*" >&2
	cat ./*.log >&2
	exit 1
}

if [ "$(id -u)" != 0 ]; then
	echo "the demo loads a program into the kernel: run it as root" >&2
	exit 1
fi
ip netns add "$where"
# The stack would send frames of its own, by the TAP interface, through the port.
ip netns exec "$where" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1

step "The load balancer of make demo, as a bundle, and a capture to play"
cp -r "$top/examples/load_balancer" "$work/load_balancer"
cd "$work/load_balancer"
run "$bin/uxdp-cc" -O2 -c load_balancer.c
run "$bin/python" "$top/examples/traffic.py" traffic.pcap $frames

step "uxdp serves it on a memif; the glue is compiled against the DPDK that is installed here"
command=("$bin/uxdp" serve load_balancer.uxdp --insecure-unsigned --maps maps.json --power pause
	--dpdk-vdev "net_memif0,role=server,socket=$work/memif.sock")
printf '$ %s\n' "$(printf '%s ' "${command[@]}" | sed "s#$bin/##g; s#$work/##g")"
ip netns exec "$where" "${command[@]}" >serve.log 2>&1 &
children+=($!)
await grep -q "serves" serve.log
cat serve.log

# Rings of 2^14 frames: the capture comes as fast as it is read, and all of it has room.
step "testpmd plays the capture into the other end, and captures what comes back"
mkfifo hold
ip netns exec "$where" dpdk-testpmd --lcores 0-1 --no-shconf --no-pci --no-telemetry --no-huge -m 256 \
	--vdev "net_pcap0,rx_pcap=traffic.pcap,tx_pcap=sent.pcap" \
	--vdev "net_memif0,role=client,rsize=14,socket=$work/memif.sock" \
	-- --total-num-mbufs=16384 --nb-cores=1 --forward-mode=io --no-flush-rx --disable-link-check -i <hold >testpmd.log 2>&1 &
children+=($!)
exec 3>hold
await grep -q "the link is up" serve.log
echo start >&3
all_received() {
	"$bin/uxdp" stats load_balancer --json | "$bin/python" -c "
import json, sys
sys.exit(sum(queue['rx_frames'] for queue in json.load(sys.stdin)['queues']) < $frames)"
}
await all_received
sleep 0.5
run "$bin/uxdp" stats load_balancer
run "$bin/uxdp" status
run ip netns exec "$where" ip -brief link show net_memif0
echo quit >&3 # its captures are complete then
exec 3>&-
wait "${children[1]}" || true

step "Byte for byte what replay says"
run "$bin/uxdp" replay load_balancer.uxdp traffic.pcap -o expected.pcap --maps maps.json --insecure-unsigned
"$bin/python" - <<'EOF'
from uxdp_runtime.frames.capture import read_capture

sent, expected = ([frame.data for frame in read_capture(name)] for name in ("sent.pcap", "expected.pcap"))
assert sent == expected, f"{len(sent)} frames were sent, {len(expected)} expected"
print(f"{len(sent)} frames, the same in the same order")
EOF
run "$bin/uxdp" stop load_balancer
tail -n 2 serve.log

step "Done"
