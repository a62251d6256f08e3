"""Ratios against the way textbooks do it, measured in one run on one machine."""
