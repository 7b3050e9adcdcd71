"""Embedded weights (safetensors, float16) and their cards (JSON)."""
