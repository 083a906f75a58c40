# Two stages: the first installs the locked dependencies and Weir's wheel, the second holds nothing but the result.
# Only what requirements.lock names by hash gets in. Pin the base too: --build-arg PYTHON=3.11-slim@sha256:...
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements-build.lock
RUN python -m venv /opt/weir && /opt/weir/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY proxy proxy
COPY plugins plugins
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/weir/bin/pip install --no-deps --no-index --find-links /wheels weir-proxy \
 && /opt/weir/bin/python -m compileall -q -j 0 /opt/weir \
 && /opt/weir/bin/python -m pip uninstall -y -q setuptools pip

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Weir" \
      org.opencontainers.image.description="A sidecar reverse proxy for LLM traffic" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin weir
COPY --from=build /opt/weir /opt/weir
COPY config /etc/weir
# The data plane stays on the container's loopback, which is a pod's: WEIR_LISTEN=0.0.0.0:8080 opens it to others.
ENV PATH=/opt/weir/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    WEIR_CONFIG=/etc/weir/config.yaml WEIR_ADMIN=:9090
USER 10001:10001
EXPOSE 8080 9090
# For engines without probes of their own; it asks the port that every config of deploy/ has.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-IS", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/readyz', timeout=2)"]
ENTRYPOINT ["weir"]
CMD ["serve"]
