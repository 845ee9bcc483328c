"""The composition root: the only room that knows everybody. It starts in order and stops in reverse order.

Each service has its module here, and each role imports what it needs when it runs: the relay loads no gRPC, the API no
Kafka client.
"""
