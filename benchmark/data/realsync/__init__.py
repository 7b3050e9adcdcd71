"""From the published lists of fixed offsets to manifests: ``importing.import_lists`` is the way in.

``own_lists`` and ``fixed_offsets`` read lists, ``finding`` and ``measuring`` look for the clips, ``report`` counts.
"""
