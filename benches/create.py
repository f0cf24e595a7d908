#!/usr/bin/env python3
"""Creates the pods on standard input (JSON objects, one after another) and waits until they run. usage: KUBECONFIG=… create.py"""
import json, sys, time

from cluster import connect

api = connect()


def ask(method, path, body=None):
    api.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    answer = api.getresponse()
    data = json.loads(answer.read())
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {data.get('message')}")
    return data


decoder, text, names = json.JSONDecoder(), sys.stdin.read(), []
while text.strip():
    pod, end = decoder.raw_decode(text.lstrip())
    text = text.lstrip()[end:]
    ask("POST", "/api/v1/namespaces/default/pods", pod)
    names.append(pod["metadata"]["name"])
for _ in range(600):
    phases = {p["metadata"]["name"]: p["status"].get("phase") for p in ask("GET", "/api/v1/namespaces/default/pods")["items"]}
    if all(phases.get(name) == "Running" for name in names):
        break
    time.sleep(0.1)
else:
    raise SystemExit(f"not all pods run: {phases}")
