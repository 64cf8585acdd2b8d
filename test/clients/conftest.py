"""Fixtures: three nodes for the whole run, and programs that end with their test."""

import os
import pathlib
import signal
import subprocess

import cluster
import nodes as clusters
import programs
import pytest

FULL = os.environ.get("CLIENTS_FULL") == "1"  # the long runs: make clients-full


def pytest_configure():
    # Asked to stop, pytest ends what the fixtures have started, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    given = os.environ.get("WARREN_BINARY")
    if given:
        return given
    built = tmp_path_factory.mktemp("bin") / "warren"
    subprocess.run(["go", "build", "-o", built, "./cmd/warren"], cwd=cluster.ROOT, check=True)
    return built


@pytest.fixture(scope="session")
def cluster_of_three(request, binary, tmp_path_factory):
    n = clusters.Nodes(binary, tmp_path_factory.mktemp("cluster"))
    try:
        n.start()
        yield n
    finally:
        if request.session.testsfailed:
            print(n.logs())
        n.stop()


@pytest.fixture
def nodes(cluster_of_three):
    """Three running nodes, whatever the test before has killed."""
    dead = set(range(clusters.COUNT)) - set(cluster_of_three.running())
    if dead:
        cluster_of_three.start(*dead)
    return cluster_of_three


@pytest.fixture
def run(request):
    """Starts a program that is killed at the end of the test, whatever became of it."""
    started = []

    def start(*command, **options):
        started.append(programs.Program(command, **options))
        return started[-1]

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def here():
    return pathlib.Path(__file__).parent
