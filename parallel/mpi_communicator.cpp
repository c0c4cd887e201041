// The device plane of CPUs: MPI on host memory.
#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>
#include <vector>

#include "parallel/mpi_internal.h"
#include "parallel/pulse.h"

namespace heddle {
namespace {

// bf16 has no MPI type: its sums are formed here, each rounded once.
void add_bf16(void* in, void* in_out, int* n, MPI_Datatype*) {
  const auto* from = static_cast<const bf16*>(in);
  auto* to = static_cast<bf16*>(in_out);
  for (int i = 0; i < *n; ++i) to[i] = bf16(static_cast<float>(to[i]) + static_cast<float>(from[i]));
}

// Messages under way; complete once waited for, at the latest when the last handle goes.
struct Requests {
  explicit Requests(std::shared_ptr<const MpiGroup> g, std::string_view o) : group(std::move(g)), op(o) {}
  ~Requests() {
    if (!all.empty() && mpi_is_running()) finish();
  }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  void wait() { group->check(op, finish()); }

  // Waits for every one; the first error, if there is one. One by one: Open MPI 4.1's MPI_Waitall does not come back when one of several had failed
  // before it was called.
  int finish() {
    const Waiting waiting;
    int error = MPI_SUCCESS;
    for (MPI_Request& request : std::exchange(all, {})) {
      const int code = MPI_Wait(&request, MPI_STATUS_IGNORE);
      if (error == MPI_SUCCESS) error = code;
    }
    return error;
  }

  std::shared_ptr<const MpiGroup> group;
  std::string_view op;
  std::vector<MPI_Request> all;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, const CommunicatorOptions& options) : group_(std::make_shared<MpiGroup>(comm)), most_bytes_(options.most_bytes) {
    if (options.time_joins) waited_ = std::make_shared<double>(0);
    MPI_Op_create(add_bf16, 1, &bf16_sum_);
  }
  ~MpiCommunicator() override {
    if (mpi_is_running()) MPI_Op_free(&bf16_sum_);
  }

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string_view name() const override { return "mpi"; }

  Work all_reduce(View data, Stream) override {
    const auto [type, sum] = number("all_reduce", data.dtype);
    auto requests = start("all_reduce");
    each_piece("all_reduce", data, [&, type = type, sum = sum](std::byte* p, int n) {
      return MPI_Iallreduce(MPI_IN_PLACE, p, n, type, sum, group_->comm(), &requests->all.emplace_back());
    });
    return handle(std::move(requests));
  }

  // To each rank its part: MPI's own scatter takes counts, but no more than an int of them.
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream) override {
    const auto [type, sum] = number("reduce_scatter", in.dtype);
    const std::vector<int64_t> all = part_counts("reduce_scatter", in, out, counts, rank(), size());
    auto requests = start("reduce_scatter");
    View part = in;
    part.rank = 1;
    part.stride[0] = 1;
    for (int root = 0; root < size(); ++root) {
      part.shape[0] = all[static_cast<size_t>(root)];
      std::byte* to = out.data;
      each_piece("reduce_scatter", part, [&, type = type, sum = sum](std::byte* p, int n) {
        const bool mine = root == rank(), in_place = mine && p == to;
        const int code =
            MPI_Ireduce(in_place ? MPI_IN_PLACE : p, mine ? to : nullptr, n, type, sum, root, group_->comm(), &requests->all.emplace_back());
        to += static_cast<int64_t>(n) * size_of(in.dtype);
        return code;
      });
      part.data += part.bytes();
    }
    return handle(std::move(requests));
  }

  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream) override {
    const std::vector<int64_t> all = part_counts("all_gather", out, in, counts, rank(), size());
    auto requests = start("all_gather");
    View part = out;
    part.rank = 1;
    part.stride[0] = 1;
    for (int root = 0; root < size(); ++root) {
      part.shape[0] = all[static_cast<size_t>(root)];
      if (root == rank() && part.data != in.data) std::copy_n(in.data, in.bytes(), part.data);
      send_from("all_gather", part, root, *requests);
      part.data += part.bytes();
    }
    return handle(std::move(requests));
  }

  Work broadcast(View data, int root, Stream) override {
    HEDDLE_CHECK(0 <= root && root < size(), "broadcast", "root ", root, " of ", size(), " ranks");
    auto requests = start("broadcast");
    send_from("broadcast", data, root, *requests);
    return handle(std::move(requests));
  }

  Work grouped(std::span<const Transfer> transfers, Stream) override {
    auto requests = start("grouped");
    for (const Transfer& t : transfers) {
      requests->op = t.send ? "send" : "recv";
      HEDDLE_CHECK(0 <= t.peer && t.peer < size(), requests->op, t.send ? "to" : "from", " rank ", t.peer, ": there are ", size(),
                   ", and this is rank ",
                   rank());  // MPI has meanings of its own for some of the others
      each_piece(requests->op, bytes_of(t.data), [&](std::byte* p, int n) {
        MPI_Request& request = requests->all.emplace_back(MPI_REQUEST_NULL);
        return t.send ? MPI_Isend(p, n, MPI_BYTE, t.peer, 0, group_->comm(), &request)
                      : MPI_Irecv(p, n, MPI_BYTE, t.peer, 0, group_->comm(), &request);
      });
    }
    return handle(std::move(requests));
  }

  double take_waited() override { return waited_ ? std::exchange(*waited_, 0) : 0; }

  void abort() override {
    const int code = static_cast<int>(ExitCode::hung);
    MPI_Abort(group_->comm(), code);
  }

 private:
  struct Number {
    MPI_Datatype type;
    MPI_Op sum;
  };
  Number number(std::string_view op, DType dtype) const {
    switch (dtype) {
      case DType::f32: return {MPI_FLOAT, MPI_SUM};
      case DType::f64: return {MPI_DOUBLE, MPI_SUM};
      case DType::i32: return {MPI_INT32_T, MPI_SUM};
      case DType::bf16: return {MPI_UINT16_T, bf16_sum_};
      default: fail(op, concat("sums of ", name_of(dtype), " values; f32, bf16, f64 and i32 are supported"));
    }
  }
  std::shared_ptr<Requests> start(const char* op) const {
    note_collective(op);
    return std::make_shared<Requests>(group_, op);
  }
  Work handle(std::shared_ptr<Requests> requests) const {
    if (!waited_) return Work([requests = std::move(requests)](Stream) { requests->wait(); });
    return Work([requests = std::move(requests), waited = waited_](Stream) {
      const auto begin = std::chrono::steady_clock::now();
      requests->wait();
      *waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
  }

  static View bytes_of(View v) {
    HEDDLE_CHECK(v.contiguous(), "communicator", "of a strided view ", shape_text(v));
    return make_view(v.data, DType::u8, {v.bytes()});
  }
  void send_from(std::string_view op, const View& data, int root, Requests& requests) const {
    each_piece(op, bytes_of(data),
               [&](std::byte* p, int n) { return MPI_Ibcast(p, n, MPI_BYTE, root, group_->comm(), &requests.all.emplace_back()); });
  }

  template <class Call>
  void each_piece(std::string_view op, const View& data, Call call) const {
    HEDDLE_CHECK(data.contiguous(), op, "of a strided view ", shape_text(data));
    const int64_t n = data.numel(), size = size_of(data.dtype);
    const int64_t piece = std::clamp<int64_t>(most_bytes_ / size, 1, std::numeric_limits<int>::max());
    for (int64_t done = 0; done < n; done += piece) group_->check(op, call(data.data + done * size, static_cast<int>(std::min(piece, n - done))));
  }

  std::shared_ptr<const MpiGroup> group_;
  int64_t most_bytes_;
  std::shared_ptr<double> waited_;  // where joins are timed
  MPI_Op bf16_sum_ = MPI_OP_NULL;
};

}  // namespace

std::unique_ptr<Communicator> mpi_communicator(MPI_Comm comm, const CommunicatorOptions& options) {
  return std::make_unique<MpiCommunicator>(comm, options);
}

}  // namespace heddle
