"""Runs the four programs and a real Prometheus by deploy/observability/prometheus.yml, and evaluates every panel of the dashboard.

Everything happens in a network of its own, in which the names that the configuration looks up are served by a small
DNS server; so it needs Linux and root, and `prometheus` on the PATH (Debian: apt-get install prometheus).

usage: observe.py PROGRAMS, the folder with the four programs, such as target/debug
"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOSTS = {
    "gateway": ["127.0.1.1"],
    "preprocess": ["127.0.1.2"],
    # Two replicas, both of which discovery must find.
    "model": ["127.0.1.3", "127.0.1.4"],
    "postprocess": ["127.0.1.5"],
}
ALONE = "CONSORT_OBSERVE_ALONE"
PROMETHEUS = "http://127.0.0.1:9090/api/v1/"
PATIENCE = 90
MAY_BE_EMPTY = {"GPU utilization", "GPU memory", "Padding waste"}
"""Panels without data where there is no GPU, or where no run padded anything."""


def answer_names():
    """Answers questions for IPv4 addresses by HOSTS, and every other with no answer."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, client = server.recvfrom(512)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
        addresses = HOSTS.get(".".join(labels).lower())
        found = addresses if addresses and kind == 1 else []
        header = question[:2] + struct.pack("!HHHHH", 0x8180 if addresses else 0x8183, 1, len(found), 0, 0)
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(host) for host in found)
        server.sendto(header + question[12 : at + 5] + records, client)


def commands(programs):
    """The command line of each replica of each service."""
    for service, addresses in HOSTS.items():
        for address in addresses:
            command = [programs / f"consort-{service}", "--model-repository", ROOT / "model_repository"]
            command += ["--grpc-address", address, "--metrics-address", address]
            if service == "gateway":
                command += ["--http-address", address]
                command += [f"--stage={stage}=dns:///{stage}:8001" for stage in HOSTS if stage != "gateway"]
            yield command


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


def ask(path, **parameters):
    return json.loads(get(PROMETHEUS + path + "?" + urllib.parse.urlencode(parameters)))["data"]


def wait_for(what, is_so):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if is_so():
                return
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            sys.exit(f"{what}: waited {PATIENCE} s in vain")
        time.sleep(0.5)


def generate(**fields):
    body = json.dumps({"text_input": "Ownership is", "max_tokens": 8, **fields}).encode()
    request = urllib.request.Request("http://gateway:8000/generate", body)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def load(seconds):
    """Requests for so long, one in five of which the model refuses."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for top_p in (0.5, 0.6, 0.7, 0.8, 2.5):
            assert generate(top_p=top_p) == (400 if top_p > 1 else 200)


def targets():
    active = ask("targets", state="active")["activeTargets"]
    return sorted((target["labels"]["job"], target["health"]) for target in active)


def panels(dashboard):
    for panel in dashboard:
        for target in panel.get("targets", []):
            if "expr" in target:
                yield panel["title"], target["expr"]
        yield from panels(panel.get("panels", []))


def evaluate():
    """Says how many series each panel shows; gives the titles of those that should show some and do not."""
    dashboard = json.loads((ROOT / "deploy/observability/grafana/dashboards/consort.json").read_text(encoding="utf-8"))
    empty = []
    for title, expression in panels(dashboard["panels"]):
        for variable, value in {"$__rate_interval": "1m", "$service": ".*", "$model": ".*"}.items():
            expression = expression.replace(variable, value)
        series = ask("query", query=expression)["result"]
        print(f"{len(series):4} series  {title}")
        if not series and title not in MAY_BE_EMPTY:
            empty.append(title)
    return empty


def observe(programs):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = tempfile.mkdtemp()
    resolver = Path(folder, "resolv.conf")
    resolver.write_text("nameserver 127.0.0.1\n", encoding="utf-8")
    subprocess.run(["mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf")], check=True)
    threading.Thread(target=answer_names, daemon=True).start()
    config = ROOT / "deploy/observability/prometheus.yml"
    subprocess.run(["promtool", "check", "config", config], check=True)
    prometheus = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    prometheus.append("--web.listen-address=127.0.0.1:9090")
    with open(Path(folder, "log"), "w", encoding="utf-8") as log:
        started = [subprocess.Popen(command, stderr=log) for command in [*commands(programs), prometheus]]
        try:
            wait_for("the gateway", lambda: get("http://gateway:8000/v2/health/ready") == b"")
            expected = sorted((job, "up") for job, addresses in HOSTS.items() for _ in addresses)
            wait_for("every target to be up", lambda: targets() == expected)
            print("targets up:", ", ".join(job for job, _ in expected))
            load(25)
            empty = evaluate()
        finally:
            for process in started:
                process.kill()
    if empty:
        sys.exit(f"no data for: {', '.join(empty)}")


if __name__ == "__main__":
    if ALONE in os.environ:
        observe(Path(sys.argv[1]).resolve())
    else:
        alone = ["unshare", "--net", "--mount", sys.executable, __file__, *sys.argv[1:]]
        sys.exit(subprocess.run(alone, env={**os.environ, ALONE: "1"}, check=False).returncode)
