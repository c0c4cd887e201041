// The device plane of CPUs: MPI on host memory.
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <numeric>
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

// Memory in which the parts of other ranks arrive, kept for the next ones: fresh memory costs a page fault for each of its pages.
class Arrivals {
 public:
  struct Place {
    std::unique_ptr<std::byte[]> memory;
    size_t bytes = 0;
  };
  Place take(size_t bytes) {
    const auto fits = [&](const Place& p) { return p.bytes >= bytes && p.bytes <= 2 * bytes; };
    const auto it = std::find_if(idle_.begin(), idle_.end(), fits);
    if (it == idle_.end()) return {std::unique_ptr<std::byte[]>(new std::byte[bytes]), bytes};
    Place place = std::move(*it);
    idle_.erase(it);
    return place;
  }
  void give_back(Place place) { idle_.push_back(std::move(place)); }

 private:
  std::vector<Place> idle_;
};

template <class T>
void add_to(std::byte* sum, const std::byte* part, int64_t n) {
  auto* const to = reinterpret_cast<T*>(sum);
  const auto* const from = reinterpret_cast<const T*>(part);
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

// Adds up what all ranks hold of one part: the others' come here and are added in rank order to this one's, which lies in `sum`.
class PartSum {
 public:
  PartSum(std::shared_ptr<Requests> requests, std::shared_ptr<Arrivals> arrivals, View sum, int others)
      : requests_(std::move(requests)), arrivals_(std::move(arrivals)), sum_(sum), others_(others) {
    place_ = arrivals_->take(static_cast<size_t>(others * sum.bytes()));
  }
  ~PartSum() {
    requests_.reset();  // waits: until then messages may arrive
    arrivals_->give_back(std::move(place_));
  }
  PartSum(const PartSum&) = delete;
  PartSum& operator=(const PartSum&) = delete;

  std::byte* place_of(int other) const { return place_.memory.get() + other * sum_.bytes(); }
  Requests& requests() const { return *requests_; }
  void finish() {
    requests_->wait();
    for (int other = 0; other < others_; ++other) {
      (sum_.dtype == DType::f64 ? add_to<double> : add_to<float>)(sum_.data, place_of(other), sum_.numel());
    }
  }

 private:
  std::shared_ptr<Requests> requests_;
  std::shared_ptr<Arrivals> arrivals_;
  View sum_;
  int others_;
  Arrivals::Place place_;
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
    if (adds_itself(data)) return reduce_by_parts(data);
    auto requests = start("all_reduce");
    each_piece("all_reduce", data, [&, type = type, sum = sum](std::byte* p, int n) {
      return MPI_Iallreduce(MPI_IN_PLACE, p, n, type, sum, group_->comm(), &requests->all.emplace_back());
    });
    return handle(std::move(requests));
  }

  // To each rank its part. MPI's own scatter takes counts, but no more than an int of them; what it adds it adds slowly (adds_itself).
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream) override {
    const auto [type, sum] = number("reduce_scatter", in.dtype);
    const std::vector<int64_t> all = part_counts("reduce_scatter", in, out, counts, rank(), size());
    if (adds_itself(in)) {
      const int64_t before = std::accumulate(all.begin(), all.begin() + rank(), int64_t{0});
      const View mine = flat(in, before, all[static_cast<size_t>(rank())]);
      if (mine.data != out.data) std::copy_n(mine.data, mine.bytes(), out.data);
      auto sum_of_part = send_parts("reduce_scatter", in, all, flat(out, 0, out.numel()));
      return timed([sum_of_part] { sum_of_part->finish(); });
    }
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
      exchange(requests->op, bytes_of(t.data), t.peer, 0, t.send, *requests);
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
    return timed([requests = std::move(requests)] { requests->wait(); });
  }
  template <class Join>
  Work timed(Join join) const {
    if (!waited_) return Work([join](Stream) { join(); });
    return Work([join, waited = waited_](Stream) {
      const auto begin = std::chrono::steady_clock::now();
      join();
      *waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
  }

  // Large sums in fp32 and f64 are formed here from plain messages: Open MPI 4.1's non-blocking reductions take several times as long.
  bool adds_itself(const View& v) const {
    constexpr int64_t kLeast = int64_t{64} << 10;
    return (v.dtype == DType::f32 || v.dtype == DType::f64) && v.contiguous() && v.bytes() >= kLeast && size() > 1;
  }
  static View flat(const View& v, int64_t begin, int64_t n) { return make_view(v.data + begin * size_of(v.dtype), v.dtype, {n}); }

  // Sends each rank its part of `whole`, cut as `counts` says, and receives this rank's of the others, to be added to `sum`.
  std::shared_ptr<PartSum> send_parts(const char* op, const View& whole, const std::vector<int64_t>& counts, View sum) {
    auto part_sum = std::make_shared<PartSum>(start(op), arrivals_, sum, size() - 1);
    const int tag = next_tag();
    int64_t before = 0;
    for (int peer = 0, other = 0; peer < size(); ++peer) {
      const int64_t n = counts[static_cast<size_t>(peer)];
      if (peer != rank()) {
        exchange(op, make_view(part_sum->place_of(other++), DType::u8, {sum.bytes()}), peer, tag, false, part_sum->requests());
        exchange(op, bytes_of(flat(whole, before, n)), peer, tag, true, part_sum->requests());
      }
      before += n;
    }
    return part_sum;
  }
  // All get the sum: each rank forms that of its part, then tells the others.
  Work reduce_by_parts(const View& data) {
    std::vector<int64_t> counts, begins;
    for (int r = 0; r < size(); ++r) {
      begins.push_back(data.numel() * r / size());
      counts.push_back(data.numel() * (r + 1) / size() - begins.back());
    }
    const auto part = [=](int r) { return flat(data, begins[static_cast<size_t>(r)], counts[static_cast<size_t>(r)]); };
    auto part_sum = send_parts("all_reduce", data, counts, part(rank()));
    return timed([part_sum, part, tag = next_tag(), this, group = group_] {
      part_sum->finish();
      Requests told(group, "all_reduce");
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        exchange("all_reduce", bytes_of(part(peer)), peer, tag, false, told);
        exchange("all_reduce", bytes_of(part(rank())), peer, tag, true, told);
      }
      told.wait();
    });
  }
  void exchange(std::string_view op, const View& bytes, int peer, int tag, bool send, Requests& requests) const {
    each_piece(op, bytes, [&](std::byte* p, int n) {
      MPI_Request& request = requests.all.emplace_back(MPI_REQUEST_NULL);
      return send ? MPI_Isend(p, n, MPI_BYTE, peer, tag, group_->comm(), &request) : MPI_Irecv(p, n, MPI_BYTE, peer, tag, group_->comm(), &request);
    });
  }
  // Calls come in the same order on every rank. 0 is grouped()'s.
  int next_tag() {
    constexpr int kTags = 30000;  // MPI promises 32767
    return 1 + tags_++ % kTags;
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
  std::shared_ptr<Arrivals> arrivals_ = std::make_shared<Arrivals>();
  int tags_ = 0;
  MPI_Op bf16_sum_ = MPI_OP_NULL;
};

}  // namespace

std::unique_ptr<Communicator> mpi_communicator(MPI_Comm comm, const CommunicatorOptions& options) {
  return std::make_unique<MpiCommunicator>(comm, options);
}

}  // namespace heddle
