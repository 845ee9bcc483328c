"""The way to Kafka: its waits end, whatever comes in between."""

import os
import signal
import threading
import time

from devstack.stack import Stack
from server.workers.sender import sender

WAIT = 0.5


def test_a_wait_ends_though_a_signal_is_still_being_handled_when_its_time_is_over(broker: Stack) -> None:
    with sender(broker.kafka_bootstrap, "nowhere") as to_kafka:
        over = time.monotonic() + WAIT
        before = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(2 * WAIT))
        amid = threading.Timer(WAIT / 5, os.kill, [os.getpid(), signal.SIGUSR1])
        amid.start()
        try:
            assert to_kafka.answers(WAIT) == []
            # It did come in between.
            assert time.monotonic() > over + WAIT
        finally:
            amid.join()
            signal.signal(signal.SIGUSR1, before)
