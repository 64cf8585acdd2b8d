// The tutorial's RPC: a server and a client on two different nodes.
//
//   node rpc.js SERVER_URL CLIENT_URL CALLS direct|exclusive
//
// Answers come through direct reply-to, or through a queue of the client's own.
// The client's calls are all under way at once; each answer must find its call.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import amqp from 'amqplib';

const QUEUE = 'node.rpc';
const [serverURL, clientURL, calls, way] = process.argv.slice(2);

function fibonacci(n) {
  let [a, b] = [0n, 1n];
  for (let i = 0; i < n; i++) [a, b] = [b, a + b];
  return a;
}

async function serve(url) {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  await channel.prefetch(1);
  const { consumerTag } = await channel.consume(QUEUE, (request) => {
    const { replyTo, correlationId } = request.properties;
    const answer = fibonacci(Number(request.content.toString()));
    channel.sendToQueue(replyTo, Buffer.from(answer.toString()), { correlationId });
    channel.ack(request);
  });
  return { connection, channel, consumerTag };
}

async function client(url) {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  const replyTo =
    way === 'direct' ? 'amq.rabbitmq.reply-to' : (await channel.assertQueue('', { exclusive: true })).queue;
  const waiting = new Map();
  await channel.consume(
    replyTo,
    (answer) => {
      const { correlationId } = answer.properties;
      waiting.get(correlationId)(answer.content.toString());
      waiting.delete(correlationId);
    },
    { noAck: true },
  );
  const call = (n) =>
    new Promise((resolve) => {
      const correlationId = randomUUID();
      waiting.set(correlationId, resolve);
      channel.sendToQueue(QUEUE, Buffer.from(String(n)), { correlationId, replyTo });
    });
  return { connection, call };
}

const server = await serve(serverURL);
const { connection, call } = await client(clientURL);
assert.equal(await call(30), '832040');
const numbers = Array.from({ length: Number(calls) }, (_, i) => i);
const answers = await Promise.all(numbers.map(call));
assert.deepEqual(answers, numbers.map((n) => fibonacci(n).toString()));
await connection.close();
await server.channel.cancel(server.consumerTag);
await server.channel.deleteQueue(QUEUE);
await server.connection.close();
console.log(`${answers.length + 1} calls answered`);
