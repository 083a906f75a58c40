# Two stages: the wheel and its dependencies are built in the first, the second holds nothing but them.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
COPY plugins plugins
RUN python -m venv /opt/weir && /opt/weir/bin/pip install --no-cache-dir .

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin weir
COPY --from=build /opt/weir /opt/weir
COPY config /etc/weir
ENV PATH=/opt/weir/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 WEIR_CONFIG=/etc/weir/config.yaml
USER 10001:10001
EXPOSE 8080 9090
ENTRYPOINT ["weir"]
CMD ["serve"]
