"""How work is executed: executors, memory budget, durable units."""
