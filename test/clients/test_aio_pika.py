"""aio-pika: its RPC and master/worker patterns, and robust connections over the death of their node."""

import asyncio
import contextlib

import aio_pika
import aio_pika.exceptions
import aio_pika.patterns
import programs
import pytest

TASKS = 300
CALLS = 100
PREFETCH = 5
RECONNECT = 0.1  # seconds between two attempts


async def connect(stack, url):
    connection = await aio_pika.connect_robust(url, reconnect_interval=RECONNECT)
    return await stack.enter_async_context(connection)


async def until(condition):
    """Lets tasks run until the condition holds."""
    async with asyncio.timeout(programs.PATIENCE):
        while not await condition():
            await asyncio.sleep(programs.POLL)


def test_rpc_answers_from_node_to_node(nodes):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server, client = [await connect(stack, nodes.urls[i]) for i in (0, 1)]
            serving = await aio_pika.patterns.RPC.create(await server.channel())
            await serving.register("multiply", multiply, auto_delete=True)
            calling = await aio_pika.patterns.RPC.create(await client.channel())

            answers = await asyncio.gather(*[calling.proxy.multiply(x=n, y=n) for n in range(CALLS)])
            assert answers == [n * n for n in range(CALLS)]
            with pytest.raises(aio_pika.exceptions.MessageProcessError):
                await calling.proxy.missing()  # mandatory, and returned
            await calling.close()
            await serving.close()

    asyncio.run(main())


async def multiply(*, x, y):
    return x * y


def test_rpc_goes_on_when_the_servers_node_has_come_back(nodes):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server, client = [await connect(stack, nodes.urls[i]) for i in (0, 1)]
            serving = await aio_pika.patterns.RPC.create(await server.channel())
            await serving.register("multiply", multiply, auto_delete=True)
            calling = await aio_pika.patterns.RPC.create(await client.channel())
            assert await calling.proxy.multiply(x=6, y=7) == 42

            back = asyncio.Event()
            server.reconnect_callbacks.add(lambda *_: back.set())
            nodes.kill(0)
            nodes.start(0)
            await asyncio.wait_for(back.wait(), programs.PATIENCE)
            assert await asyncio.wait_for(calling.proxy.multiply(x=7, y=8), programs.PATIENCE) == 56

    asyncio.run(main())


class Work:
    """What two workers have done; it never lets them hold more than their prefetch."""

    def __init__(self):
        self.done = set()
        self.held = [0, 0]
        self.most = [0, 0]

    async def all_done(self):
        return len(self.done) == TASKS

    def worker(self, i):
        async def work(*, task):
            self.held[i] += 1
            self.most[i] = max(self.most[i], self.held[i])
            await asyncio.sleep(0)  # others get their turn
            self.held[i] -= 1
            self.done.add(task)

        return work


def test_work_is_done_while_a_workers_node_dies_and_comes_back(nodes):
    """The master is on node 3, the workers on nodes 1 and 2; node 1 dies."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            work = Work()
            for i in (0, 1):
                channel = await (await connect(stack, nodes.urls[i])).channel()
                await channel.set_qos(prefetch_count=PREFETCH)
                await aio_pika.patterns.Master(channel).create_worker("aio.work", work.worker(i), durable=True)
            channel = await (await connect(stack, nodes.urls[2])).channel()
            master = aio_pika.patterns.Master(channel)

            await asyncio.gather(*[master.create_task("aio.work", {"task": n}) for n in range(TASKS // 2)])
            nodes.kill(0)
            await asyncio.gather(*[master.create_task("aio.work", {"task": n}) for n in range(TASKS // 2, TASKS)])
            await until(work.all_done)
            assert max(work.most) <= PREFETCH

            nodes.start(0)
            queue = await channel.get_queue("aio.work")

            async def settled():
                counts = await queue.declare()
                return (counts.message_count, counts.consumer_count) == (0, 2)

            await until(settled)

    asyncio.run(main())
