"""The paper's tables and figures: what it reports as data, and every one of them measured again by replay.

``reported``  what the paper reports (``reported.json``, the only place where its numbers are written)
``replays``   the union of the streams that the asked-for tables need, from one store
``exhibits``  the tables and figures: cells with intervals, and verdicts on the orderings that the paper claims
``records``   Table 5, which needs trainings of its own: their results
``write``     Markdown, CSV, JSON, SVG and PNG
"""
