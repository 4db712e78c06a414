# Container image: `docker build -t figment .` for a CPU, `--target gpu` for CUDA, `--target ray` for
# the nodes of a Ray cluster, whose start command comes from the cluster, `--target cache` for the
# cache in front of the service.

# One base for all targets: the GPU wheels contain the CUDA libraries, the host has the driver.
FROM python:3.11-slim-bookworm AS base


FROM base AS packages
# Without pip: the base image's pip installs into this environment.
RUN python3 -m venv --without-pip /opt/figment
COPY requirements/serve-*.txt /requirements/
# Wheels only, so no compiler. Bytecode is compiled below, because the file system is read-only.
ENV PIP="python3 -m pip --python /opt/figment/bin/python install \
    --no-cache-dir --no-compile --only-binary :all: --require-hashes"
# Files never change after the build: unchecked bytecode saves a stat of each at start-up.
ENV COMPILE="/opt/figment/bin/python -m compileall -q --invalidation-mode unchecked-hash"

FROM packages AS packages-cpu
RUN $PIP -r /requirements/serve-cpu.txt && $COMPILE /opt/figment/lib

FROM packages AS packages-gpu
RUN $PIP -r /requirements/serve-gpu.txt && $COMPILE /opt/figment/lib

FROM packages AS packages-ray
RUN $PIP -r /requirements/serve-ray.txt && $COMPILE /opt/figment/lib


FROM packages AS files
COPY service /srv/figment/service
COPY models /models
# Readable by the image's user, whatever the umask of the checkout.
RUN $COMPILE /srv/figment/service && chmod -R a+rX /srv/figment /models


FROM base AS run
LABEL org.opencontainers.image.title="Figment" \
      org.opencontainers.image.description="Labelled synthetic images on demand" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/figment/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FIGMENT_HOST=0.0.0.0 \
    FIGMENT_PORT=8000 \
    FIGMENT_MODELS=/models \
    FIGMENT_LOG_FORMAT=json
# Large blocks go back to the system when they are freed: see docs/serving.md, "Memory".
ENV MALLOC_MMAP_THRESHOLD_=1048576 \
    MALLOC_TRIM_THRESHOLD_=1048576
# From 1.29 on, ONNX Runtime sends telemetry to Microsoft by default.
ENV ORT_DISABLE_TELEMETRY=1
# Creates the folder as root: some builders would make the user below its owner.
COPY LICENSE /srv/figment/
WORKDIR /srv/figment
# Numeric, so that Kubernetes can verify that it is not root. The user owns no file.
USER 10001:10001
EXPOSE 8000
# No proxy: Docker may pass the host's proxy variables. Shell form: the shell expands the port.
# hadolint ignore=DL3025
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD python -c "import urllib.request as r; r.build_opener(r.ProxyHandler({})) \
        .open('http://127.0.0.1:$FIGMENT_PORT/readyz', timeout=4)"
CMD ["python", "-m", "service"]


FROM run AS gpu
# Refuses to start without CUDA, instead of serving slowly on the CPU.
ENV FIGMENT_DEVICE=cuda
COPY --from=packages-gpu /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment


FROM run AS ray
# Ray's processes do not import from their working directory, and send usage statistics by default.
ENV PYTHONPATH=/srv/figment \
    RAY_USAGE_STATS_ENABLED=0
COPY --from=packages-ray /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment


FROM debian:bookworm-slim AS cache
RUN apt-get update \
    && apt-get install --yes --no-install-recommends varnish=7.1.* \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=varnish /var/cache/figment
COPY ops/cache /etc/figment
USER varnish
EXPOSE 8000
CMD ["/etc/figment/run"]


# The default target, hence last.
FROM run AS cpu
COPY --from=packages-cpu /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment
