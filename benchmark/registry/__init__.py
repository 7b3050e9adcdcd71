"""A model by name: names, options, loading, facts."""

from avbench.registry.names import list_models, load_model, resolve
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.system.lazy import modules_of

__all__ = ["ModelOptions", "StreamingModel", "list_models", "load_model", "resolve"]

__getattr__ = modules_of(__name__)  # the room's other modules
