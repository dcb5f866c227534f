#!/bin/sh
# Starts the app with its configuration; exec, so that the app is process 1 and gets the signals.
exec /app-3.3.1/bin/app /app-3.3.1/bin/config.json
