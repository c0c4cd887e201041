# Sourced by test.sh and quickstart.sh: the Debian and Ubuntu packages that building heddle and its tests takes.
heddle_packages="g++ cmake ninja-build ccache libeigen3-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev catch2 libssl-dev zlib1g-dev
                 libzstd-dev libdnnl-dev libopenmpi-dev openmpi-bin"
# optional_packages LOG "PACKAGE|WHAT IS LEFT OUT WITHOUT IT"...: installs those that can be had, one line for each other; never fails.
optional_packages() {
  local log=$1 row
  shift
  need_packages "$log" "${@%%|*}" 2>/dev/null && return
  for row in "$@"; do
    need_packages "$log" "${row%%|*}" 2>/dev/null || echo "without the package ${row%%|*} ${row#*|} is skipped"
  done
  return 0
}

# need_packages LOG PACKAGE...: installs those that are missing, as root or through sudo; fails with the line to type when it cannot.
# install_packages=0 never installs, and nothing is removed for what is installed. Without apt-get it trusts the machine: the table of configure names what is missing.
need_packages() {
  local log=$1 missing=() as_root=() package
  shift
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    return 0
  fi
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} != 0 ] || return 0
  local line="apt-get install --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
  fi
  if [ "${install_packages:-1}" = 0 ] || { [ ${#as_root[@]} != 0 ] && ! command -v sudo >/dev/null; }; then
    echo "missing packages; install them as root, then run this again:  $line" >&2
    return 1
  fi
  echo "installing ${missing[*]}"
  [ -n "${apt_lists:-}" ] || { "${as_root[@]}" apt-get update -qq >"$log" 2>&1 && apt_lists=fresh || apt_lists=stale; }  # once a script
  if [ $apt_lists = stale ] ||
    ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "apt-get failed (whole log: $log). Without a network, install from elsewhere:  $line" >&2
    return 1
  fi
}

# need_cuobjdump FOLDER: where nvcc has no cuobjdump beside it, unpacks PyPI's packages of it (NVIDIA's own) into FOLDER/nvidia; fails when it cannot.
# Nothing to do where there is no nvcc: only the tests cuda_sass_* read machine code.
need_cuobjdump() {
  local folder=$1 nvcc python
  nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc) || return 0
  if command -v cuobjdump >/dev/null || [ -x "${nvcc%/*}/cuobjdump" ] || [ -x "$folder/nvidia/cuobjdump" ]; then
    return 0
  fi
  python=$(command -v python3) && [ "${install_packages:-1}" = 1 ] || return 1
  mkdir -p "$folder"
  # nvdisasm must lie beside cuobjdump.
  "$python" -m pip download -q --no-deps -d "$folder" nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm >"$folder/pip.log" 2>&1 &&
    "$python" - "$folder" <<'PYTHON'
import glob, os, sys, zipfile
folder = os.path.join(sys.argv[1], "nvidia")
os.makedirs(folder, exist_ok=True)
for wheel in glob.glob(os.path.join(sys.argv[1], "nvidia_cuda_*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            program = os.path.basename(name)
            if program in ("cuobjdump", "nvdisasm"):
                with open(os.path.join(folder, program), "wb") as out:
                    out.write(archive.read(name))
                os.chmod(out.name, 0o755)
PYTHON
}
