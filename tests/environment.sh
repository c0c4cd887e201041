# Sourced by test.sh and nightly.sh: what tests run under, two at a time, each with its share of the cores; MPI tests start several ranks on them.
tests_at_once=2
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / tests_at_once > 0 ? cores / tests_at_once : 1))}
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none  # more ranks than cores, none pinned to core 0
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1                 # containers run as root
  export OMPI_MCA_btl_vader_single_copy_mechanism=none                             # and mostly without ptrace rights
fi
