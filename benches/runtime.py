#!/usr/bin/env python3
"""Container runtimes beside each other and beside the bare kernel work: crun, runc, ours and floor.c start the same bundle
below the same cgroup, taking turns round by round. Prints medians, each target beside its figure.
At the end the same for pods, which have a shim: lines of the example `shim_path` of runtime, each beside its target.
usage: runtime.py CORACLE WRITER SHIM_PATH [ROUNDS]   (WRITER: the example `bundle` of oci)

Every run is checked first: all of them must end up under the same restrictions (seccomp, capabilities, namespaces, groups).
Leaves nothing behind: groups are below /coracle-bench-PID, everything else is in a temporary folder."""
import ctypes, json, os, re, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
IDLE = 0.1  # seconds; after them the first writer of a v1 cgroup.procs waits for a grace period of RCU
# Of /proc/self/status, what must be the same in every container.
RESTRICTIONS = ["NoNewPrivs", "Seccomp", "CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"]


def say(*words):
    print(*words, flush=True)


def hierarchies():
    """Mounted control groups: the v2 tree, and v1 hierarchies by their labels."""
    v2, v1 = None, {}
    for line in open("/proc/self/mountinfo"):
        left, right = line.split(" - ")
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            v2 = v2 or left.split()[4]
        if kind == "cgroup":
            drop = {"rw", "ro", "xattr", "clone_children", "noprefix", "favordynmods", "cpuset_v2_mode"}
            label = ",".join(o for o in options.split(",") if o not in drop and not o.startswith("release_agent="))
            v1.setdefault(label, left.split()[4])
    return v2, v1


def own_mounts():
    """In a mount namespace of our own, lets the v2 tree of a hybrid host look as empty as crun insists on, for all alike."""
    c = ctypes.CDLL(None, use_errno=True)
    if c.unshare(0x20000) or c.mount(b"none", b"/", None, 0x44000, None):  # CLONE_NEWNS, MS_REC | MS_PRIVATE
        raise OSError(ctypes.get_errno(), "cannot have mounts of its own")
    v2, v1 = hierarchies()
    if v1 and v2 and Path(v2, "cgroup.controllers").read_text().strip():
        subprocess.run(["mount", "--bind", "/dev/null", f"{v2}/cgroup.controllers"], check=True)


# What a node promises of the path through the shim, by the names that shim_path gives.
SHIM_TARGETS = {"pod_start": (20, "pod start with network"), "exec": (3, "exec through the shim"), "shim_pss": (200, "memory of a shim (PSS)")}


def shim_path(program, rounds):
    say(f"\npods: {'':34s}{'median':>10s}{'min':>10s}{'p90':>10s}")
    measuring = subprocess.Popen([program, "--starts", str(rounds), "--execs", str(2 * rounds)], stdout=subprocess.PIPE, text=True)
    for line in measuring.stdout:
        if line.startswith("#") or ".warmup" in line:
            continue
        name, median, p90, least, _, _, unit = line.split()
        kind, _, rest = name.partition(".")
        # Parts of a whole have a name between that of the whole and the way of measuring.
        limit, words = SHIM_TARGETS.get(kind, (None, None)) if "." not in rest else (None, None)
        verdict = f"   target ≤ {limit} {unit}   {'met' if float(median) <= limit else 'MISSED'}" if limit else ""
        say(f"  {f'{words}, {rest}' if words else '  ' + name:38s}{median:>10s}{least:>10s}{p90:>10s} {unit:4s}{verdict}".rstrip())
    if measuring.wait():
        raise SystemExit("the measurement of pods failed")


class Bench:
    def __init__(self, coracle, writer, work):
        self.work, self.coracle, self.count = work, coracle, 0
        self.group = f"/coracle-bench-{os.getpid()}"
        self.v2, self.v1 = hierarchies()
        self.bundle = work / "bundle"
        self.root = self.bundle / "rootfs"
        for folder in ("bin", "proc", "dev", "sys", "tmp", "etc"):
            (self.root / folder).mkdir(parents=True)
        subprocess.run([writer, self.bundle, self.group], check=True)
        shutil.copy("/bin/busybox", self.root / "bin/busybox")
        self.compile("-x", "c", "-o", self.root / "bin/true", "-", input=b"int main(void) { return 0; }")
        self.compile("-o", work / "timed", HERE / "timed.c")
        self.compile("-I", self.bundle, "-o", work / "floor", HERE / "floor.c")
        self.runtimes = {name: [name, "--root", work / name] for name in ("crun", "runc")}
        # Whoever has no `oci` says so by a usage error.
        if subprocess.run([coracle, "oci", "--help"], capture_output=True).returncode == 0:
            self.runtimes["coracle"] = [coracle, "oci", "--root", work / "coracle"]

    def compile(self, *arguments, **options):
        subprocess.run(["gcc", "-O2", "-static", *arguments], check=True, **options)

    def groups(self):
        return [Path(mount + self.group) for mount in (*self.v1.values(), *filter(None, [self.v2]))]

    def fresh(self, name):
        """A bundle folder and the name of a container: its group must be its own. Not part of what is measured."""
        self.count += 1
        name = f"{name}-{self.count}"
        config = json.loads((self.bundle / "config.json").read_text())
        config["linux"]["cgroupsPath"] = f"{self.group}/{name}"
        config["root"]["path"] = str(self.root)
        return name, config

    def folder(self, name, config):
        folder = self.work / "bundles" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def floor(self, name, *program):
        used = {"cpu", "cpuacct", "memory", "pids", "devices", "freezer", "name=systemd"}  # oci/cgroup/host.rs, is_used
        mounts = [f"{label}:{mount}" for label, mount in self.v1.items() if used & set(label.split(","))]
        return [self.work / "floor", self.root, f"{self.group}/{name}", self.v2 or "-", *mounts, "--", *program]

    def run(self, who, change=None):
        """The command that runs the bundle to its end."""
        name, config = self.fresh(who)
        if change:
            config["process"].update(change)
        if who == "floor":
            return self.floor(name, *config["process"]["args"])
        return [*self.runtimes[who], "run", "--bundle", self.folder(name, config), name]

    def create_start_delete(self, who):
        name, config = self.fresh(who)
        tool = self.runtimes[who]
        create = [*tool, "create", "--bundle", self.folder(name, config), name]
        return [*create, ",", *tool, "start", name, ",", *tool, "delete", "--force", name]

    def check(self):
        """All do the same: prints what a process sees inside, and refuses to compare runtimes that differ in it."""
        seen = {}
        script = "busybox=/bin/busybox; $busybox cat /proc/self/status /proc/self/mounts; $busybox hostname; $busybox readlink /proc/self/ns/*"
        host = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net", "ipc", "uts", "mnt", "cgroup")}
        for who in [*self.runtimes, "floor"]:
            done = subprocess.run(self.run(who, {"args": ["/bin/busybox", "sh", "-c", script]}), capture_output=True, text=True)
            if "Seccomp:" not in done.stdout:
                raise SystemExit(f"{who} could not run the check: {done.stderr.strip()}")
            text = done.stdout
            seen[who] = {field: re.search(rf"^{field}:\s*(.*)$", text, re.M)[1] for field in RESTRICTIONS}
            seen[who]["mounts"] = len(re.findall(r"^\S+ /\S* \S+ \S+ 0 0$", text, re.M))
            seen[who]["hostname"] = bool(re.search(r"^bench$", text, re.M))
            seen[who]["shared"] = sorted(host & set(text.split()))
        for who, facts in seen.items():
            differing = [field for field in (*RESTRICTIONS, "hostname", "shared") if facts[field] != seen["crun"][field]]
            if differing:
                raise SystemExit(f"{who} differs from crun in {', '.join(differing)}: {facts} {seen['crun']}")
        counts = ", ".join(f"{who} {facts['mounts']}" for who, facts in seen.items())
        say(f"same restrictions in all: {', '.join(f'{k} {v}' for k, v in seen['crun'].items() if k in RESTRICTIONS[:4])}; mounts: {counts}")

    def measure(self, title, commands, rounds, idle):
        """Takes turns; whoever was first is last in the next round. Returns (wall ms, CPU ms, peak MiB) for each."""
        rows = {who: [] for who in commands}
        order = list(commands)
        for number in range(rounds + 2):
            for who in order:
                command = commands[who]()
                time.sleep(idle)
                done = subprocess.run([self.work / "timed", *command], stdout=subprocess.PIPE)
                if done.returncode:
                    raise SystemExit(f"{title}: {who} failed")
                if number >= 2:
                    wall, cpu, peak = map(int, done.stdout.split())
                    rows[who].append((wall / 1000, cpu / 1000, peak / 1024))
            order = order[1:] + order[:1]
        say(f"\n{title}, n = {rounds}" + (f", {IDLE * 1000:.0f} ms of idle before each" if idle else ", back to back"))
        say(f"{'':10s}{'wall ms':>10s}{'min':>8s}{'p90':>8s}{'CPU ms':>10s}{'peak MiB':>10s}")
        result = {}
        for who, values in rows.items():
            wall, cpu, peak = ([value[i] for value in values] for i in range(3))
            result[who] = tuple(map(statistics.median, (wall, cpu, peak)))
            p90 = sorted(wall)[int(len(wall) * 0.9)]
            say(f"{who:10s}{result[who][0]:10.2f}{min(wall):8.2f}{p90:8.2f}{result[who][1]:10.2f}{max(peak):10.2f}")
        return result

    def target(self, result, what, column, other, limit=None):
        if "coracle" in result and other in result:
            ratio = result["coracle"][column] / result[other][column]
            verdict = f"target ≤ {limit:.2f}   {'met' if ratio <= limit else 'MISSED'}" if limit else ""
            say(f"  {what + ' to ' + other:40s}{ratio:8.2f}   {verdict}".rstrip())

    def exec(self, rounds, idle):
        started = []
        try:
            for who, tool in self.runtimes.items():
                name, config = self.fresh(who)
                config["process"]["args"] = ["/bin/busybox", "sleep", "1000000"]
                folder = self.folder(name, config)
                nothing = subprocess.DEVNULL
                subprocess.run([*tool, "run", "--detach", "--bundle", folder, name], check=True, stdin=nothing, stdout=nothing)
                started.append((who, tool, name))
            process = self.bundle / "process.json"
            commands = {who: lambda tool=tool, name=name: [*tool, "exec", "--process", process, name] for who, tool, name in started}
            result = self.measure("exec of true into a running container", commands, rounds, idle)
            self.target(result, "exec: wall", 0, "crun", 1 / 3)
            self.target(result, "exec: peak memory", 2, "crun", 1)
        finally:
            for _, tool, name in started:
                subprocess.run([*tool, "delete", "--force", name], stderr=subprocess.DEVNULL)

    def all(self, rounds):
        for group in self.groups():
            group.mkdir()
        self.check()
        for idle in (0, IDLE):
            commands = {who: lambda who=who: self.run(who) for who in [*self.runtimes, "floor"]}
            result = self.measure("run of true, whole configuration", commands, rounds, idle)
            self.target(result, "run: wall", 0, "crun", 1 / 4)
            self.target(result, "run: wall", 0, "floor", 2)
            self.target(result, "run: peak memory", 2, "crun", 1)
            commands = {who: lambda who=who: self.create_start_delete(who) for who in self.runtimes}
            result = self.measure("create + start + delete", commands, rounds, idle)
            self.target(result, "create + start + delete: wall", 0, "crun")
            self.exec(rounds, idle)
        if "coracle" not in self.runtimes:
            say("\nno `oci` command in this binary of ours: nothing to compare")

    def remove(self):
        """Ends what a failure left, and removes the groups."""
        for parent in self.groups():
            for group, _, _ in os.walk(parent, topdown=False):
                for _ in range(200):
                    try:
                        for pid in Path(group, "cgroup.procs").read_text().split():
                            os.kill(int(pid), 9)
                        os.rmdir(group)
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.01)


def main():
    coracle, writer, shim = map(os.path.abspath, sys.argv[1:4])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 30
    # Whatever else runs on the machine shall disturb as little as may be; it holds for all alike.
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    versions = [subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.split("\n")[0] for tool in ("crun", "runc")]
    say(f"{', '.join(versions)}, Linux {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    own_mounts()
    with tempfile.TemporaryDirectory(prefix="coracle-bench.") as work:
        bench = Bench(coracle, writer, Path(work))
        try:
            bench.all(rounds)
        finally:
            bench.remove()
    shim_path(shim, rounds)


main()
