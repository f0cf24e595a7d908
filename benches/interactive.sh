#!/usr/bin/env bash
# The part `interactive` of scripts/bench: talking with pods, beside the floors of the machine. usage: benches/interactive.sh BINARY
#   ROUNDS=50 MIB=512 REPEATS=3 FOLLOWERS=50 WINDOW=20   execs, size of a stream, how often, logs followed, seconds of idle
# Runs in a pretend host of its own; needs root. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/pretend-host
scripts/packages python3-yaml="reads kubeconfigs" busybox-static="the image's programs" iproute2="network namespaces" \
    openssl="a key for the TLS floor"
coracle=$1
usual=$(command -v kubectl || true)
[ -n "$usual" ] || { scripts/packages kubernetes-client="measured as a client" && usual=/usr/bin/kubectl; }
kubectl=$(printf '%s\n' "$(dirname "$(readlink -f "$usual")")"/kubectl.1.* | tail -n 1)
[ -x "$kubectl" ] || kubectl=$(readlink -f "$usual")
work=$(mktemp -d /tmp/coracle-bench.XXXXXX)
root=$work/node
export KUBECONFIG=$root/kubeconfig HOME=$work/home
mkdir "$HOME"
pretend_host "coracle-bench-$$"
server=
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    on_host "$coracle" reset --yes --root "$root" >/dev/null 2>&1 || true
    end_pretend_host
    rm -rf "$work"
}
trap finish EXIT
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=floor -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
scripts/image-layout "$work/image" localhost/bench:1
on_host "$coracle" image import --root "$root" "$work/image" >/dev/null
$on_host "$coracle" server --root "$root" --node-name bench --listen 127.0.0.1:6443 >"$work/log" 2>&1 &
server=$!
until grep -q 'node is ready' "$work/log"; do
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.02
done
on_host python3 benches/create.py <<'Y'
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"talks","namespace":"default"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"localhost/bench:1","command":["sh","-c","httpd -p 8080 -h /www; exec sleep 1000000000"]}]}}
Y
on_host "$kubectl" wait --for=condition=Ready pod/talks --timeout=60s >/dev/null
echo "-- exec, by $(basename "$kubectl") and by a client that does nothing else"
on_host python3 benches/interactive.py latency "$kubectl" "${ROUNDS:-50}"
echo "-- streams of ${MIB:-512} MiB, median of ${REPEATS:-3}"
on_host python3 benches/interactive.py streams "$kubectl" "${MIB:-512}" "${REPEATS:-3}" "$work"
echo "-- logs"
on_host python3 benches/interactive.py followers "${FOLLOWERS:-50}" "${WINDOW:-20}" "$server"
on_host python3 benches/interactive.py log "$kubectl" "${MIB:-512}"
