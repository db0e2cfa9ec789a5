"""The web console: static files, served by ``openline.server.console_files`` at ``/console``.

No build step, nothing fetched from other hosts. The modules import each other by relative names;
``index.html`` names them by their absolute path, so that ``/console`` needs no trailing slash.
"""
