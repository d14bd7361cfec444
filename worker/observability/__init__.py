"""Health, metrics, traces and log of a worker. Written by the pipeline, read over HTTP."""
