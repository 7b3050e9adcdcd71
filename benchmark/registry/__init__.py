"""A model by name: names, options, loading, facts."""

from avbench.registry.names import list_models, load_model, resolve
from avbench.registry.options import ModelOptions, StreamingModel

__all__ = ["ModelOptions", "StreamingModel", "list_models", "load_model", "resolve"]
