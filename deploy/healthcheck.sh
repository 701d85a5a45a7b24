#!/bin/bash
# Ends with 0 when the server at HOST PORT (default: 127.0.0.1 1337) says that it takes traffic.
# The image has no curl; bash can open connections itself.
exec 3<>"/dev/tcp/${1:-127.0.0.1}/${2:-1337}" || exit 1
printf 'GET /readyz HTTP/1.1\r\nHost: healthcheck\r\nConnection: close\r\n\r\n' >&3
read -r -t 2 _ status _ <&3 && [ "$status" = 200 ]
