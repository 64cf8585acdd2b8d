"""Celery with real workers: prefetch, ETA, results, control, events, and no task lost whatever dies."""

import sys
import threading

import celery_app
import journal as journals
import kombu.pools
import nodes as clusters
import programs
import pytest
from conftest import FULL

QUEUE = "celery"  # its default
PROCESSES = 2  # of a worker
MULTIPLIER = 3
WINDOW = PROCESSES * MULTIPLIER
TASKS = 2000 if FULL else 300  # half of them wait or are tried again
PATIENCE = 240 if FULL else 120


@pytest.fixture
def journal(tmp_path, monkeypatch):
    j = journals.Journal(tmp_path / "journal")
    monkeypatch.setenv("CELERY_JOURNAL", str(j.path))
    return j


@pytest.fixture(scope="session")
def sender(cluster_of_three):
    """The application as a sender of tasks, on node 3; at the end it closes its connections before the nodes stop."""
    celery_app.app.conf.broker_url = addresses(cluster_of_three, 2)
    yield celery_app.app
    kombu.pools.reset()


@pytest.fixture
def app(nodes, sender, journal):
    nodes.drop(QUEUE)  # what a failed test has left
    return sender


def addresses(nodes, first):
    return ";".join(nodes.urls[first:] + nodes.urls[:first])


@pytest.fixture
def worker(run, nodes, here):
    """Starts a worker whose first node is given, and waits until it consumes."""

    def start(name, node, *options):
        command = ["-m", "celery", "-A", "celery_app", "worker", "--hostname", f"{name}@localhost", "--concurrency", PROCESSES]
        env = {"CELERY_BROKER": addresses(nodes, node), "CELERY_MULTIPLIER": str(MULTIPLIER), "PYTHONDONTWRITEBYTECODE": "1"}
        program = run(sys.executable, *command, "--loglevel", "INFO", *options, env=env, cwd=here)
        program.await_line(" ready.")
        return program

    return start


class Watch:
    """Looks at the queue again and again, from a thread of its own."""

    def __init__(self, nodes, i):
        self.most = 0  # unacknowledged at once
        self._nodes, self._i = nodes, i
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        last = False
        while not last:
            last = self._stop.wait(programs.POLL)  # and then once more
            self.most = max(self.most, self._nodes.queue(QUEUE, self._i)["messages_unacked"])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def counts(nodes):
    """The tasks that are ready, and those that workers hold."""
    q = nodes.queue(QUEUE)
    return q["messages_ready"], q["messages_unacked"]


def test_a_worker_holds_as_many_tasks_as_it_asked_for(nodes, app, worker, journal):
    program = worker("prefetch", 0)
    tasks = range(10 * WINDOW)
    with Watch(nodes, 1) as watch:
        for n in tasks:
            celery_app.gated.delay(n)
        programs.until(lambda: counts(nodes) == (len(tasks) - WINDOW, WINDOW), "the worker holds its window")
    assert watch.most == WINDOW
    programs.until(lambda: len([line for line in program.lines if line.endswith("received")]) == WINDOW, "the worker says so")
    journal.open_gate()
    journal.await_done(tasks)
    assert all(times == [False] for times in journal.done().values())
    programs.until(lambda: counts(nodes) == (0, 0), "every task is acknowledged")


def test_tasks_for_later_do_not_hold_up_those_for_now(nodes, app, worker, journal):
    """Celery raises its prefetch for each task that it keeps for later, on the consumer that is there."""
    later, now = range(2 * WINDOW), range(100, 100 + WINDOW)
    worker("eta", 0)
    for n in later:
        celery_app.work.apply_async((n,), countdown=15)  # more than those for now take
    for n in now:
        celery_app.work.delay(n)
    journal.await_done(now)
    assert not journal.done().keys() & set(later)
    journal.await_done(later)
    programs.until(lambda: counts(nodes) == (0, 0), "every task is acknowledged")


def test_results_events_and_control_cross_nodes(nodes, app, worker):
    seen = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-succeeded": lambda event: seen.append(event["result"])})
        with receiver.consumer_context(wakeup=False) as (events, _, _):
            worker("remote", 1, "--events")
            results = [celery_app.add.delay(n, n) for n in range(10)]
            assert [r.get(timeout=programs.PATIENCE) for r in results] == [2 * n for n in range(10)]
            programs.until(lambda: drained(events) or len(seen) == 10, "an event of every task")
    assert sorted(map(int, seen)) == [2 * n for n in range(10)]
    assert app.control.ping(timeout=programs.PATIENCE, limit=1) == [{"remote@localhost": {"ok": "pong"}}]
    stats = app.control.inspect(["remote@localhost"], limit=1, timeout=programs.PATIENCE).stats()
    assert stats["remote@localhost"]["prefetch_count"] == WINDOW
    app.backend.result_consumer.stop()


def drained(connection):
    """Lets the connection work for a moment."""
    try:
        connection.drain_events(timeout=programs.POLL)
    except TimeoutError:
        pass


def test_no_task_is_lost_when_a_worker_and_nodes_are_killed(nodes, app, worker, journal):
    """A third of the tasks is for now, a third for later, a third fails twice before it succeeds."""
    first = worker("first", 0)
    celery_app.work.delay(-1, 6.0)
    tasks = range(TASKS)
    sender = threading.Thread(target=send, args=(tasks,), daemon=True)
    sender.start()
    programs.until(lambda: -1 in journal.begun(), "the first worker is at its long task")
    first.kill()
    assert -1 not in journal.done()

    leader = nodes.leader(QUEUE)
    deaths = [leader, *others(leader)] if FULL else [leader]
    worker("second", leader)
    worker("third", others(leader)[0])
    for i, node in enumerate(deaths, start=1):
        programs.until(lambda: len(journal.done()) >= i * TASKS / (len(deaths) + 2), "some tasks are done", PATIENCE)
        nodes.kill(node)
        nodes.start(node)
    sender.join(PATIENCE)
    journal.await_done([-1, *tasks], PATIENCE)
    assert all(journal.done()[-1]), "it must come as redelivered"
    programs.until(lambda: counts(nodes) == (0, 0), "every task is acknowledged")


def others(node):
    return [i for i in range(clusters.COUNT) if i != node]


def send(tasks):
    for n in tasks:
        match n % 3:
            case 0:
                celery_app.work.delay(n, 0.01)
            case 1:
                celery_app.work.apply_async((n,), countdown=1 + n % 5)
            case 2:
                celery_app.stubborn.delay(n, 3)
