"""Every number that Openline publishes, made again by one command: ``python -m bench`` (``make bench``)."""
