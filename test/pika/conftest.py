"""Fixtures: a cluster for the whole run, and every ordered pair of its nodes."""

import itertools
import time

import pika
import pytest

import cluster as clusters

PAIRS = list(itertools.permutations(range(clusters.NODES), 2))
PATIENCE = 90  # seconds that a condition may take to become true


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    c = clusters.start(tmp_path_factory.mktemp("cluster"))
    yield c
    if request.session.testsfailed:
        print(c.logs())
    c.stop()


class Clients:
    """Opens connections that end with the test, and waits on them."""

    def __init__(self, urls):
        self.urls = urls
        self._open = []

    def connect(self, node):
        connection = pika.BlockingConnection(pika.URLParameters(self.urls[node]))
        self._open.append(connection)
        return connection

    def wait(self, condition, *connections):
        """Lets connections work until condition() holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain"
            for connection in connections:
                connection.process_data_events(time_limit=0.5 if len(connections) == 1 else 0.01)

    def drop(self, kind, *names):
        """Deletes queues or exchanges, also those that are not there."""
        connection = self.connect(0)
        channel = connection.channel()
        for name in names:
            getattr(channel, kind + "_delete")(name)
        connection.close()

    def close(self):
        for connection in self._open:
            if connection.is_open:
                connection.close()


@pytest.fixture
def clients(cluster):
    c = Clients(cluster.urls)
    yield c
    c.close()


@pytest.fixture(params=PAIRS, ids=lambda p: f"from{p[0] + 1}to{p[1] + 1}")
def pair(request, clients):
    """A producer's and a consumer's connection, on two different nodes."""
    producer, consumer = request.param
    return clients.connect(producer), clients.connect(consumer)
