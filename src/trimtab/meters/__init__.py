"""Reads variants: quality, latency, throughput, memory, size, work; one file per thing read."""
