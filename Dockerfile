# Figment as an image: `docker build -t figment .` for a CPU, `--target gpu` for CUDA, `--target ray`
# for the nodes of a Ray cluster, which say themselves what they run.

# One base for all: the GPU wheels bring the CUDA libraries, the host brings the driver.
FROM python:3.11-slim-bookworm AS base


FROM base AS packages
# Without pip: the environment holds what serves, the base image's pip fills it.
RUN python3 -m venv --without-pip /opt/figment
COPY requirements/serve-*.txt /requirements/
# Wheels only, so no compiler. Bytecode is made below, once, for a file system that is read-only.
ENV PIP="python3 -m pip --python /opt/figment/bin/python install \
    --no-cache-dir --no-compile --only-binary :all: --require-hashes"
# The files never change after the build: unchecked bytecode saves a look at each at start-up.
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
# Readable by the image's user whatever the umask of the checkout.
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
# From 1.29 on, ONNX Runtime reports what it runs to Microsoft unless told not to.
ENV ORT_DISABLE_TELEMETRY=1
# Makes the folder, as root: some builders would give it to the user below.
COPY LICENSE /srv/figment/
WORKDIR /srv/figment
# A number, so that Kubernetes can tell it is not root. It owns no file.
USER 10001:10001
EXPOSE 8000
# No proxy: Docker may hand the host's to the container. Shell form: the shell fills in the port.
# hadolint ignore=DL3025
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD python -c "import urllib.request as r; r.build_opener(r.ProxyHandler({})) \
        .open('http://127.0.0.1:$FIGMENT_PORT/readyz', timeout=4)"
CMD ["python", "-m", "service"]


FROM run AS gpu
# Refuses to start where CUDA cannot be had, rather than serve slowly.
ENV FIGMENT_DEVICE=cuda
COPY --from=packages-gpu /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment


FROM run AS ray
# Ray's processes do not look where they are started; and they would report their use.
ENV PYTHONPATH=/srv/figment \
    RAY_USAGE_STATS_ENABLED=0
COPY --from=packages-ray /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment


# The default target, hence last.
FROM run AS cpu
COPY --from=packages-cpu /opt/figment /opt/figment
COPY --from=files /models /models
COPY --from=files /srv/figment /srv/figment
