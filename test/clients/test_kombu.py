"""kombu: its simple queues, and a mixin's consumer that outlives its node."""

import contextlib
import threading

import kombu
import kombu.mixins
import programs
import pytest

JOBS = 200
PAIRS = [(0, 1), (1, 2), (2, 0)]
CONFIRMED = {"confirm_publish": True}


def connect(*urls):
    """A connection to the first of these that answers, with confirms."""
    return kombu.Connection(";".join(urls), transport_options=CONFIRMED)


@pytest.mark.parametrize("producer, consumer", PAIRS)
def test_a_simple_queue_goes_from_node_to_node(nodes, producer, consumer):
    with connect(nodes.urls[producer]) as there, connect(nodes.urls[consumer]) as here:
        sending, receiving = there.SimpleQueue("kombu.simple"), here.SimpleQueue("kombu.simple")
        sending.put({"name": "ä", "number": 2**40, "nothing": None}, headers={"n": 1.5, "nested": {"list": [1, "two", True]}})
        sending.put(b"\x00\xff", content_type="application/octet-stream", content_encoding="binary", priority=3)
        sending.put("squeezed " * 1000, compression="zlib")
        assert sending.qsize() == 3

        first = receiving.get(timeout=programs.PATIENCE)
        assert first.payload == {"name": "ä", "number": 2**40, "nothing": None}
        assert first.headers == {"n": 1.5, "nested": {"list": [1, "two", True]}}
        first.ack()
        second = receiving.get(timeout=programs.PATIENCE)
        assert (second.body, second.properties["priority"]) == (b"\x00\xff", 3)
        second.reject()
        third = receiving.get(timeout=programs.PATIENCE)
        assert third.payload == "squeezed " * 1000
        third.requeue()
        again = receiving.get(timeout=programs.PATIENCE)
        assert (again.payload, again.delivery_info["redelivered"]) == (third.payload, True)
        again.ack()
        receiving.close()
        sending.close()

        queue = receiving.queue(here.default_channel)
        assert programs.until(lambda: queue.queue_declare(passive=True).message_count == 0, "the queue is empty")
        queue.delete()


def test_a_simple_buffer_ends_with_its_connection(nodes):
    with connect(nodes.urls[0]) as here:
        buffer = here.SimpleBuffer("kombu.buffer")
        for n in range(3):
            buffer.put({"n": n})
        assert [buffer.get(timeout=programs.PATIENCE).payload["n"] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(buffer.Empty):
            buffer.get(block=False)
    with connect(nodes.urls[1]) as there:
        gone = kombu.Queue("kombu.buffer", channel=there.default_channel)
        with pytest.raises(there.channel_errors) as failure:
            gone.queue_declare(passive=True)
        assert failure.value.code == 404


class Worker(kombu.mixins.ConsumerMixin):
    """Acknowledges jobs, as in the examples of kombu."""

    def __init__(self, connection, queue):
        self.connection = connection
        self._queue = queue
        self._got = {}
        self._changed = threading.Condition()
        self.homes = []  # the ports that it has connected to

    def get_consumers(self, Consumer, channel):
        self.homes.append(channel.connection.client.port)
        return [Consumer(self._queue, callbacks=[self.work], prefetch_count=10)]

    def work(self, body, message):
        message.ack()
        with self._changed:
            self._got[body["job"]] = message.delivery_info["redelivered"]
            self._changed.notify_all()

    def await_jobs(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._got) >= count, programs.PATIENCE), f"{len(self._got)} of {count} jobs"
            return set(self._got)


@contextlib.contextmanager
def running(worker):
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    yield
    worker.should_stop = True
    thread.join(programs.PATIENCE)
    assert not thread.is_alive()


def test_a_mixin_goes_on_at_another_node_when_its_own_dies(nodes):
    exchange = kombu.Exchange("kombu.jobs", "direct")
    queue = kombu.Queue("kombu.jobs", exchange, routing_key="job")
    with connect(nodes.urls[0], nodes.urls[1]) as connection, connect(nodes.urls[2]) as there:
        worker = Worker(connection, queue)
        producer = there.Producer(serializer="json")

        def publish(jobs):
            for job in jobs:
                producer.publish({"job": job}, exchange=exchange, routing_key="job", declare=[queue], retry=True)

        with running(worker):
            publish(range(JOBS // 2))
            worker.await_jobs(1)
            nodes.kill(0)
            publish(range(JOBS // 2, JOBS))
            assert worker.await_jobs(JOBS) == set(range(JOBS))
            assert [nodes.port(0), nodes.port(1)] == worker.homes
        queue(there.default_channel).delete()
        exchange(there.default_channel).delete()
