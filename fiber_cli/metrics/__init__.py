"""Pure metric functions and accumulators."""
