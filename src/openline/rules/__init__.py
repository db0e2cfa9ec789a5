"""The small built-in language model, as pure functions over the items of a conversation.

``engine.RuleEngine.decide(request)`` is the whole of it: the same request gives the same reply, and there is
no state between calls, so a restarted process answers as if nothing had happened. What it may say is in
``rules.toml``; nothing in this folder awaits, reads a clock, or touches the network.
"""
