"""Fronts of other runtimes, for ``python -m bench peers``. Each runs in an environment of its own."""
