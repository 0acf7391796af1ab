#!/bin/sh
# Train as the owner of the mounted model store, so that the bundle belongs on the host to whoever owns that folder, and
# not to root. Which user that is shows only when the folder is mounted; hence this step at the start, for which Compose
# leaves root two capabilities, SETUID and SETGID. They are gone with the change of user, and nothing runs before it.
set -eu
if [ "$(id -u)" -ne 0 ]; then exec python -m training "$@"; fi  # `--user` has chosen already
owner=$(stat -c %u model_store) group=$(stat -c %g model_store)
exec setpriv --reuid "$owner" --regid "$group" --clear-groups --inh-caps=-all python -m training "$@"
