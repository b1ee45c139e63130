"""Services that speak HTTP, and their keys."""
