"""Clips and labels: media reading, SynthSync, manifests over own files."""
