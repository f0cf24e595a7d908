#!/usr/bin/env python3
"""Pods of a node under load, against its API. Prints one figure a line.
usage: KUBECONFIG=… pods.py PART IMAGE …
  burst IMAGE PODS                          that many pods at once: until all run, are ready, are gone
  exits IMAGE COUNT                         a process is killed: until the API's status of its container says so
  probes IMAGE PODS SECONDS SERVER GROUP    processor time that exec probes cost, one a second in every pod; SERVER is the
                                            process id of the node, GROUP the name of the cgroup of all its pods"""
import glob, http.client, json, os, signal, sys, threading, time

from cluster import connect

NAMESPACE = "/api/v1/namespaces/default"
local = threading.local()


def exchange(method, path, body):
    local.api = getattr(local, "api", None) or connect()
    local.api.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    return local.api.getresponse()


def ask(method, path, body=None):
    try:
        answer = exchange(method, path, body)
    except (http.client.HTTPException, ConnectionError):  # The server has closed a connection that was idle.
        local.api = None
        answer = exchange(method, path, body)
    data = json.loads(answer.read())
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {data.get('message')}")
    return data


class Watch:
    """When each pod was first seen to be something."""

    def __init__(self):
        self.seen, self.changed = {}, threading.Condition()
        self.revision = ask("GET", f"{NAMESPACE}/pods")["metadata"]["resourceVersion"]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        api, rest = connect(), b""
        api.request("GET", f"{NAMESPACE}/pods?watch=true&resourceVersion={self.revision}")
        answer = api.getresponse()
        while chunk := answer.read1(1 << 16):
            at = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.take(json.loads(line), at)

    def take(self, event, at):
        pod = event["object"]
        if pod.get("kind") != "Pod":
            return
        status = pod.get("status", {})
        conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
        ended = any("terminated" in one.get("state", {}) for one in status.get("containerStatuses", []))
        facts = {
            "running": status.get("phase") == "Running",
            "ready": conditions.get("Ready") == "True",
            "ended": ended,
            "gone": event["type"] == "DELETED",
        }
        with self.changed:
            own = self.seen.setdefault(pod["metadata"]["name"], {})
            for fact, holds in facts.items():
                if holds:
                    own.setdefault(fact, at)
            self.changed.notify_all()

    def until(self, names, fact, limit=600):
        end = time.monotonic() + limit
        with self.changed:
            while not all(fact in self.seen.get(name, {}) for name in names):
                if not self.changed.wait(max(0.01, end - time.monotonic())) and time.monotonic() > end:
                    raise SystemExit(f"not all pods became {fact} in {limit} s")
            return max(self.seen[name][fact] for name in names)


def pod(name, image, command, **spec):
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }


def create(pods):
    threads = [threading.Thread(target=ask, args=("POST", f"{NAMESPACE}/pods", one)) for one in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def remove(watch, names):
    ask("DELETE", f"{NAMESPACE}/pods")
    return watch.until(names, "gone")


def quantile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def burst(image, count):
    serve = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]
    watch, names = Watch(), [f"burst-{index}" for index in range(int(count))]
    began = time.monotonic()
    create([pod(name, image, serve) for name in names])
    running, ready = watch.until(names, "running") - began, watch.until(names, "ready") - began
    began = time.monotonic()
    gone = remove(watch, names) - began
    print(f"{count} pods at once: all run after {running:.2f} s, are ready after {ready:.2f} s, gone after {gone:.2f} s")


def process(words):
    """The process with this command line."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if open(path, "rb").read().rstrip(b"\0").split(b"\0") == words:
                return int(path.split("/")[2])
        except OSError:
            pass
    raise SystemExit(f"no process {words}")


def exits(image, count):
    watch, took = Watch(), []
    for index in range(int(count)):
        name, length = f"exit-{index}", str(10_000_000 + index)
        ask("POST", f"{NAMESPACE}/pods", pod(name, image, ["sleep", length], restartPolicy="Never"))
        watch.until([name], "running")
        one = process([b"sleep", length.encode()])
        at = time.monotonic()
        os.kill(one, signal.SIGKILL)
        took.append((watch.until([name], "ended") - at) * 1000)
    remove(watch, [f"exit-{index}" for index in range(int(count))])
    median, high = quantile(took, 0.5), quantile(took, 0.99)
    print(f"exit of a process -> status in the API: p50 {median:.1f} ms, p99 {high:.1f} ms, n={len(took)}")


def used(server, group):
    """Seconds of processor time of the node's process and of everything in the group of its pods."""
    fields = open(f"/proc/{server}/stat").read().rsplit(")", 1)[1].split()
    total = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    for place, scale in (("cpu,cpuacct", 1e9), ("cpuacct", 1e9)):
        path = f"/sys/fs/cgroup/{place}/{group}/cpuacct.usage"
        if os.path.exists(path):
            return total + int(open(path).read()) / scale
    for path in glob.glob(f"/sys/fs/cgroup/{group}/cpu.stat"):
        return total + int(open(path).read().split()[1]) / 1e6
    raise SystemExit(f"no cgroup {group} that counts processor time")


def of_window(server, group, seconds):
    before, began = used(server, group), time.monotonic()
    time.sleep(seconds)
    return (used(server, group) - before) / (time.monotonic() - began)


def of_command(runs=300):
    """Seconds of processor time that the probe's command takes by itself, started from here."""
    before = os.times()
    for _ in range(runs):
        os.waitpid(os.posix_spawn("/bin/busybox", ["true"], {}), 0)
    after = os.times()
    return (after.children_user + after.children_system - before.children_user - before.children_system) / runs


def probes(image, count, seconds, server, group):
    count, seconds, watch = int(count), float(seconds), Watch()
    shares = {}
    for kind in ("still", "probed"):
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
        own = {"container": {"livenessProbe": probe}} if kind == "probed" else {}
        names = [f"{kind}-{index}" for index in range(count)]
        create([pod(name, image, ["sleep", "1000000"], **own) for name in names])
        watch.until(names, "ready")
        time.sleep(5)
        shares[kind] = of_window(server, group, seconds)
        remove(watch, names)
    cost, command = shares["probed"] - shares["still"], of_command() * count
    print(
        f"{count} pods with an exec probe each second: {100 * cost:.2f} % of a core, of which the command itself takes "
        f"{100 * command:.2f} %, so {100 * (cost - command):.2f} % beyond it (without probes {100 * shares['still']:.2f} %)"
    )


PARTS = {"burst": burst, "exits": exits, "probes": probes}
if len(sys.argv) < 3 or sys.argv[1] not in PARTS:
    raise SystemExit(__doc__)
PARTS[sys.argv[1]](*sys.argv[2:])
