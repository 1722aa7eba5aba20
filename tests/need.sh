# shellcheck shell=bash
# Sourced by the scripts beside it.

# need PROGRAM PACKAGE: installs Debian's PACKAGE unless PROGRAM is there.
need() {
    local program=$1 package=$2
    command -v "$program" >/dev/null && return
    echo "installing $package, for $program"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    [ "$(id -u)" = 0 ] || apt=(sudo -n "${apt[@]}")
    if ! command -v apt-get >/dev/null || ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$package"; } >/dev/null; then
        echo "$program is missing, and the package $package could not be installed here: please install it" >&2
        return 1
    fi
}

# need_module MODULE PACKAGE: installs PyPI's PACKAGE below target/python, where tests look for Python's MODULE.
need_module() {
    local module=$1 package=$2 folder=target/python
    PYTHONPATH=$folder python3 -c "import $module" 2>/dev/null && return
    echo "installing $package, for Python's module $module"
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    if ! python3 -m pip install --quiet --root-user-action=ignore --upgrade --target "$folder" "$package"; then
        echo "Python's module $module is missing, and $package could not be installed here: please install it" >&2
        return 1
    fi
}
