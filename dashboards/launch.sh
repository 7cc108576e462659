#!/bin/sh
# Starts database, dashboard and proxy; makes the secrets that are missing first.
#   ./launch.sh                                            https://localhost, for this machine
#   S3SEARCH_HOST=studies.example.org S3SEARCH_BIND=0.0.0.0 ./launch.sh
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets artifacts

random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

if [ ! -s secrets/database_password ]; then
    random | tr -d '\n' > secrets/database_password
fi
if [ ! -s secrets/logins ]; then
    password=$(random)
    name=${USER:-s3search}
    if command -v htpasswd > /dev/null; then
        printf '%s' "$password" | htpasswd -niB "$name" > secrets/logins
        echo "The login of the dashboard is $name with the password $password, which is kept nowhere else."
    else
        printf '%s:%s\n' "$name" "$password" > secrets/logins
        echo "The login of the dashboard is in dashboards/secrets/logins, readable: htpasswd is not installed."
    fi
    echo "Add lines for others to dashboards/secrets/logins: htpasswd -nB NAME prints one."
fi
# the containers' users are not this one and read the files; nobody else here enters the folder
chmod 0700 secrets
chmod 0444 secrets/database_password secrets/logins
chmod 0755 artifacts

if [ "${1:-}" = "--secrets-only" ]; then
    exit 0
fi
docker compose up --detach --build
echo "Dashboard: https://${S3SEARCH_HOST:-localhost}/studies (after the first result of a study)"
echo "Studies:   s3search launch STUDY.toml --storage postgresql+psycopg://s3search@127.0.0.1:${S3SEARCH_DATABASE_PORT:-5432}/s3search"
echo "           with the password: export PGPASSWORD=\"\$(cat $(pwd)/secrets/database_password)\""
