#!/bin/sh
# Makes the database cluster in $PGDATA on the first start, then becomes the server.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
	"$bin/initdb" --username=postgres --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust >/dev/null
	rm /tmp/password
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
fi
exec "$bin/postgres" -c listen_addresses='*' "$@"
