#!/usr/bin/env bash
# Fetches the SQL clients that the tests run beside psql, and prints where they are, for the shell to evaluate:
#
#   eval "$(tests/sql/clients.sh)"
#
# psycopg 3, SQLAlchemy 2 and pyarrow from PyPI into a virtual environment, PostgreSQL's JDBC driver from Maven Central.
# What is there already is kept. Needs python3 with venv, and Maven; without one of them a line says so, and the tests
# say what they did not run.
#
# Environment: REBOUND_SQL_CLIENTS  where they go (default: target/ beside this script)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${REBOUND_SQL_CLIENTS:-$here/target}
jdbc=42.7.8
mkdir -p "$home"

python=$home/python/bin/python
if [[ ! -f $home/python/.complete ]]; then
  rm -rf "$home/python"
  if python3 -m venv "$home/python" >&2 \
    && "$home/python/bin/pip" install -q 'psycopg[binary]>=3.2,<4' 'sqlalchemy>=2,<3' 'pyarrow>=15' >&2; then
    touch "$home/python/.complete"
  else
    echo "clients.sh: psycopg and SQLAlchemy could not be installed" >&2
  fi
fi
[[ -f $home/python/.complete ]] && echo "export REBOUND_TEST_PYTHON=$python"

jar=$home/postgresql-$jdbc.jar
if [[ ! -f $jar ]]; then
  mvn -q -B dependency:copy "-Dartifact=org.postgresql:postgresql:$jdbc" "-DoutputDirectory=$home" >&2 \
    || echo "clients.sh: the JDBC driver could not be fetched" >&2
fi
[[ -f $jar ]] && echo "export REBOUND_TEST_JDBC=$jar"
exit 0
