# The worker alone: no test tools, no local servers. The packages are copied as they are, because
# nothing about them needs building.
FROM python:3.13-slim
RUN useradd --create-home --uid 10001 worker
WORKDIR /app
COPY requirements/worker.txt requirements/worker.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/worker.txt
COPY contracts contracts
COPY db db
COPY worker worker
# Probes and scrapers come from outside of the container.
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app ORDER_WORKER_HTTP_HOST=0.0.0.0
USER worker
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
# What arrives while Python itself starts waits for our handlers: process 1 would never see it.
ENTRYPOINT ["env", "--block-signal=TERM", "--block-signal=INT", "python", "-m", "worker"]
CMD ["run"]
