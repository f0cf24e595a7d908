#!/usr/bin/env python3
"""Talking with pods of a node, beside what the machine does without it. Prints one figure a line.
usage: KUBECONFIG=… interactive.py PART …
  latency KUBECTL ROUNDS          `exec true` by a client of its own and by kubectl, beside the same clients' GET of nothing
  streams KUBECTL MIB ROUNDS FOLDER   exec, cp and port-forward beside plain loopback and TLS; FOLDER has cert.pem and key.pem
  followers COUNT SECONDS SERVER  what idle `logs -f` cost the process SERVER
  log KUBECTL MIB                 a log of 100 MB/s, and what its followers saw of it
Needs the pod `talks` of benches/interactive.sh. Both ends of the floors are Python over OpenSSL, as is the client, so that
what is compared differs in nothing but what lies between."""
import multiprocessing, os, socket, ssl, statistics, subprocess, sys, threading, time
from urllib.parse import urlencode

from cluster import connect

POD = "/api/v1/namespaces/default/pods/talks"
PIECE = 1 << 20
MB = 1e6


def query(**words):
    return urlencode({name: value for name, value in words.items() if value is not None}, doseq=True)


class Talk:
    """A connection of its own that speaks WebSocket, as kubectl does; the masks of a client are zeros, which cost nothing."""

    def __init__(self, path, protocol):
        api = connect()
        api.connect()
        self.socket, self.rest = api.sock, bytearray()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.socket.recv(4096) or sys.exit("the server hung up")
        answer, self.rest = bytes(self.rest).split(b"\r\n\r\n", 1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise SystemExit(f"{path}: {(answer + self.rest).decode(errors='replace')}")
        self.rest, self.room = bytearray(self.rest), memoryview(bytearray(PIECE))

    def say(self, channel, data):
        length = len(data) + 1
        head = b"\x82" + (bytes([0x80 | length]) if length < 126 else b"\xff" + length.to_bytes(8, "big"))
        self.socket.sendall(head + b"\0\0\0\0" + bytes([channel]) + data)

    def hear(self):
        """Yields channel and piece until the server closes; a piece may be a part of a message."""
        rest = self.rest
        while True:
            while (header := self.header(rest)) is None:
                if not (count := self.socket.recv_into(self.room)):
                    return
                rest += self.room[:count]
            kind, start, left = header
            channel = rest[start] if left else None
            piece = rest[start + 1 : start + left]
            del rest[: start + left]
            if kind == 8:
                return
            if kind == 9:
                # Who does not answer that it listens is told nothing for a second.
                self.socket.sendall(b"\x8a\x80\0\0\0\0")
            if kind in (1, 2) and channel is not None:
                left -= 1 + len(piece)
                yield channel, piece
                # What is long is read straight through, a record of TLS at a time.
                while left:
                    count = self.socket.recv_into(self.room, min(left, PIECE))
                    left -= count
                    yield channel, self.room[:count] if count else sys.exit("the server hung up")

    @staticmethod
    def header(rest):
        """Kind, length of the header and of the payload, if they are there with the byte of the channel."""
        if len(rest) < 2:
            return None
        size, start = rest[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:start], "big")
        return (rest[0] & 0xF, start, size) if len(rest) >= start + min(size, 1) else None

    def end(self):
        """All that was said on each channel."""
        said = {}
        for channel, piece in self.hear():
            said.setdefault(channel, bytearray()).extend(piece)
        self.socket.close()
        return said


def execute(*command, stdin=None):
    words = query(container="c", command=command, stdout="true", stdin=stdin and "true")
    return Talk(f"{POD}/exec?{words}", "v5.channel.k8s.io")


def succeed(talk):
    said = talk.end()
    if b'"Success"' not in said.get(3, b""):
        raise SystemExit(f"a command failed: {said}")


def timed(act, *arguments):
    began = time.monotonic()
    act(*arguments)
    return time.monotonic() - began


def quantile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def nothing():
    api = connect()
    api.request("GET", "/livez")
    api.getresponse().read()
    api.close()


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def container_process():
    """The first process of the pod's container, as the host numbers it."""
    for one in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{one}/cmdline", "rb").read() == b"sleep\x001000000000\0":
                return one
        except OSError:
            pass
    raise SystemExit("the pod's process is not to be found")


def latency(kubectl, rounds):
    process, rounds = container_process(), int(rounds)
    acts = {
        "setup": lambda: nothing(),
        "exec": lambda: succeed(execute("true")),
        "kubectl setup": lambda: run(kubectl, "get", "--raw", "/livez"),
        "kubectl exec": lambda: run(kubectl, "exec", "talks", "--", "true"),
        "nsenter": lambda: run("nsenter", f"--target={process}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "/bin/true"),
    }
    took = {name: [] for name in acts}
    # In turns, so that what else happens on the machine meets all of them alike.
    for turn in range(rounds + 2):
        for name, act in acts.items():
            length = timed(act) * 1000
            if turn >= 2:
                took[name].append(length)
            time.sleep(0.02)
    middle = {name: statistics.median(values) for name, values in took.items()}
    for name, words in (("exec", "own client"), ("kubectl exec", os.path.basename(kubectl))):
        before = middle["setup" if name == "exec" else "kubectl setup"]
        print(
            f"exec true, {words}: p50 {middle[name]:.1f} ms, p99 {quantile(took[name], 0.99):.1f} ms; GET /livez by the same "
            f"{before:.1f} ms, so {middle[name] - before:.1f} ms beyond TLS and HTTP set-up (n={rounds})   target ≤ 15 ms"
        )
    print(f"floor, nsenter into the same container and true, fork to reaped: p50 {middle['nsenter']:.1f} ms")


def give(listener, context, size):
    """The far end of a floor: gives `size` bytes to whoever comes, then waits until it goes."""
    block = bytes(65536)
    while True:
        one, _ = listener.accept()
        one = context.wrap_socket(one, server_side=True) if context else one
        for _ in range(size // len(block)):
            one.sendall(block)
        one.close()


def take(stream, size):
    room = memoryview(bytearray(PIECE))
    while size > 0:
        count = stream.recv_into(room)
        size -= count or sys.exit("a stream broke off")


def floor(size, folder):
    """Reads `size` bytes over loopback, with TLS if there is a folder with a key."""
    context, near = None, None
    if folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        near = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        near.check_hostname = False
    listener = socket.create_server(("127.0.0.1", 0))
    far = multiprocessing.Process(target=give, args=(listener, context, size), daemon=True)
    far.start()

    def act():
        stream = socket.create_connection(listener.getsockname())
        stream = near.wrap_socket(stream) if near else stream
        take(stream, size)
        stream.close()

    return act


def heard(talk, channel, size, skip=0):
    count = -skip
    for one, piece in talk.hear():
        if one == channel:
            count += len(piece)
            if channel == 0 and count >= size:
                break
    talk.socket.close()
    if count < size:
        raise SystemExit(f"{count} of {size} bytes came")


def forwarded(size):
    talk = Talk(f"{POD}/portforward?ports=8080", "v4.channel.k8s.io")
    talk.say(0, b"GET /big HTTP/1.0\r\n\r\n")
    heard(talk, 0, size, skip=2)


def fetch(port, size):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(b"GET /big HTTP/1.0\r\n\r\n")
    take(stream, size)
    stream.close()


def typed(size):
    talk, block = execute("sh", "-c", "cat > /dev/null", stdin=True), bytes(256 << 10)
    for _ in range(size // len(block)):
        talk.say(0, block)
    talk.say(255, b"\0")
    succeed(talk)


def forward(kubectl):
    process = subprocess.Popen([kubectl, "port-forward", "talks", ":8080"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, int(process.stdout.readline().split(":")[1].split()[0])


def streams(kubectl, mib, rounds, folder):
    size = int(mib) << 20
    zeros = ("dd", "if=/dev/zero", "bs=64k", f"count={size >> 16}")
    succeed(execute("sh", "-c", f"rm -f /www/big; head -c {size} /dev/zero > /www/big"))
    given, back = f"{folder}/given", f"{folder}/back"
    with open(given, "wb") as file:
        for _ in range(int(mib)):
            file.write(os.urandom(PIECE))
    forwarding, port = forward(kubectl)
    tar = "tar -C {0} -cf - given | tar -C {0}/to -xf -"
    os.mkdir(f"{folder}/to")
    acts = {
        "floor: loopback, plain": floor(size, None),
        "floor: loopback, TLS": floor(size, folder),
        "floor: tar | tar of the file that is copied": lambda: run("sh", "-c", tar.format(folder)),
        "exec, what a command says, own client": lambda: heard(execute(*zeros), 1, size),
        "exec, what a command is told, own client": lambda: typed(size),
        "exec, what a command says, kubectl": lambda: run(kubectl, "exec", "talks", "--", *zeros),
        "cp into the pod, kubectl": lambda: run(kubectl, "cp", given, "talks:/tmp/given"),
        "cp out of the pod, kubectl": lambda: run(kubectl, "cp", "talks:/tmp/given", back),
        "port-forward, own client": lambda: forwarded(size),
        "port-forward, kubectl": lambda: fetch(port, size),
    }
    rates = {name: [] for name in acts}
    for _ in range(int(rounds)):
        for name, act in acts.items():
            rates[name].append(size / MB / timed(act))
    run("cmp", given, back)
    forwarding.terminate()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    tls = middle["floor: loopback, TLS"]
    for name, rate in middle.items():
        goal = "" if name.startswith("floor") else f", 1/{tls / rate:.1f} of the TLS floor   target ≥ 500 MB/s or ≥ 1/2.0"
        print(f"{name}: {rate:.0f} MB/s{goal}")


def figures(server):
    fields = open(f"/proc/{server}/stat").read().rsplit(")", 1)[1].split()
    pss = next(int(line.split()[1]) for line in open(f"/proc/{server}/smaps_rollup") if line.startswith("Pss:"))
    files = [os.readlink(one) for one in map(f"/proc/{server}/fd/{{}}".format, os.listdir(f"/proc/{server}/fd")) if os.path.islink(one)]
    watches = sum("inotify" in one for one in files)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pss, len(files), watches


def follow(**words):
    api = connect()
    api.request("GET", f"{POD}/log?{query(container='c', follow='true', **words)}")
    answer = api.getresponse()
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    return api, answer


def followers(count, seconds, server):
    def window():
        began = figures(server)[0]
        time.sleep(float(seconds))
        return 100 * (figures(server)[0] - began) / float(seconds)

    still, before = window(), figures(server)
    held = [follow() for _ in range(int(count))]
    time.sleep(2)
    after, busy = figures(server), window()
    print(
        f"{len(held)} idle logs -f: {after[1] - before[1]} KiB of memory, {after[2] - before[2]} descriptors, of these "
        f"{after[3] - before[3]} of inotify; the server takes {busy:.2f} % of a core, {still:.2f} % without them"
    )


def lines():
    """10 MB of lines, each with its number."""
    return b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(100_000))


class Seen:
    """Compares a stream with the lines that were written, again and again."""

    def __init__(self):
        self.lines, self.at, self.count = lines(), 0, 0

    def take(self, piece):
        piece = memoryview(piece)
        while piece:
            part = piece[: len(self.lines) - self.at]
            if part != memoryview(self.lines)[self.at : self.at + len(part)]:
                raise SystemExit(f"what was followed differs from what was written after {self.count} bytes")
            self.at, self.count, piece = (self.at + len(part)) % len(self.lines), self.count + len(part), piece[len(part) :]


def log(kubectl, mib):
    rounds, one = int(mib) * PIECE // 10_000_000, lines()
    talk = execute("sh", "-c", "cat > /tmp/lines", stdin=True)
    for start in range(0, len(one), PIECE):
        talk.say(0, one[start : start + PIECE])
    talk.say(255, b"\0")
    succeed(talk)
    # 10 MB each tenth of a second; a container that is stopped by its full pipe is late, not short.
    script = f"for i in $(seq {rounds}); do sleep 0.1 & cat /tmp/lines > /proc/1/fd/1; wait; done"
    own, theirs, ends = Seen(), Seen(), {}
    api, answer = follow(sinceSeconds=1)
    client = subprocess.Popen([kubectl, "logs", "-f", "--since=1s", "talks"], stdout=subprocess.PIPE)
    time.sleep(2)
    began = time.monotonic()
    talk = execute("sh", "-c", script)
    wanted = rounds * len(one)

    def read(name, seen, next_piece):
        while seen.count < wanted:
            seen.take(next_piece() or sys.exit(f"{name}: the log broke off after {seen.count} bytes"))
        ends[name] = time.monotonic() - began

    threads = [
        threading.Thread(target=read, args=("own client", own, lambda: answer.read1(PIECE))),
        threading.Thread(target=read, args=("kubectl", theirs, lambda: os.read(client.stdout.fileno(), PIECE))),
    ]
    for thread in threads:
        thread.start()
    succeed(talk)
    written = time.monotonic() - began
    for thread in threads:
        thread.join(120)
    client.terminate()
    print(f"log of {wanted / MB:.0f} MB written in {written:.1f} s, {wanted / MB / written:.0f} MB/s   target 100 MB/s, nothing lost")
    for name, seen in (("own client", own), ("kubectl", theirs)):
        if name not in ends:
            raise SystemExit(f"logs -f, {name}: {seen.count} of {wanted} bytes came")
        print(f"logs -f, {name}: all {seen.count / MB:.0f} MB, each line once and in order, the last {1000 * (ends[name] - written):.0f} ms after the end")


PARTS = {"latency": latency, "streams": streams, "followers": followers, "log": log}
if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in PARTS:
        raise SystemExit(__doc__)
    PARTS[sys.argv[1]](*sys.argv[2:])
