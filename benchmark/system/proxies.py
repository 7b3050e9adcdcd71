"""What the proxy settings of this machine have to do with a failed connection, in words.

Only the names of the settings are told: an address may contain a password.
"""

from __future__ import annotations

import os

_NAMES = ("all_proxy", "https_proxy", "http_proxy")


def proxy_settings() -> dict[str, str]:
    """The environment variables that name a proxy, in the order of their names -> the scheme of the address ("")."""
    found = {name: value for name, value in sorted(os.environ.items()) if name.lower() in _NAMES and value}
    return {name: value.partition("://")[0].lower() if "://" in value else "" for name, value in found.items()}


def socks_settings() -> list[str]:
    """Those of the variables that name a SOCKS proxy."""
    return [name for name, scheme in proxy_settings().items() if scheme.startswith("socks")]


def unusable_proxy() -> str | None:
    """What to do about a proxy with which the hub's client cannot even be made; None if it can."""
    from huggingface_hub import utils

    try:
        utils.get_session()
    except OSError:  # a certificate that is not there, for example: no matter of the proxy
        return None
    except Exception:  # a missing package, an unknown scheme, an invalid address: each of a kind of its own
        if socks := " and ".join(socks_settings()):
            return f"{socks} names a SOCKS proxy, for which a package is missing: pip install socksio, or unset {socks}"
        where = " and ".join(proxy_settings()) or "the system's settings"
        return f"the proxy in {where} cannot be used: its address must be like http://HOST:PORT; correct or remove it"
    return None


def proxy_hint(socks: bool = True) -> str:
    """To be added to the message of a failed connection: "; ..." if a proxy is set, else "".

    ``socks`` False: the connection cannot go through a SOCKS proxy.
    """
    if not socks and (unused := " and ".join(socks_settings())):
        return f"; it cannot go through the SOCKS proxy in {unused}: set HTTPS_PROXY to an http proxy"
    return f"; a proxy is set in {' and '.join(names)}" if (names := list(proxy_settings())) else ""
