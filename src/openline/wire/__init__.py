"""Bytes to core types and back, for each protocol. Pure: no clock, no chance, no I/O.

- ``client_events``: what clients send; with ``check`` (one field), ``items``, ``session_config``, ``requests``
- ``render``: facts to frames; ``frames``: frames that are no facts; ``events``: the table of all of them
- ``envelope``: stored steps, and facts as CloudEvents
"""
