// amqplib's own recovery: a consumer whose node is killed and started again.
//
//   node recover.js CONSUMER_URL PRODUCER_URL
//
// It prints "consuming" each time that its consumer stands, and publishes one
// message for each line on its standard input.
import { createInterface } from 'node:readline';
import amqp from 'amqplib';

const QUEUE = 'node.recover';
const RETRY_MS = 100;
const [consumerURL, producerURL] = process.argv.slice(2);

async function consume(connection) {
  const channel = await connection.createChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  await channel.consume(QUEUE, (message) => {
    if (message === null) return; // cancelled: the node is going
    channel.ack(message);
    console.log(`got ${message.content}`);
  });
  console.log('consuming');
}

const consumer = await amqp.connect(consumerURL, {
  recovery: { maxRetries: Infinity, calculateDelay: () => RETRY_MS, setup: consume },
});
consumer.on('disconnect', () => console.log('disconnected'));
consumer.on('error', () => {}); // it is told of as a disconnect

const producer = await amqp.connect(producerURL);
const channel = await producer.createConfirmChannel();
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') break;
  channel.sendToQueue(QUEUE, Buffer.from(line), { persistent: true });
  await channel.waitForConfirms();
  console.log(`confirmed ${line}`);
}
await channel.deleteQueue(QUEUE);
await producer.close();
await consumer.close();
process.stdin.destroy();
