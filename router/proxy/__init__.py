"""The same router for every language: an OpenAI-compatible face over HTTP.

    from router import Router
    from router.proxy import application

    app = application(router, router.config.proxy)      # an ASGI app

Without keys it answers whoever reaches it: who that is, the application around it says. In
`video-router serve` that is this machine alone, and no page from elsewhere in a browser on it.

It has no routing logic of its own: each route reads a request into the arguments of one of the
Router's methods, and writes what comes of it as the official clients expect it.
"""

from router.proxy.app import application

__all__ = ["application"]
