"""Is what was published what was measured? Records against their samples, pages against records."""
