"""The way to Kafka: its waits end, whatever comes in between."""

import os
import signal
import threading
import time

from devstack.stack import Stack
from server.workers.sender import sender

WAIT = 0.05


def test_a_wait_ends_though_a_signal_is_still_being_handled_when_its_time_is_over(broker: Stack) -> None:
    with sender(broker.kafka_bootstrap, "nowhere") as to_kafka:
        over = time.monotonic() + WAIT
        before = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(2 * WAIT))
        threading.Timer(WAIT / 5, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        try:
            assert to_kafka.answers(WAIT) == []
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() > over + WAIT
