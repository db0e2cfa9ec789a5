"""The web console: static files, served by ``openline.server.console_files`` at ``/console``.

No build step, nothing fetched from other hosts. The modules import each other by relative names;
``index.html`` names them by their absolute path, so that ``/console`` needs no trailing slash.

Tested: Chromium 156 on Debian 12, headless, on a desktop's screen and a phone's (390 × 844, touch, emulated). Expected,
not tested: other current browsers; they need AudioWorklet, WebSocket and, for the microphone, https or localhost.
"""
