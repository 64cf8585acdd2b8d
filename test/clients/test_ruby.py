"""Ruby's bunny: what it makes of answers and errors, and its recovery."""

import nodes as clusters
import pytest

BASICS = {
    "confirms": "[true, 100]",
    "a consumer elsewhere, in order": "true",
    "a mandatory message": '[312, "NO_ROUTE", "m"]',
    "properties": '[[["at", AT], ["list", [1, "two"]], ["n", 1.5]], 3, "60000", "guest", 77]',
    "a consumer whose queue is deleted elsewhere": "tag",
    "a queue that is not there": "Bunny::NotFound",
    "a queue declared in another way": "Bunny::PreconditionFailed",
    "an exchange of another type": "Bunny::PreconditionFailed",
    "a queue of another connection": "Bunny::ResourceLocked",
    "tx after confirm": "Bunny::PreconditionFailed",
    "delete of an exchange in use": "Bunny::PreconditionFailed",
    "a wrong password": "Bunny::AuthenticationFailureError",
    "a vhost that is not there": "Bunny::NotAllowedError",
    "what there is": "[true, false, true]",
    "the end": "[true, true]",
}


@pytest.fixture
def ruby(run, here):
    def start(script, *words):
        return run("ruby", script, *words, cwd=here / "ruby")

    return start


@pytest.mark.parametrize("near, far", [(0, 1), (2, 0)])
def test_bunny_gets_what_it_gets_from_rabbitmq(nodes, ruby, near, far):
    printed = ruby("basics.rb", nodes.urls[near], nodes.urls[far]).finish()
    got = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    assert {claim: got.get(claim) for claim in BASICS} == BASICS


def test_bunny_recovers_on_another_node(nodes, ruby):
    program = ruby("recover.rb", *[f"127.0.0.1:{nodes.port(i)}" for i in range(clusters.COUNT)])
    program.await_line(f"connected {nodes.port(0)}")
    program.tell("before")
    program.await_line("got before")
    nodes.kill(0)
    program.await_line(f"recovered {nodes.port(1)}")
    program.tell("after")
    program.await_line("got after")
    program.tell("end")
    program.finish()
