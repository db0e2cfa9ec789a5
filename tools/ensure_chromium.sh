#!/bin/sh
# Makes sure there is a Chromium for the console's story, if that is possible without asking anybody.
# Never fails: without a browser the story is skipped, and says so.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
[ "${OPENLINE_NO_INSTALL:-}" = "" ] || exit 0
[ "$(id -u)" = "0" ] && command -v apt-get >/dev/null 2>&1 || exit 0
grep -q "^ID=debian" /etc/os-release 2>/dev/null || exit 0  # not what is like it: Ubuntu's package is a stub for snap
echo "setup: no Chromium for the console's story; trying Debian's package (at most 5 minutes)"
export DEBIAN_FRONTEND=noninteractive
timeout 60 apt-get update -qq >/dev/null 2>&1
timeout 240 apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 \
    || echo "setup: it could not be installed; the browser story will be skipped"
exit 0
