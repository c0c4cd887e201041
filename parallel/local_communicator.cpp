// One rank: every collective is the identity, checked like the others.
#include "core/device.h"
#include "kernels/api/check.h"
#include "parallel/communicator.h"

namespace heddle {

std::vector<int64_t> part_counts(std::string_view op, const View& whole, const View& part, std::span<const int64_t> counts, int rank, int size) {
  HEDDLE_CHECK(whole.contiguous() && part.contiguous(), op, "of a strided view ", shape_text(whole.contiguous() ? part : whole));
  HEDDLE_CHECK(whole.dtype == part.dtype, op, name_of(whole.dtype), " and ", name_of(part.dtype));
  std::vector<int64_t> all(counts.begin(), counts.end());
  if (all.empty()) all.assign(static_cast<size_t>(size), whole.numel() / size);
  HEDDLE_CHECK(all.size() == static_cast<size_t>(size), op, all.size(), " counts on ", size, " ranks");
  int64_t sum = 0;
  for (const int64_t n : all) {
    HEDDLE_CHECK(n >= 0, op, "a part of ", n, " elements");
    sum += n;
  }
  HEDDLE_CHECK(sum == whole.numel() && all[static_cast<size_t>(rank)] == part.numel(), op, shape_text(part), " as a part of ", shape_text(whole),
               " on ", size, " ranks");
  return all;
}

namespace {

class LocalCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string_view name() const override { return "local"; }

  Work all_reduce(View, Stream) override { return {}; }
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream stream) override {
    part_counts("reduce_scatter", in, out, counts, 0, 1);
    return copy(in, out, stream);
  }
  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream stream) override {
    part_counts("all_gather", out, in, counts, 0, 1);
    return copy(in, out, stream);
  }
  Work broadcast(View, int root, Stream) override {
    HEDDLE_CHECK(root == 0, "broadcast", "root ", root, " of 1 rank");
    return {};
  }
  Work grouped(std::span<const Transfer> transfers, Stream) override {
    for (const Transfer& t : transfers) fail(t.send ? "send" : "recv", concat(t.send ? "to" : "from", " rank ", t.peer, ": there is one rank"));
    return {};
  }
  void abort() override {}

 private:
  static Work copy(const View& in, const View& out, Stream stream) {
    if (in.data != out.data) {
      const StreamGuard on(stream);
      copy_bytes(out.data, stream.device, in.data, stream.device, static_cast<size_t>(in.bytes()));
    }
    return {};
  }
};

}  // namespace

std::unique_ptr<Communicator> local_communicator() {
  return std::make_unique<LocalCommunicator>();
}

}  // namespace heddle
