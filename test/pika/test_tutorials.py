"""RabbitMQ's tutorial programs in pika, producer and consumer on different nodes."""

import pathlib
import subprocess
import sys
import uuid

import pika
import pytest

from conftest import PAIRS

QUORUM = {"x-queue-type": "quorum"}  # as the tutorials declare their durable queues today


@pytest.mark.parametrize("declare", [{}, {"durable": True, "arguments": QUORUM}], ids=["transient", "quorum"])
def test_hello_world(pair, clients, declare):
    producer, consumer = pair
    clients.drop("queue", "hello")

    sending = producer.channel()
    sending.queue_declare(queue="hello", **declare)
    sending.basic_publish(exchange="", routing_key="hello", body="Hello World!")

    got = []
    receiving = consumer.channel()
    receiving.queue_declare(queue="hello", **declare)
    receiving.basic_consume(queue="hello", auto_ack=True, on_message_callback=lambda ch, method, props, body: got.append(body))
    clients.wait(lambda: got, consumer)
    assert got == [b"Hello World!"]

    sending.basic_publish(exchange="", routing_key="hello", body="again")
    clients.wait(lambda: len(got) == 2, consumer)
    assert got[1] == b"again"
    receiving.queue_delete("hello")


def test_work_queue_gives_a_dead_workers_task_to_another(pair, clients, cluster, request):
    producer, consumer = pair
    clients.drop("queue", "task_queue")
    channel = producer.channel()
    channel.queue_declare(queue="task_queue", durable=True)

    home = PAIRS[request.node.callspec.indices["pair"]][1]
    worker = pathlib.Path(__file__).with_name("worker.py")
    process = subprocess.Popen([sys.executable, str(worker), cluster.urls[home], "task_queue"], stdout=subprocess.PIPE, text=True)
    try:
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish(exchange="", routing_key="task_queue", body="a task", properties=persistent)
        assert process.stdout.readline().strip() == "a task"
    finally:
        process.kill()
        process.wait()

    got = []

    def work(ch, method, props, body):
        got.append((body, method.redelivered, props.delivery_mode))
        ch.basic_ack(delivery_tag=method.delivery_tag)

    receiving = consumer.channel()
    receiving.basic_consume(queue="task_queue", on_message_callback=work)
    clients.wait(lambda: got, consumer)
    assert got == [(b"a task", True, 2)]
    assert receiving.queue_delete("task_queue").method.message_count == 0


def test_closing_a_channel_returns_what_was_not_acknowledged(pair, clients):
    producer, consumer = pair
    clients.drop("queue", "task_queue")
    channel = producer.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue="task_queue", durable=True)
    for i in range(3):
        channel.basic_publish(exchange="", routing_key="task_queue", body=str(i))

    got = []
    first = consumer.channel()
    first.basic_consume(queue="task_queue", on_message_callback=lambda ch, method, props, body: got.append(body))
    clients.wait(lambda: len(got) == 3, consumer)
    first.close()

    again = []
    second = consumer.channel()
    second.basic_consume(
        queue="task_queue", auto_ack=True, on_message_callback=lambda ch, method, props, body: again.append((body, method.redelivered))
    )
    clients.wait(lambda: len(again) == 3, consumer)
    assert again == [(b"0", True), (b"1", True), (b"2", True)]
    second.queue_delete("task_queue")


def test_fair_dispatch_gives_the_fast_worker_more(pair, clients):
    producer, consumer = pair
    tasks = 20
    clients.drop("queue", "task_queue")
    channel = producer.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue="task_queue", durable=True)

    slow_got, fast_got, tags = [], [], []

    def work_slowly(ch, method, props, body):
        slow_got.append(body)
        tags.append(method.delivery_tag)  # acknowledged when the fast one has finished

    def work_fast(ch, method, props, body):
        fast_got.append(body)
        ch.basic_ack(delivery_tag=method.delivery_tag)

    slow, fast = consumer.channel(), consumer.channel()
    for ch, work in ((slow, work_slowly), (fast, work_fast)):
        ch.basic_qos(prefetch_count=1)
        ch.basic_consume(queue="task_queue", on_message_callback=work)
    for i in range(tasks):
        channel.basic_publish(exchange="", routing_key="task_queue", body=str(i))
    clients.wait(lambda: len(slow_got) + len(fast_got) == tasks, consumer)
    assert len(slow_got) == 1
    assert len(fast_got) == tasks - 1
    assert fast_got == sorted(fast_got, key=int)
    slow.basic_ack(tags[0])
    fast.queue_delete("task_queue")


def test_publish_subscribe_gives_everyone_a_copy(pair, clients):
    producer, consumer = pair
    clients.drop("exchange", "logs")
    sending = producer.channel()
    sending.exchange_declare(exchange="logs", exchange_type="fanout")

    got = {}
    receiving = consumer.channel()
    receiving.exchange_declare(exchange="logs", exchange_type="fanout")
    for _ in range(2):
        name = receiving.queue_declare(queue="", exclusive=True).method.queue
        assert name.startswith("amq.gen-")
        got[name] = []
        receiving.queue_bind(exchange="logs", queue=name)
        receiving.basic_consume(
            queue=name, auto_ack=True, on_message_callback=lambda ch, method, props, body, name=name: got[name].append(body)
        )
    assert len(got) == 2
    lines = [f"info: line {i}".encode() for i in range(10)]
    for line in lines:
        sending.basic_publish(exchange="logs", routing_key="", body=line)
    clients.wait(lambda: all(len(g) == len(lines) for g in got.values()), consumer)
    assert all(g == lines for g in got.values())
    sending.exchange_delete("logs")


def test_routing_with_several_bindings_of_one_queue(pair, clients):
    producer, consumer = pair
    clients.drop("exchange", "direct_logs")
    sending = producer.channel()
    sending.exchange_declare(exchange="direct_logs", exchange_type="direct")

    got = []
    receiving = consumer.channel()
    receiving.exchange_declare(exchange="direct_logs", exchange_type="direct")
    queue = receiving.queue_declare(queue="", exclusive=True).method.queue
    for severity in ("warning", "error"):
        receiving.queue_bind(exchange="direct_logs", queue=queue, routing_key=severity)
    receiving.basic_consume(
        queue=queue, auto_ack=True, on_message_callback=lambda ch, method, props, body: got.append((method.routing_key, body))
    )
    for severity in ("info", "warning", "error", "info", "warning"):
        sending.basic_publish(exchange="direct_logs", routing_key=severity, body=f"a {severity}")
    clients.wait(lambda: len(got) == 3, consumer)
    assert got == [("warning", b"a warning"), ("error", b"a error"), ("warning", b"a warning")]
    sending.exchange_delete("direct_logs")


def test_topics_with_both_wildcards(pair, clients):
    producer, consumer = pair
    clients.drop("exchange", "topic_logs")
    sending = producer.channel()
    sending.exchange_declare(exchange="topic_logs", exchange_type="topic")

    keys = ("kern.critical", "kern.info", "auth.critical", "auth.info", "kern", "a.b.critical", "last.critical")
    wanted = {
        "#": list(keys),
        "kern.*": ["kern.critical", "kern.info"],
        "*.critical": ["kern.critical", "auth.critical", "last.critical"],
        "kern.#": ["kern.critical", "kern.info", "kern"],
        "#.critical": ["kern.critical", "auth.critical", "a.b.critical", "last.critical"],
    }
    got = {pattern: [] for pattern in wanted}
    receiving = consumer.channel()
    receiving.exchange_declare(exchange="topic_logs", exchange_type="topic")
    for pattern in wanted:
        queue = receiving.queue_declare(queue="", exclusive=True).method.queue
        receiving.queue_bind(exchange="topic_logs", queue=queue, routing_key=pattern)
        receiving.basic_consume(
            queue=queue, auto_ack=True, on_message_callback=lambda ch, method, props, body, p=pattern: got[p].append(method.routing_key)
        )
    for key in keys:
        sending.basic_publish(exchange="topic_logs", routing_key=key, body=key)
    clients.wait(lambda: sum(map(len, got.values())) >= sum(map(len, wanted.values())), consumer)
    assert got == wanted
    sending.exchange_delete("topic_logs")


def test_rpc_through_an_exclusive_reply_queue(pair, clients):
    client, server = pair
    clients.drop("queue", "rpc_queue")

    def fibonacci(n):
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return a

    def on_request(ch, method, props, body):
        ch.basic_publish(
            exchange="",
            routing_key=props.reply_to,
            properties=pika.BasicProperties(correlation_id=props.correlation_id),
            body=str(fibonacci(int(body))),
        )
        ch.basic_ack(delivery_tag=method.delivery_tag)

    serving = server.channel()
    serving.queue_declare(queue="rpc_queue")
    serving.basic_qos(prefetch_count=1)
    serving.basic_consume(queue="rpc_queue", on_message_callback=on_request)

    answers = {}
    calling = client.channel()
    replies = calling.queue_declare(queue="", exclusive=True).method.queue
    calling.basic_consume(
        queue=replies, auto_ack=True, on_message_callback=lambda ch, method, props, body: answers.__setitem__(props.correlation_id, body)
    )

    def call(n):
        correlation_id = str(uuid.uuid4())
        calling.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            properties=pika.BasicProperties(reply_to=replies, correlation_id=correlation_id),
            body=str(n),
        )
        clients.wait(lambda: correlation_id in answers, client, server)
        return int(answers[correlation_id])

    assert call(30) == 832040
    assert [call(n) for n in range(5)] == [0, 1, 1, 2, 3]
    serving.queue_delete("rpc_queue")


def test_durable_messages_outlive_a_restart(cluster, clients):
    """For every pair: published through one node, consumed through another after the restart."""
    if not cluster.can_restart:
        pytest.skip("this cluster cannot be restarted (WARREN_RESTART)")
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    bodies = [f"task {i}".encode() for i in range(10)]
    queues = {pair: f"task_queue.{pair[0] + 1}.{pair[1] + 1}" for pair in PAIRS}
    clients.drop("queue", *queues.values())
    for (producer, _), queue in queues.items():
        channel = clients.connect(producer).channel()
        channel.confirm_delivery()
        channel.queue_declare(queue=queue, durable=True)
        for body in bodies:
            channel.basic_publish(exchange="", routing_key=queue, body=body, properties=persistent)
    clients.close()

    cluster.restart()

    for (_, consumer), queue in queues.items():
        connection = clients.connect(consumer)
        channel = connection.channel()
        assert channel.queue_declare(queue=queue, durable=True, passive=True).method.message_count == len(bodies)
        got = []

        def work(ch, method, props, body, got=got):
            got.append((body, method.redelivered))
            ch.basic_ack(delivery_tag=method.delivery_tag)

        channel.basic_consume(queue=queue, on_message_callback=work)
        clients.wait(lambda: len(got) == len(bodies), connection)
        assert got == [(body, False) for body in bodies]
        channel.queue_delete(queue)
