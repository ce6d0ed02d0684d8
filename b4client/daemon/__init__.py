"""The shell: event loop, sockets, control socket, store. The only asyncio code of the project."""
