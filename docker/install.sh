#!/bin/sh
# A build step: install the packages of /context/lock.txt into a new environment, /opt/repblend/venv.
set -eu
export SOURCE_DATE_EPOCH=315532800 # without a date, packages built here would differ from build to build
export PYTHONDONTWRITEBYTECODE=1 # all of it is compiled below, in one way
cd /context

set -- --no-cache-dir --no-compile --progress-bar off --disable-pip-version-check --root-user-action ignore
if [ -n "$(ls wheelhouse)" ]; then
  set -- "$@" --no-index --find-links wheelhouse
fi
if [ -n "$(ls ca)" ]; then
  cat /etc/ssl/certs/ca-certificates.crt ca/* > authorities.pem
  set -- "$@" --cert authorities.pem
fi

# The environment has no pip of its own. The locked setuptools comes first, and builds what exists only as a source
# archive; left to itself, pip would fetch the newest for that.
awk '/^setuptools==/ {found = 1} found {print} found && !/\\$/ {exit}' lock.txt > setuptools.txt
python3 -m venv --without-pip /opt/repblend/venv
for requirements in setuptools.txt lock.txt; do
  python3 -m pip --python /opt/repblend/venv/bin/python install "$@" \
    --use-pep517 --no-build-isolation --require-hashes -r "$requirements"
done

# Bytecode that is never compared with its source: dates would make every build another, and nobody edits an image.
# Some packages ship templates that are no Python yet; they are left as they are.
/opt/repblend/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/repblend/venv/lib ||
  echo "compileall: some files are not Python"
