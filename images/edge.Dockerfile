# The agent beside Triton. In the repository's root: docker build -f images/edge.Dockerfile -t edgefolio/agent:0.1.0 .
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# A read-only root cannot keep what Python compiles, and images come without it: it is done once, here.
FROM ${PYTHON_IMAGE} AS base
RUN echo edgefolio:x:65532:65532::/tmp:/sbin/nologin >>/etc/passwd && echo edgefolio:x:65532: >>/etc/group && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# What these stages make is kept as long as what they copy stays the same: the packages, while only code changes.
FROM base AS tools
COPY images/install.py constraints.txt /build/
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py tools

FROM base AS requirements
COPY images/install.py pyproject.toml /build/
RUN python3 /build/install.py requirements edge >/requirements.txt

FROM tools AS packages
COPY --from=requirements /requirements.txt /
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py packages

FROM tools AS project
COPY pyproject.toml /build/
COPY portfolio /build/portfolio
COPY edge /build/edge
RUN python3 /build/install.py project

FROM base
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="edgefolio-agent" \
      org.opencontainers.image.description="Edgefolio's agent: fetches, verifies, observes and switches variants beside one Triton" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/edgefolio/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "edgefolio_edge.cluster"]
COPY --from=packages /opt/edgefolio /opt/edgefolio
COPY --from=project /opt/edgefolio /opt/edgefolio
