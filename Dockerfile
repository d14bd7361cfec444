# The worker alone: no test tools, no local servers. The packages are copied as they are, because nothing
# about them needs building. It writes nothing into itself, so that its file system may be read-only.
#
# An exact tag, and for a release the digest of it: docs/deployment.md says how to get one.
ARG PYTHON_IMAGE=python:3.13.11-slim-trixie
FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="order-worker" org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin worker
WORKDIR /app
COPY requirements/worker.txt requirements/worker.txt
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes \
    -r requirements/worker.txt
COPY contracts contracts
COPY db db
COPY worker worker
COPY deploy/image/healthcheck.py healthcheck.py
RUN python -m compileall -q contracts db worker
# Probes and scrapers come from outside of the container.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app ORDER_WORKER_HTTP_HOST=0.0.0.0
# Numbers: Kubernetes cannot tell of a name whether it is root's.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "healthcheck.py"]
STOPSIGNAL SIGTERM
# What arrives while Python itself starts waits for our handlers: process 1 would never see it.
ENTRYPOINT ["env", "--block-signal=TERM", "--block-signal=INT", "python", "-m", "worker"]
CMD ["run"]
