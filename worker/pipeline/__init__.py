"""The pipeline of one worker: from polled records to published outcomes and committed offsets."""
