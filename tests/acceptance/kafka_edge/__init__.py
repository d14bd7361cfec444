"""Whatever a record, a topic or a broker does, no order is lost, blocked or hidden."""
