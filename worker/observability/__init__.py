"""What a worker shows of itself: health, metrics, traces, log. Written by the pipeline, read over HTTP."""
