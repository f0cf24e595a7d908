#!/usr/bin/env bash
# The part `node` of scripts/bench: a whole node, each figure beside its target. usage: benches/node.sh BINARY
#   N=100 BURST=30 IDLE=60   pods one after another, pods at once, seconds of idle
# Runs in a pretend host of its own; needs root. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/pretend-host
scripts/packages python3-yaml="the latency yardstick reads kubeconfigs" busybox-static="the image's programs" \
    iproute2="network namespaces" jq="reads JSON"
coracle=$1
work=$(mktemp -d /tmp/coracle-bench.XXXXXX)
root=$work/node
export KUBECONFIG=$root/kubeconfig
pretend_host "coracle-bench-$$"
server=
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    on_host "$coracle" reset --yes --root "$root" >/dev/null 2>&1 || true
    end_pretend_host
    rm -rf "$work"
}
trap finish EXIT
figure() { printf '%-58s %14s   target %s\n' "$1" "$2" "$3"; }
start() {
    $on_host "$coracle" server --root "$root" --node-name bench --listen 127.0.0.1:6443 >>"$work/log" 2>&1 &
    server=$!
}

figure "size of the binary" "$(awk -v b="$(stat -c %s "$coracle")" 'BEGIN {printf "%.1f MiB", b / 1048576}')" "≤ 20 MiB (shipped build)"

# Cold starts: the server logs how long it took from its first line to a Ready node.
starts=()
for _ in 1 2 3 4 5; do
    rm -rf "$root"; : >"$work/log"
    from=$(date +%s%N)
    start
    until grep -q 'node is ready' "$work/log"; do sleep 0.002; done
    starts+=($((($(date +%s%N) - from) / 1000000)))
    kill "$server"; wait "$server" 2>/dev/null || true
    on_host "$coracle" reset --yes --root "$root" >/dev/null 2>&1
done
figure "process start → node Ready, empty root, median of 5" "$(printf '%s\n' "${starts[@]}" | sort -n | sed -n 3p) ms" "≤ 500 ms"

scripts/image-layout "$work/image" localhost/bench:1
on_host "$coracle" image import --root "$root" "$work/image" >/dev/null
start
until grep -q 'node is ready' "$work/log"; do sleep 0.01; done
echo "-- pods one after another and at once (targets: Running p50 ≤ 50 ms, p99 ≤ 200 ms; gone p50 ≤ 30 ms; burst ≤ 0.7 s)"
on_host python3 benches/podlat.py localhost/bench:1 "${N:-100}" "${BURST:-30}"

echo "-- idle with 10 pods (targets: ≤ 40 MiB with 10 pods, shim ≤ 200 KiB each, ≤ 0.3 % of a core, ≤ 1 MiB per hour)"
for index in 0 1 2 3 4 5 6 7 8 9; do
    printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"idle-%s","namespace":"default"},"spec":{"containers":[{"name":"c","image":"localhost/bench:1","command":["sleep","1000000"]}]}}' $index
done | on_host python3 benches/create.py
sleep 5
on_host python3 benches/idle.py "${IDLE:-60}" "$coracle server" "$root/runtime/libexec"
