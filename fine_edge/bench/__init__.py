"""Latency tables: measure, record, render. What is measured and how: ``bench/METHOD.md``."""
