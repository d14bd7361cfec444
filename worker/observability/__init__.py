"""What a worker tells of itself: health, metrics, log. Written by the pipeline, read over HTTP."""
