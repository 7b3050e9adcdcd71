"""The rules of an evaluation: protocol and signature, manifest, plan, tracks."""

from avbench.protocol.rules import PROTOCOLS, Protocol, paper, streaming
from avbench.system.lazy import modules_of

__all__ = ["PROTOCOLS", "Protocol", "paper", "streaming"]

__getattr__ = modules_of(__name__)  # the room's other modules
