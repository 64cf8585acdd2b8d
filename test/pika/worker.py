"""The tutorial's worker as a program of its own, for a test that kills it.

It prints each body that it gets, acknowledges none, and goes on for ever.
"""

import sys

import pika

url, queue = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue=queue, durable=True)
channel.basic_consume(queue=queue, on_message_callback=lambda ch, method, properties, body: print(body.decode(), flush=True))
channel.start_consuming()
