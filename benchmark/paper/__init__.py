"""The paper's tables and figures: the reported numbers as data, and every table and figure measured again by replay.

``reported``    what the paper reports (``reported.json``, the only place where its numbers are written)
``replays``     the streams that the requested tables need, from one store
``exhibits``    the tables and figures: cells with intervals, and verdicts on the orderings that the paper claims
``changing``    what the paper expected of offsets that change: scores, verdicts, curves
``records``     Table 5: the stored results of its own trainings
``write``       Markdown, CSV, JSON, SVG and PNG
``regenerate``  all of it: what ``avbench paper`` does
"""
