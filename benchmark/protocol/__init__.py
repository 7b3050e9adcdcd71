"""The rules of an evaluation: protocol and signature, manifest, plan, tracks."""

from avbench.protocol.rules import PROTOCOLS, Protocol, paper, streaming

__all__ = ["PROTOCOLS", "Protocol", "paper", "streaming"]
