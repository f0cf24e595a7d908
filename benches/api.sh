#!/usr/bin/env bash
# The part `api` of scripts/bench: an API server without a node under load, each figure beside its target.
# usage: benches/api.sh BINARY WATCHERS_PROGRAM
#   D=10s                    how long each load lasts
# Listens on loopback in a network namespace of its own; needs root. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/pretend-host
scripts/packages wrk="load on the API" curl="single requests" jq="reads JSON" iproute2="network namespaces" python3="fills the store"
coracle=$1 watchers=$2
work=$(mktemp -d /tmp/coracle-bench.XXXXXX)
root=$work/api
pretend_host "coracle-bench-$$"
server=
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    end_pretend_host
    rm -rf "$work"
}
trap finish EXIT
token=$(head -c 24 /dev/urandom | base64 | tr -d '/+=')
echo "$token,bench,bench,\"system:masters\"" >"$work/tokens"
chmod 600 "$work/tokens"
url=https://127.0.0.1:6443
api() { on_host curl -sk -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"; }
start() {
    $on_host "$coracle" server --root "$root" --disable-agent --listen 127.0.0.1:6443 --token-auth-file "$work/tokens" >>"$work/log" 2>&1 &
    server=$!
    until api -o /dev/null -f "$url/readyz" 2>/dev/null; do sleep 0.005; done
}
stop() { kill "$server"; wait "$server" 2>/dev/null || true; server=; }
figure() { printf '%-56s %s\n' "$1" "$2"; }
memory() { awk '/^Rss:/ {r += $2} /^Pss:/ {p += $2} END {printf "%.1f", p / 1024}' "/proc/$server/smaps_rollup"; }

# What one durable write costs this disk, for comparison.
sync_floor() {
    python3 - "$work/floor" <<'PY'
import os, statistics, sys, time
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
took = []
for _ in range(300):
    os.write(f, b"x" * 4096)
    start = time.perf_counter()
    os.fdatasync(f)
    took.append(time.perf_counter() - start)
print(f"{statistics.median(took) * 1e3:.2f} ms")
PY
}
figure "fdatasync of 4 KiB, median" "$(sync_floor)"

start
pad=$(head -c 1400 /dev/zero | tr '\0' x)
cat >"$work/post.lua" <<LUA
wrk.method = "POST"; wrk.headers["Authorization"] = "Bearer $token"; wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"metadata":{"generateName":"b-","labels":{"app":"bench"}},"data":{"k":"$pad"}}'
done = function(s, l, r) io.write(string.format("%.0f/s, errors %d, p50 %.2f ms, p99 %.2f ms\n", s.requests/(s.duration/1e6), s.errors.status, l:percentile(50)/1e3, l:percentile(99)/1e3)) end
LUA
sed 's/"POST"/"GET"/; /wrk.body/d' "$work/post.lua" >"$work/get.lua"
objects=$url/api/v1/namespaces/bench/configmaps
api -o /dev/null -X POST "$url/api/v1/namespaces" -d '{"metadata":{"name":"bench"}}'
load() { on_host wrk "$@" | tail -1; }
# What a request costs that neither reads nor writes the store: the connection is kept, so this is TLS records and HTTP.
figure "request without the store (/version), 1 connection" "$(load -t1 -c1 -d"${D:-10s}" -s "$work/get.lua" "$url/version")   floor of the next"
figure "durable creates, 1 connection" "$(load -t1 -c1 -d"${D:-10s}" -s "$work/post.lua" "$objects")   target p50 ≤ fdatasync + /version + 0.5 ms"
figure "durable creates, 32 connections" "$(load -t2 -c32 -d"${D:-10s}" -s "$work/post.lua" "$objects")   target ≥ 5000/s"
one=$(api "$objects?limit=1" | jq -r '.items[0].metadata.name')
figure "gets, 32 connections" "$(load -t2 -c32 -d"${D:-10s}" -s "$work/get.lua" "$objects/$one")   target ≥ 20000/s"
stop

# A store of a known size: as many objects as asked for, of 1.5 KiB each.
fill() { # COUNT
    api -o /dev/null -X POST "$url/api/v1/namespaces" -d '{"metadata":{"name":"bench"}}'
    while [ "$(api "$objects?limit=1" | jq '(.items | length) + (.metadata.remainingItemCount // 0)')" -lt "$1" ]; do
        load -t2 -c32 -d2s -s "$work/post.lua" "$objects" >/dev/null
    done
}
rm -rf "$root"; start
empty=$(memory)
fill 16000
count=$(api "$objects?limit=1" | jq '(.items | length) + (.metadata.remainingItemCount // 0)')
for _ in 1 2 3 4 5; do api -o /dev/null -w '%{time_total}\n' "$objects?limit=16000&resourceVersion=0"; done | sort -n >"$work/lists"
figure "list of 16,000 objects, median of 5" "$(sed -n 3p "$work/lists") s   target ≤ 0.15 s"
for _ in 1 2 3 4 5; do api -o /dev/null -w '%{time_total}\n' "$objects"; done | sort -n >"$work/lists"
figure "list of all $count objects, median of 5" "$(sed -n 3p "$work/lists") s"
sleep 12 # freed memory goes back to the system by then
figure "memory (PSS), $count objects of 1.5 KiB" "$(memory) MiB, $empty MiB when empty"
stop; rm -rf "$root"; start
empty=$(memory)
api -o /dev/null -X POST "$url/api/v1/namespaces" -d '{"metadata":{"name":"bench"}}'
until api -f -o /dev/null "$url/api/v1/namespaces/bench/serviceaccounts/default" 2>/dev/null; do sleep 0.05; done
cat >"$work/pods.lua" <<LUA
-- So many pods in all, whichever thread sends them; each is bound, as most are, to a node that nobody plays.
local sent = 0
wrk.headers["Authorization"] = "Bearer $token"; wrk.headers["Content-Type"] = "application/json"
function request()
  sent = sent + 1
  if sent > 10000 then return wrk.format("GET", "/version") end
  local name = "p" .. sent
  return wrk.format("POST", nil, nil, '{"metadata":{"name":"' .. name .. '","labels":{"app":"bench","pod":"' .. name ..
    '"}},"spec":{"nodeName":"none","containers":[{"name":"c","image":"example.com/image:1","env":[{"name":"A","value":"b"}],' ..
    '"resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}')
end
LUA
pods=$url/api/v1/namespaces/bench/pods
count() { api "$pods?limit=1" | jq '(.items | length) + (.metadata.remainingItemCount // 0)'; }
on_host wrk -t1 -c32 -d"${D:-10s}" -s "$work/pods.lua" "$pods" >/dev/null
made=$(count)
api -o /dev/null "$pods?resourceVersion=0" # whatever a reader makes the server keep is kept
sleep 12
figure "memory (PSS), $made pods" "$(memory) MiB, $empty MiB when empty   $(awk -v a="$(memory)" -v e="$empty" -v n="$made" 'BEGIN {printf "%.1f", (a - e) * 10000 / n}') MiB per 10,000 pods"
stop; rm -rf "$root"; start
figure "1,000 watchers of one object each, 200 updates/s" "$(on_host "$watchers" "$root/kubeconfig" 1000 200 10 own)   target p99 ≤ 20 ms"
figure "1,000 watchers of all, 20 updates/s" "$(on_host "$watchers" "$root/kubeconfig" 1000 20 10)"
figure "1,000 watchers of all, 200 updates/s" "$(on_host "$watchers" "$root/kubeconfig" 1000 200 10)   target p99 ≤ 20 ms"
stop; rm -rf "$root"; start
fill 100000
stop
from=$(date +%s%N)
start
figure "start with 100,000 objects of 1.5 KiB → ready" "$((($(date +%s%N) - from) / 1000000)) ms, $(memory) MiB"
stop
