"""The loop with a PACS: receive or fetch studies, have them analysed, bring the results back.

Everything waits in a queue on disk (``queue``), so that the end of any process loses nothing and repeats nothing. The
analysis itself is ``carina detect`` in a process of its own. Must not know networks, nor what is in a report.
"""
