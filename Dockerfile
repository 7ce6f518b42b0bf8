# Homeport itself in a container: built in one stage, run in another without build tools, as a user of its own.
FROM python:3.13-slim-bookworm AS build
WORKDIR /build
COPY bootstrap.txt ./
RUN python -m venv /opt/homeport && /opt/homeport/bin/pip install --no-cache-dir --no-deps --require-hashes -r bootstrap.txt
COPY pyproject.toml uv.lock README.md LICENSE ./
ENV UV_PROJECT_ENVIRONMENT=/opt/homeport UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN /opt/homeport/bin/uv sync --frozen --no-dev --inexact --no-install-project
COPY src ./src
RUN /opt/homeport/bin/uv sync --frozen --no-dev --inexact --no-editable

FROM python:3.13-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends git tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /home/homeport homeport \
 && install -d -o homeport -g homeport -m 0755 /var/lib/homeport
COPY --from=build /opt/homeport /opt/homeport
ENV PATH=/opt/homeport/bin:$PATH \
    HOMEPORT_HOME=/var/lib/homeport \
    HOMEPORT_EDGE_ADDRESS=0.0.0.0 \
    HOMEPORT_API_ADDRESS=0.0.0.0
USER homeport
VOLUME /var/lib/homeport
EXPOSE 8080 8090
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8090/api/health', timeout=2)"]
# tini collects instances that end after the control plane was restarted.
ENTRYPOINT ["tini", "--"]
CMD ["homeport", "serve"]
