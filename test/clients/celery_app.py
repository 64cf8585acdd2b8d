"""The Celery application that test_celery runs workers of, and sends tasks to.

CELERY_BROKER      addresses of nodes, with semicolons between; the first that answers is taken
CELERY_JOURNAL     file that gets a line for each task that has begun or is done
CELERY_MULTIPLIER  prefetched tasks for each process of a worker
"""

import os
import time

import celery
import journal
import programs

PAUSE = 0.2  # seconds between two attempts to reach a node

app = celery.Celery("warren", broker=os.environ.get("CELERY_BROKER"), backend="rpc://")
app.conf.update(
    task_acks_late=True,
    task_default_delivery_mode="persistent",
    task_ignore_result=True,
    task_publish_retry_policy={"max_retries": 50, "interval_start": PAUSE, "interval_step": 0, "interval_max": PAUSE},
    worker_prefetch_multiplier=int(os.environ.get("CELERY_MULTIPLIER", 4)),
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)


def note(*words):
    """Appends a line; lines of several processes do not mix."""
    with open(os.environ["CELERY_JOURNAL"], "ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\n").encode())


@app.task(bind=True)
def work(self, n, seconds=0.0):
    note("begun", n)
    time.sleep(seconds)  # the work
    note("done", n, self.request.delivery_info["redelivered"])


@app.task(bind=True)
def gated(self, n):
    """Waits until the test opens the gate."""
    programs.until(journal.gate(os.environ["CELERY_JOURNAL"]).exists, "the gate is open")
    note("done", n, self.request.delivery_info["redelivered"])


@app.task(bind=True, max_retries=None)
def stubborn(self, n, attempts):
    """Fails until its last attempt."""
    if self.request.retries < attempts - 1:
        raise self.retry(countdown=PAUSE)
    note("done", n, self.request.delivery_info["redelivered"])


@app.task(ignore_result=False)
def add(x, y):
    return x + y
