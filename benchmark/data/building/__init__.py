"""From a folder of raw videos to a labelled split: ``stages.build`` is the way in."""
