#!/usr/bin/env python3
"""Measures the cluster's DNS beside a server that sends every datagram back. usage: dns.py DNS_LOAD"""
import os, statistics, subprocess, sys

load, seconds, rounds, services = sys.argv[1], os.environ.get("SECONDS_EACH", "3"), int(os.environ.get("ROUNDS", "3")), 5000
port = 20053
names = [f"s{number}.default.svc.cluster.local." for number in range(0, services, 50)]


def measure(server, clients):
    """Medians of several rounds, each with a server of its own."""
    global port
    found = []
    for _ in range(rounds):
        port += 1
        address = f"127.0.0.1:{port}"
        process = subprocess.Popen([load, *(word.replace("ADDRESS", address) for word in server)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        try:
            words = subprocess.run([load, "ask", address, seconds, str(clients), *names], check=True, capture_output=True, text=True).stdout.split()
        finally:
            process.kill()
            process.wait()
        found.append({name: int(value) for name, value in zip(words[::2], words[1::2])})
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


print(f"{services} Services, {len(names)} names, {rounds} rounds of {seconds} s, medians; client and server on the same processors")
for clients in (1, 16):
    own, floor = measure(["serve", "ADDRESS", str(services)], clients), measure(["echo", "ADDRESS"], clients)
    for name, unit in (("per_second", "questions/s"), ("p50_us", "µs p50"), ("p99_us", "µs p99"), ("p999_us", "µs p99.9")):
        target = "   target ≤ 1000" if name == "p99_us" else ""
        print(f"{clients:3} at a time  {own[name]:>9.0f} {unit:12} echo {floor[name]:>9.0f}{target}")
