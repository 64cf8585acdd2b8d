"""Three nodes as processes of their own, so that a test can kill one of them.

The binary is WARREN_BINARY; without it, one is built.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import cluster
import pika
import programs

COUNT = cluster.NODES
HTTP_ABOVE, CLUSTER_ABOVE = 10000, 20000  # the ports of a node above its AMQP port
ASK_SECONDS = 20  # until a node must have answered a question


class Nodes:
    """A cluster of three. Nodes are counted from 0, as test/pika counts them."""

    def __init__(self, binary, folder):
        self._binary = os.path.abspath(binary)
        self._folder = pathlib.Path(folder)
        self._base = cluster.free_base_port()
        self._processes = [None] * COUNT
        self.urls = [f"amqp://guest:guest@127.0.0.1:{self.port(i)}/" for i in range(COUNT)]

    def port(self, node):
        return self._base + node

    def start(self, *nodes):
        """Starts nodes, all of them if none is named, and waits until every running one is ready."""
        for i in nodes or range(COUNT):
            self._processes[i] = self._launch(i)
        for i in self.running():
            programs.until(lambda: self._ready(i), f"node {i + 1} is ready", cluster.PATIENCE)

    def _launch(self, i):
        def at(above):
            return f"127.0.0.1:{self.port(i) + above}"

        peers = ",".join(f"127.0.0.1:{self.port(n) + CLUSTER_ABOVE}" for n in range(COUNT))
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._log(i), "ab") as log:
            return subprocess.Popen(
                [self._binary, "server", "--name", f"node{i + 1}", "--data-dir", str(self._folder / f"node{i + 1}")]
                + ["--amqp-listen", at(0), "--http-listen", at(HTTP_ABOVE)]
                + ["--cluster-listen", at(CLUSTER_ABOVE), "--cluster-advertise", at(CLUSTER_ABOVE)]
                + ["--join", peers, "--bootstrap-expect", str(COUNT)],
                stdout=log,
                stderr=log,
                preexec_fn=programs.die_with_parent,
            )

    def running(self):
        return [i for i, p in enumerate(self._processes) if p]

    def _ready(self, i):
        if self._processes[i].poll() is not None:
            raise RuntimeError(f"node {i + 1} ended with {self._processes[i].returncode}")
        try:
            self._get(i, "/readyz")
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def _get(self, i, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port(i) + HTTP_ABOVE}{path}", timeout=ASK_SECONDS) as answer:
            return answer.read()

    def kill(self, i):
        """kill -9"""
        self._processes[i].kill()
        self._processes[i].wait()
        self._processes[i] = None

    def declare(self, queue):
        """Makes a durable queue."""
        self._with_channel(lambda channel: channel.queue_declare(queue, durable=True))

    def drop(self, queue):
        """Deletes a queue, also one that is not there."""
        self._with_channel(lambda channel: channel.queue_delete(queue))

    def _with_channel(self, act):
        connection = pika.BlockingConnection(pika.URLParameters(self.urls[0]))
        act(connection.channel())
        connection.close()

    def status(self, i):
        """What `warren ctl status --json` prints, as node i sees it."""
        return json.loads(self._get(i, "/api/warren/status"))

    def queue(self, name, i=0):
        """A queue in the status of node i, or None."""
        return next((q for q in self.status(i)["queues"] if q["name"] == name), None)

    def leader(self, name, i=0):
        """The node that leads a queue, once node i knows it."""

        def known():
            status = self.status(i)
            leader = next((q["leader"] for q in status["queues"] if q["name"] == name), "")
            return next((m["name"] for m in status["members"] if m["id"] == leader), None)

        return int(programs.until(known, f"{name} has a leader").removeprefix("node")) - 1

    def stop(self):
        """Stops every node cleanly; one that does not is killed, and is a failure."""
        processes = [p for p in self._processes if p]
        for p in processes:
            p.terminate()
        deadline = time.monotonic() + cluster.PATIENCE
        try:
            codes = [p.wait(max(0, deadline - time.monotonic())) for p in processes]
        finally:
            for p in processes:
                p.kill()
                p.wait()
        if any(codes):
            raise RuntimeError(f"the nodes ended with {codes}")

    def _log(self, i):
        return self._folder / f"node{i + 1}.log"

    def logs(self):
        return "\n".join(
            f"--- {path}\n{path.read_bytes()[-cluster.LOG_TAIL:].decode(errors='replace')}" for path in sorted(self._folder.glob("*.log"))
        )
