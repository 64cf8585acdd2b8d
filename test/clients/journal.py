"""The file in which Celery's tasks note that they have begun and are done."""

import pathlib

import programs


def gate(path):
    return pathlib.Path(f"{path}.gate")


class Journal:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.touch()
        self._gate = gate(self.path)

    def open_gate(self):
        """Lets the tasks go on that wait for it."""
        self._gate.touch()

    def _noted(self, word):
        return [line.split()[1:] for line in self.path.read_text().splitlines() if line.startswith(word + " ")]

    def begun(self):
        return {int(n) for n, *_ in self._noted("begun")}

    def done(self):
        """Each task that is done, with whether its message said that it came again, for each time."""
        tasks = {}
        for n, redelivered in self._noted("done"):
            tasks.setdefault(int(n), []).append(redelivered == "True")
        return tasks

    def await_done(self, tasks, patience=programs.PATIENCE):
        tasks = set(tasks)
        try:
            programs.until(lambda: tasks <= self.done().keys(), "the tasks are done", patience)
        except TimeoutError:
            missing = sorted(tasks - self.done().keys())
            raise AssertionError(f"{len(missing)} of {len(tasks)} tasks were not done in {patience} s: {missing[:20]}") from None
