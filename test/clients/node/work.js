// The tutorial's work queue: a producer with confirms and two workers, on different nodes.
//
//   node work.js PRODUCER_URL WORKER_URL TASKS
//
// At half of the tasks it prints "half" and waits for a line on its standard
// input, so that a test can kill the third node then. No connection may notice.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import amqp from 'amqplib';

const QUEUE = 'node.work';
const PREFETCH = 10;
const UNCONFIRMED_MAX = 100;
const [producerURL, workerURL, count] = process.argv.slice(2);
const tasks = Number(count);

// seen has how often each task was delivered, and done resolves when every one was.
const seen = new Map();
const redelivered = new Set();
const { promise: done, resolve: allSeen } = withResolvers();

function withResolvers() {
  let resolve;
  const promise = new Promise((r) => (resolve = r));
  return { promise, resolve };
}

// connect ends the program when the connection or a channel of it ends early.
async function connect(url) {
  const connection = await amqp.connect(url);
  connection.on('error', (err) => assert.fail(`the connection failed: ${err.message}`));
  return connection;
}

async function work(connection) {
  const channel = await connection.createChannel();
  let held = 0;
  await channel.prefetch(PREFETCH);
  await channel.consume(QUEUE, (task) => {
    assert.notEqual(task, null, 'the consumer was cancelled');
    held++;
    assert.ok(held <= PREFETCH, `${held} tasks at once with a prefetch of ${PREFETCH}`);
    const body = task.content.toString();
    seen.set(body, (seen.get(body) ?? 0) + 1);
    if (task.fields.redelivered) redelivered.add(body);
    setImmediate(() => {
      channel.ack(task);
      held--;
      if (seen.size === tasks) allSeen();
    });
  });
}

async function produce(channel, from, to) {
  for (let i = from; i < to; i++) {
    channel.sendToQueue(QUEUE, Buffer.from(`task ${i}`), { persistent: true, messageId: String(i) });
    if ((i + 1) % UNCONFIRMED_MAX === 0) await channel.waitForConfirms();
  }
  await channel.waitForConfirms();
}

const producer = await connect(producerURL);
const confirmed = await producer.createConfirmChannel();
await confirmed.assertQueue(QUEUE, { durable: true });
const worker = await connect(workerURL);
await Promise.all([work(worker), work(worker)]);

await produce(confirmed, 0, tasks / 2);
console.log('half');
await once(process.stdin, 'data');
await produce(confirmed, tasks / 2, tasks);
await done;

const twice = [...seen].filter(([body, times]) => times > 1 && !redelivered.has(body));
assert.deepEqual(twice, [], 'delivered twice without saying so');
assert.equal((await confirmed.checkQueue(QUEUE)).messageCount, 0);
await worker.close();
await confirmed.deleteQueue(QUEUE);
await producer.close();
console.log(`${seen.size} tasks confirmed and done`);
process.stdin.destroy();
