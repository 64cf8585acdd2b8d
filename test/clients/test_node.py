"""Node's amqplib: RPC, a work queue with confirms, and its recovery."""

import nodes as clusters
import pytest

CALLS = 100
TASKS = 4000


@pytest.fixture
def node(run, here):
    def start(script, *words):
        return run("node", script, *words, cwd=here / "node")

    return start


@pytest.mark.parametrize("way", ["exclusive", "direct"])
@pytest.mark.parametrize("server, client", [(0, 1), (2, 0)])
def test_rpc_finds_its_answers_from_node_to_node(nodes, node, server, client, way):
    printed = node("rpc.js", nodes.urls[server], nodes.urls[client], CALLS, way).finish()
    assert f"{CALLS + 1} calls answered" in printed


def test_work_is_confirmed_and_done_while_the_leader_of_its_queue_dies(nodes, node):
    """Neither the producer's nor the workers' connection may notice: they are on the other two nodes."""
    nodes.declare("node.work")
    leader = nodes.leader("node.work")
    producer, worker = (i for i in range(clusters.COUNT) if i != leader)
    program = node("work.js", nodes.urls[producer], nodes.urls[worker], TASKS)
    program.await_line("half")
    nodes.kill(leader)
    program.tell("go on")
    assert f"{TASKS} tasks confirmed and done" in program.finish()


def test_a_consumer_comes_back_to_its_node(nodes, node):
    program = node("recover.js", nodes.urls[2], nodes.urls[0])
    program.await_line("consuming")
    program.tell("before")
    program.await_line("got before")
    nodes.kill(2)
    program.await_line("disconnected")
    program.tell("while it was away")
    program.await_line("confirmed while it was away")
    nodes.start(2)
    program.await_line("got while it was away")
    program.tell("end")
    program.finish()
