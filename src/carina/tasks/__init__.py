"""Whole experiments: each module reads top to bottom from the data to the weights with their card.

Must not know the pipeline or the command line.
"""
