#!/usr/bin/env bash
# The part `pods` of scripts/bench: many pods, their probes and their ends, beside `podman kube play`. usage: benches/pods.sh BINARY
#   PODS=110 EXITS=100 PROBED=100 WINDOW=60   pods at once, ends of processes, pods with probes, seconds of measuring
# Runs in a pretend host of its own; needs root. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/pretend-host
scripts/packages python3-yaml="reads kubeconfigs" busybox-static="the image's programs" iproute2="network namespaces"
coracle=$1
work=$(mktemp -d /tmp/coracle-bench.XXXXXX)
root=$work/node
export KUBECONFIG=$root/kubeconfig
pretend_host "coracle-bench-$$"
server=
# Podman's own groups are removed if nobody had made any.
podmans=$(find /sys/fs/cgroup -maxdepth 2 -type d -name libpod_parent)
: >"$work/log"
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    on_host "$coracle" reset --yes --root "$root" >/dev/null 2>&1 || true
    [ ! -d "$work/podman" ] || podman_ pod rm --all --force --time 0 >/dev/null 2>&1 || true
    end_pretend_host
    awk -v at="$work/" 'index($5, at) == 1 {print $5}' /proc/self/mountinfo | sort -r | xargs -r umount 2>/dev/null || true
    [ -n "$podmans" ] || find /sys/fs/cgroup -depth -type d -path "*/libpod_parent*" -exec rmdir {} \; 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

scripts/image-layout "$work/image" localhost/bench:1
on_host "$coracle" image import --root "$root" "$work/image" >/dev/null
$on_host "$coracle" server --root "$root" --node-name bench --listen 127.0.0.1:6443 --max-pods 250 >>"$work/log" 2>&1 &
server=$!
until grep -q 'node is ready' "$work/log"; do
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.02
done
tag=$(on_host nft list tables | sed -n 's/^table inet coracle-//p' | head -1)
echo "-- targets: 30 pods at once run in ≤ 0.7 s (PODS=30); 100 probes a second take ≤ 2 % of a core beyond their command"
on_host python3 benches/pods.py burst localhost/bench:1 "${PODS:-110}"
on_host python3 benches/pods.py exits localhost/bench:1 "${EXITS:-100}"
on_host python3 benches/pods.py probes localhost/bench:1 "${PROBED:-100}" "${WINDOW:-60}" "$server" "kubepods-$tag"

# Podman has no API server, so what a user waits for is its command; its pods get no network here, which is in its favour.
if ! scripts/packages podman="measured beside us" crun="podman's runtime" runc="podman's other runtime" conmon="podman's shim" catatonit="podman's pause process" fuse-overlayfs="podman's storage asks for it"; then
    echo "SKIP podman kube play: not installable here"
    exit 0
fi
runtime=crun
podman_() {
    on_host podman --root "$work/podman/storage" --runroot "$work/podman/run" --tmpdir "$work/podman/tmp" \
        --storage-driver overlay --cgroup-manager cgroupfs --events-backend none --runtime "$runtime" "$@"
}
pods() { # FIRST COUNT
    local index
    for ((index = $1; index < $1 + $2; index++)); do
        printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: play-%s}\nspec: {containers: [{name: c, image: localhost/bench:1, imagePullPolicy: Never, command: [sleep, "20000%s"]}]}\n' "$index" "$index"
    done
}
quantiles() { sort -n | awk '{v[NR] = $1} END {printf "p50 %.1f ms, p99 %.1f ms, n=%d\n", v[int((NR + 1) / 2)], v[int(NR * 0.99 + 0.99)], NR}'; }
now() { date +%s%N; }
mkdir -p "$work/podman"
# Podman would raise limits, which not every root may.
printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' "$(ulimit -Sn)" "$(ulimit -Hn)" "$(ulimit -Su)" "$(ulimit -Hu)" |
    sed 's/unlimited/-1/g' >"$work/containers.conf"
export CONTAINERS_CONF=$work/containers.conf
tar -C "$work/image" -cf "$work/image.tar" .
podman_ load --quiet --input "$work/image.tar" >/dev/null
pods 9000 1 >"$work/play.yaml"
# Each of the runtimes refuses some hosts.
for runtime in crun runc none; do
    [ "$runtime" != none ] || { echo "SKIP podman kube play: $(head -n 1 "$work/why")"; exit 0; }
    if podman_ kube play --network none "$work/play.yaml" >/dev/null 2>"$work/why"; then break; fi
    podman_ pod rm --all --force --time 0 >/dev/null 2>&1 || true
done
podman_ kube down "$work/play.yaml" >/dev/null
echo "-- podman $(podman_ version --format '{{.Client.Version}}') with $runtime, kube play"
for ((index = 0; index < ${PLAYS:-20}; index++)); do
    pods "$index" 1 >"$work/play.yaml"
    from=$(now)
    podman_ kube play --network none "$work/play.yaml" >/dev/null
    echo $((($(now) - from) / 1000)) | awk '{print $1 / 1000}' >>"$work/plays"
    process=$(pgrep -f "^sleep 20000$index\$" | head -1)
    podman_ wait "play-$index-c" >/dev/null &
    waiting=$!
    sleep 0.5
    from=$(now)
    kill -KILL "$process"
    wait "$waiting"
    echo $((($(now) - from) / 1000)) | awk '{print $1 / 1000}' >>"$work/waits"
    podman_ kube down "$work/play.yaml" >/dev/null
done
echo "one pod, command until it runs: $(quantiles <"$work/plays")"
echo "exit of a process -> podman wait returns: $(quantiles <"$work/waits")"
pods 1000 "${PODS:-110}" >"$work/play.yaml"
from=$(now)
podman_ kube play --network none "$work/play.yaml" >/dev/null
echo "${PODS:-110} pods at once: all run after $(awk -v ns=$(($(now) - from)) 'BEGIN {printf "%.2f", ns / 1e9}') s"
podman_ kube down "$work/play.yaml" >/dev/null
