"""Serving: an HTTP API with jobs and batched classification, and a small WSGI form. Must not import ``carina.tasks``.

Carina is for research use; the servers say so in every report.
"""
