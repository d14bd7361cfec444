"""What a worker answers over HTTP. It reads, on connections of its own, and changes nothing."""
