"""RabbitMQ's PerfTest, and the recovery of its Java client."""

import re

import nodes as clusters
import pytest
from conftest import FULL

SECONDS = 60 if FULL else 10  # of each run of PerfTest
GRACE = 120  # seconds for the JVM to come and go
WINDOW = 100  # unconfirmed messages of a producer

KINDS = {
    "quorum": ["--quorum-queue", "--queue", "java.quorum"],
    "classic": ["--auto-delete", "false", "--flag", "persistent", "--queue", "java.classic"],
}


@pytest.fixture
def java(run, here):
    def start(*words):
        return run("java", "-cp", here / "java" / "lib" / "*", *words, cwd=here / "java")

    return start


@pytest.mark.parametrize("kind", KINDS)
def test_perf_test_runs_without_an_error(nodes, java, kind):
    """Two producers with confirms and two consumers, on whichever nodes PerfTest chooses."""
    uris = ",".join(url.removesuffix("/") for url in nodes.urls)  # to the Java client "/" is the vhost ""
    shape = ["--producers", 2, "--consumers", 2, "--confirm", WINDOW, "--qos", 2 * WINDOW, "--time", SECONDS]
    printed = java("com.rabbitmq.perf.PerfTest", "--uris", uris, *KINDS[kind], *shape).finish(SECONDS + GRACE)
    assert "test stopped (Reached time limit)" in printed
    assert not re.search(r"\b(WARN|ERROR)\b|[Ee]xception", printed), printed
    assert average("sending", printed) > 0
    assert average("receiving", printed) > 0
    assert {int(n) for n in re.findall(r"nacked: (\d+) msg/s", printed)} == {0}


def average(of, printed):
    return int(re.search(rf"{of} rate avg: (\d+) msg/s", printed).group(1))


def test_connection_and_topology_are_recovered_on_another_node(nodes, java):
    addresses = [f"127.0.0.1:{nodes.port(i)}" for i in range(clusters.COUNT)]
    program = java("-Dlogback.configurationFile=logback.xml", "Recovery.java", *addresses)
    program.await_line(f"connected {nodes.port(0)}")
    program.tell("before")
    program.await_lines("durable before", "exclusive before", "confirmed before")
    nodes.kill(0)
    program.await_line(f"recovered {nodes.port(1)}")
    program.tell("after")
    program.await_lines("durable after", "exclusive after", "confirmed after")
    assert "cancelled" not in program.text()
    program.tell("end")
    program.finish()
