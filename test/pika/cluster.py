"""A cluster to test against: three nodes of `warren up`, or any that are there.

WARREN_URLS      addresses of three nodes of a running cluster, with commas
                 between; without it, `warren up` runs one
WARREN_RESTART   command that restarts that cluster and returns when it is ready
WARREN_BINARY    the binary to run; without it, one is built
"""

import os
import pathlib
import queue
import shlex
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = 3
PATIENCE = 180  # seconds until a cluster must be ready, or stopped
LOG_TAIL = 8000  # bytes of each node's log that a failure shows


class External:
    """A cluster that somebody else runs."""

    def __init__(self, urls, restart):
        self.urls = urls
        self._restart = restart
        self.can_restart = bool(restart)

    def restart(self):
        subprocess.run(shlex.split(self._restart), check=True, timeout=PATIENCE)

    def stop(self):
        pass

    def logs(self):
        return ""


class Up:
    """A cluster that `warren up` runs."""

    can_restart = True

    def __init__(self, binary, folder):
        self._binary = binary
        self._folder = folder
        self._base = free_base_port()
        self.urls = [f"amqp://guest:guest@127.0.0.1:{self._base + i}/" for i in range(NODES)]
        self._start()

    def _start(self):
        self._process = subprocess.Popen(
            [self._binary, "up", "--nodes", str(NODES), "--data-dir", self._folder, "--base-port", str(self._base)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout, self._lines), daemon=True).start()
        self._await_line("The cluster is ready")

    @staticmethod
    def _read(stdout, lines):
        for line in stdout:
            lines.put(line)
        lines.put(None)

    def _await_line(self, words):
        seen = []
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                self._process.kill()
                raise TimeoutError(f"warren up did not print {words!r} in {PATIENCE} s:\n{''.join(seen)}\n{self.logs()}")
            if line is None:
                raise RuntimeError(f"warren up ended:\n{''.join(seen)}\n{self.logs()}")
            seen.append(line)
            if words in line:
                return

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if code != 0:
            raise RuntimeError(f"warren up ended with {code}\n{self.logs()}")

    def restart(self):
        self.stop()
        self._start()

    def logs(self):
        parts = []
        for path in sorted(pathlib.Path(self._folder).glob("node*/warren.log")):
            parts.append(f"--- {path}\n{path.read_bytes()[-LOG_TAIL:].decode(errors='replace')}")
        return "\n".join(parts)


def free_base_port():
    """The lowest base port whose nine ports are free, below those of outgoing connections."""
    for base in range(10000 + os.getpid() % 1500, 12000, NODES):
        if all(free(base + offset + i) for offset in (0, 10000, 20000) for i in range(NODES)):
            return base
    raise RuntimeError("no free ports")


def free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start(folder):
    urls = os.environ.get("WARREN_URLS")
    if urls:
        return External(urls.split(","), os.environ.get("WARREN_RESTART"))
    binary = os.environ.get("WARREN_BINARY")
    if not binary:
        binary = str(folder / "warren")
        subprocess.run(["go", "build", "-o", binary, "./cmd/warren"], cwd=ROOT, check=True)
    return Up(os.path.abspath(binary), str(folder / "data"))
