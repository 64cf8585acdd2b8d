"""Programs in other languages: started with their own process group, read line by line, ended with the test."""

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 90  # seconds that a condition may take to become true
POLL = 0.02  # seconds between two looks at it
PR_SET_PDEATHSIG = 1


def until(condition, what, patience=PATIENCE):
    """The first truth that condition() gives."""
    deadline = time.monotonic() + patience
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {patience} s in vain: {what}")
        time.sleep(POLL)


def die_with_parent():
    """Run in a child on Linux: should this process be killed, the child is as well.

    To Linux the parent is the thread that has started the child: use the main one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """A running program; what it prints is kept."""

    def __init__(self, command, env=None, cwd=None):
        self.lines = []
        self._name = os.path.basename(command[0])
        self._unread = queue.Queue()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._unread.put(self.lines[-1])
        self._unread.put(None)

    def await_line(self, words, patience=PATIENCE):
        """The next line with these words in it."""
        deadline = time.monotonic() + patience
        while True:
            try:
                line = self._unread.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"{self._name} did not print {words!r} in {patience} s:\n{self.text()}") from None
            if line is None:
                self._unread.put(None)
                raise RuntimeError(f"{self._name} ended before it printed {words!r}:\n{self.text()}")
            if words in line:
                return line

    def await_lines(self, *lines):
        """Waits for lines in any order, each of them whole."""
        missing = set(lines)
        while missing:
            missing.discard(self.await_line(""))

    def tell(self, line):
        """Sends a line to the program's standard input."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def finish(self, patience=PATIENCE):
        """Waits for the program to end well, and returns all that it printed."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._name} had not ended after {patience} s:\n{self.text()}") from None
        self._reader.join(PATIENCE)
        if code != 0:
            raise AssertionError(f"{self._name} ended with {code}:\n{self.text()}")
        return self.text()

    def terminate(self):
        """Asks the program to stop."""
        self._process.terminate()

    def kill(self):
        """kill -9 for the program and all that it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def text(self):
        return "\n".join(self.lines)
