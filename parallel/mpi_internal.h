// What the two MPI planes share. MPI's header appears in the mpi_* files alone.
#pragma once

#include <memory>
#include <string_view>

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include "kernels/api/check.h"
#include "parallel/communicator.h"
#include "parallel/control.h"

namespace heddle {

bool mpi_is_running();

// A communicator of MPI's that is freed with its owner; errors return.
class MpiGroup {
 public:
  explicit MpiGroup(MPI_Comm comm);  // takes it over
  ~MpiGroup();
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;

  MPI_Comm comm() const { return comm_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm duplicate() const;
  // Error naming the call and this rank unless `code` is MPI_SUCCESS.
  void check(std::string_view op, int code) const;

 private:
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
};

std::unique_ptr<Control> mpi_control(MPI_Comm comm);
std::unique_ptr<Communicator> mpi_communicator(MPI_Comm comm, const CommunicatorOptions& options);

}  // namespace heddle
