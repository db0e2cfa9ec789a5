"""The demo: a real call with recorded caller speech against a gateway of its own.

``phrases`` is what the caller can say and where it is recorded.
"""
