#!/usr/bin/env python3
"""The official Python client talking with pods: commands, attachments and forwarded ports.
usage: KUBECONFIG=… sessions.py      Needs the pods of scripts/interactive. Prints `ok NAME` or `not ok NAME: why` for each
scenario and fails if any failed."""
import sys, time, traceback

from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()
NAMESPACE = "default"


def expect(condition, words=""):
    if not condition:
        raise AssertionError(words)


def run(script, **options):
    asked = dict(stdin=False, stdout=True, stderr=True, tty=False, container="c")
    asked.update(options)
    return stream(core.connect_get_namespaced_pod_exec, "talks", NAMESPACE, command=["sh", "-c", script], **asked)


def the_output_of_a_command_is_its_answer():
    expect(run("echo out; echo err >&2") in ("out\nerr\n", "err\nout\n"))


def a_command_is_talked_with_and_has_an_exit_code():
    talk = run("read line; echo heard $line; exit 3", stdin=True, _preload_content=False)
    talk.write_stdin("you\n")
    talk.run_forever(timeout=20)
    expect(talk.read_stdout() == "heard you\n")
    expect(talk.returncode == 3, talk.returncode)
    talk.close()


def a_lot_of_output_is_whole():
    talk = run("head -c 5000000 /dev/zero | tr '\\0' x", _preload_content=False)
    length = 0
    while talk.is_open():
        talk.update(timeout=20)
        length += len(talk.read_stdout(timeout=0) or "")
    expect(length == 5_000_000, length)


def a_container_is_talked_with():
    talk = stream(core.connect_get_namespaced_pod_attach, "repeats", NAMESPACE, container="c", stdin=True, stdout=True,
                  stderr=True, tty=False, _preload_content=False)
    talk.write_stdin("from python\n")
    heard = ""
    end = time.monotonic() + 20
    while "heard from python" not in heard and time.monotonic() < end:
        talk.update(timeout=1)
        heard += talk.read_stdout(timeout=0) or ""
    talk.close()
    expect("heard from python" in heard, heard)


def ports_are_forwarded_and_a_refused_one_leaves_the_others():
    forward = portforward(core.connect_get_namespaced_pod_portforward, "talks", NAMESPACE, ports="8080,9")
    refused = forward.socket(9)
    refused.setblocking(True)
    end = time.monotonic() + 20
    while not forward.error(9) and time.monotonic() < end:
        time.sleep(0.05)
    expect("failed to connect to localhost:9 inside namespace" in (forward.error(9) or ""), forward.error(9))
    served = forward.socket(8080)
    served.setblocking(True)
    served.settimeout(20)
    served.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while b"served" not in answer:
        piece = served.recv(65536)
        expect(piece, answer)
        answer += piece
    served.close()
    expect(forward.error(8080) is None, forward.error(8080))


failed = 0
scenarios = [the_output_of_a_command_is_its_answer, a_command_is_talked_with_and_has_an_exit_code, a_lot_of_output_is_whole,
             a_container_is_talked_with, ports_are_forwarded_and_a_refused_one_leaves_the_others]
for scenario in scenarios:
    name = "python: " + scenario.__name__.replace("_", " ")
    try:
        scenario()
        print("ok", name, flush=True)
    except Exception as error:
        failed += 1
        print(f"not ok {name}: {error}", flush=True)
        traceback.print_exc()
sys.exit(failed > 0)
