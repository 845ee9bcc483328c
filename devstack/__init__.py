"""The whole system on one machine: PostgreSQL, Kafka, Envoy and the service, from wheels and Maven artifacts.

`python -m devstack run` is for people. Tests use `devstack.stack.Stack`:

    with Stack(folder, Ports.free(workers=2), workers=2, durable=False) as stack:
        httpx.get(f"{stack.gateway_url}/healthz")

Nothing is imported here: a token must not wait for what only the stack needs.
"""
