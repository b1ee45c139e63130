"""Measures what this machine makes of fixed workloads (`rlcore bench`)."""
