"""What a node counts, and the small HTTP server that shows it."""

from keycache.metrics.http import HttpServer
from keycache.metrics.registry import METRICS, CallMeter, ClusterSnapshot, Metrics, Snapshot

__all__ = ["METRICS", "CallMeter", "ClusterSnapshot", "HttpServer", "Metrics", "Snapshot"]
