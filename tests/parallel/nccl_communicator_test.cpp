// What NCCL on simulated GPUs does beyond mpi_communicator_test.cpp: order by events, ranks that do not come, devices that are not one's own.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "core/device_cuda.h"
#include "core/tensor.h"
#include "kernels/api/check.h"
#include "kernels/api/multiprocessors.h"
#include "parallel/local_device.h"
#include "parallel/mesh.h"
#include "parallel/nccl_communicator.h"
#include "parallel/preflight.h"
#include "parallel/pulse.h"
#include "tests/parallel/fake_ras.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
Device device() {
  return {DeviceType::cuda, device_of_rank(runtime(DeviceType::cuda).device_count())};
}
std::unique_ptr<Control> copy_of_world() {
  return control().split(0, control().rank());
}
std::unique_ptr<Communicator> communicator() {
  return copy_of_world()->communicator(device());
}
struct Failure {
  std::string text = "no error";
  ExitCode code = ExitCode::ok;
};
Failure failure(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return {e.what(), e.code()};
  }
  return {};
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("a collective comes after what its stream was given, what joins it after the collective, and the host waits for nothing") {
  const auto comm = communicator();
  const OwnStream first(device()), second(device());
  const int n = 1000, ranks = control().size();
  const size_t bytes = n * sizeof(float);
  const PinnedMemory from(device(), bytes), to(device(), bytes);
  const Tensor x = Tensor::zeros({n}, DType::f32, device()), y = Tensor::zeros({n}, DType::f32, device());
  synchronize(device());
  for (int round = 1; round <= 20; ++round) {  // the streams' order is another one each time
    for (int i = 0; i < n; ++i) reinterpret_cast<float*>(from.data())[i] = static_cast<float>(round);
    const uint64_t waits = runtime(DeviceType::cuda).host_synchronisations();
    copy_async(x.impl().data, device(), from.data(), Device{}, bytes, first);
    const Work sum = comm->all_reduce(x.view(), first);
    const Work other = comm->broadcast(y.view(), 0, second);  // another stream's: kept in the order of the calls
    sum.join(second);
    copy_async(to.data(), Device{}, x.impl().data, device(), bytes, second);
    other.join(second);
    CHECK(runtime(DeviceType::cuda).host_synchronisations() == waits);
    runtime(DeviceType::cuda).synchronize(static_cast<Stream>(second));
    CHECK(reinterpret_cast<const float*>(to.data())[n - 1] == static_cast<float>(round * ranks));
  }
}

TEST_CASE("while a collective is under way kernels' grids leave it the multiprocessors that NCCL may take") {
  const auto free = [] { return kernels::multiprocessors_beside_communication(132); };
  const OwnStream stream(device());
  const Tensor x = Tensor::zeros({8}, DType::f32, device()), y = Tensor::zeros({8}, DType::f32, device());
  synchronize(device());
  for (const auto& [told, left] : {std::pair<const char*, int>{nullptr, 116}, {"4", 128}, {"none", 116}, {"0", 116}}) {
    if (told) setenv("NCCL_MAX_CTAS", told, 1);
    CAPTURE(told ? told : "");
    const auto comm = communicator();
    CHECK(free() == 132);
    std::optional<Work> sum = comm->all_reduce(x.view(), stream);
    CHECK(free() == left);
    const Work other = comm->broadcast(y.view(), 0, stream);
    CHECK(free() == left);
    sum->join(stream);
    sum->join(stream);
    CHECK(free() == left);
    other.join(stream);
    CHECK(free() == 132);
    sum = comm->all_reduce(x.view(), stream);
    CHECK(free() == left);
    sum.reset();  // nobody can join it any more
    CHECK(free() == 132);
    runtime(DeviceType::cuda).synchronize(static_cast<Stream>(stream));
    unsetenv("NCCL_MAX_CTAS");
  }
}

TEST_CASE("collectives that a graph captured run at each of its launches") {
  const auto comm = communicator();
  const OwnStream stream(device());
  const Tensor x = Tensor::full({8}, 1, DType::f32, device());
  synchronize(device());
  Runtime& cuda = runtime(DeviceType::cuda);
  cuda.begin_capture(stream);
  comm->all_reduce(x.view(), stream).join(stream);
  void* const graph = cuda.end_capture(stream);
  for (int i = 0; i < 2; ++i) cuda.launch_graph(graph, stream);
  cuda.synchronize(static_cast<Stream>(stream));
  CHECK(x.to_vector() == std::vector<double>(8, control().size() * control().size()));
  cuda.destroy_graph(graph);
}

TEST_CASE("a rank that does not come to the start is named, in time, and the others end") {
  const std::unique_ptr<Control> group = copy_of_world();
  const int absent = group->size() - 1;
  control().barrier();
  if (group->rank() != absent) {
    const auto begin = std::chrono::steady_clock::now();
    const Failure f = failure([&] { nccl_communicator(*group, device(), 0.5); });
    INFO(f.text);
    CHECK(f.code == ExitCode::hung);
    CHECK(has(f.text, "no answer within 0.5 s"));
    if (group->rank() == 0) CHECK(has(f.text, concat(absent, ": hung")));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));
  }
  control().barrier();
}

TEST_CASE("ranks that would share a GPU are told which two, and what to do") {
  const std::unique_ptr<Control> group = copy_of_world();
  const int last = group->size() - 1;
  const std::string own = cuda_device_uuid(device().index);
  CHECK(own.size() == 40);
  require_own_devices(*group, own, device(), 60);
  const Failure f = failure([&] { require_own_devices(*group, group->rank() == last ? "GPU-0" : concat("GPU-", group->rank()), device(), 60); });
  CHECK(f.code == ExitCode::usage);
  CHECK(has(f.text, concat("ranks 0 and ", last, " use the same GPU, GPU-0 (cuda:0 of ")));
  CHECK(has(f.text, "--gpus-per-task=1"));
}

TEST_CASE("ranks that no group of a mesh has both of are told that they would share a GPU") {
  if (control().size() != 4) return;
  // 0 and 3 are in no row and no column together.
  const Device shared = control().rank() == 3 ? Device{DeviceType::cuda, 0} : device();
  const Failure f = failure([&] { const Mesh mesh(copy_of_world(), 2, 2, shared); });
  CHECK(f.code == ExitCode::usage);
  CHECK(has(f.text, "ranks 0 and 3 use the same GPU"));
}

TEST_CASE("when nothing goes on, NCCL's own service is asked, once, and forgotten when it goes on") {
  std::atomic<int> asked{0};
  const test::FakeRas ras([&](const std::string& line) {
    asked += line == "VERBOSE STATUS";
    return test::FakeRas::properly(line, "rank 1 is missing\n");
  });
  {
    const auto comm = nccl_communicator(*copy_of_world(), device(), 1);
    const auto comes = [](const std::function<bool()>& what) {
      for (int i = 0; i < 20000 && !what(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return what();
    };
    if (control().rank() == 0) {
      CHECK(comes([] { return has(late_note(), ":\n    rank 1 is missing\n"); }));
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      CHECK(asked == 1);
      mark_progress();
      CHECK(comes([] { return late_note().empty(); }));
    }
    control().barrier();
    CHECK((control().rank() == 0 || asked == 0));
  }
}

// A communicator whose rank brings other numbers than it means to.
class Spoilt final : public Communicator {
 public:
  Spoilt(Communicator& whole, bool spoil) : whole_(whole), spoil_(spoil) {}
  int rank() const override { return whole_.rank(); }
  int size() const override { return whole_.size(); }
  std::string_view name() const override { return "nccl"; }
  Work all_reduce(View data, Stream stream) override {
    if (spoil_) {
      const float wrong = 99;
      copy_bytes(data.data + rank() * static_cast<int>(sizeof wrong), device(), &wrong, Device{}, sizeof wrong);
    }
    return whole_.all_reduce(data, stream);
  }
  Work reduce_scatter(View, View, std::span<const int64_t>, Stream) override { return {}; }
  Work all_gather(View, View, std::span<const int64_t>, Stream) override { return {}; }
  Work broadcast(View, int, Stream) override { return {}; }
  Work grouped(std::span<const Transfer>, Stream) override { return {}; }
  void abort() override { aborted = true; }
  bool aborted = false;

 private:
  Communicator& whole_;
  bool spoil_;
};

TEST_CASE("the preflight names the rank whose numbers arrive wrong, on every rank") {
  const auto comm = communicator();
  const int last = comm->size() - 1;
  Spoilt good(*comm, false);
  preflight(good, control(), device(), 60);
  CHECK_FALSE(good.aborted);
  Spoilt bad(*comm, comm->rank() == last);
  const Failure f = failure([&] { preflight(bad, control(), device(), 60); });
  CHECK(f.code == ExitCode::runtime);
  CHECK(has(f.text, concat("the number of rank ", last, " arrives wrong at rank 0, 1")));
  CHECK_FALSE(has(f.text, "the number of rank 0 "));
  CHECK(bad.aborted);
}

TEST_CASE("the preflight names the ranks on which it is late") {
  const auto comm = communicator();
  const std::unique_ptr<Control> group = copy_of_world();
  Spoilt watched(*comm, false);
  const int last = comm->size() - 1;
  if (comm->rank() == last) {
    group->gather_text("late", 30);  // says that it waits, and brings nothing
  } else {
    const Failure f = failure([&] { preflight(watched, *group, device(), 0.3); });
    CHECK(f.code == ExitCode::hung);
    CHECK(has(f.text, concat("not done within 0.3 s on rank 0")));
    CHECK(watched.aborted);
  }
  control().barrier();
  comm->abort();
}

TEST_CASE("after abort every call is an error that names it") {
  const auto comm = communicator();
  const Tensor x = Tensor::zeros({8}, DType::f32, device());
  comm->abort();
  comm->abort();
  const Failure f = failure([&] { comm->all_reduce(x.view(), current_stream(device())); });
  CHECK(has(f.text, "[all_reduce]"));
  CHECK(has(f.text, concat("rank ", control().rank(), " of ", control().size(), ": the communicator was aborted")));
}

// The last one: the device is lost until the communicator is aborted.
TEST_CASE("ranks that call different things hear of it where the host waits, with both calls") {
  const auto comm = communicator();
  const Tensor x = Tensor::zeros({8}, DType::f32, device());
  View data = x.view();
  if (comm->rank() == 0) data.shape[0] = 4;
  const Stream stream = current_stream(device());
  const Failure f = failure([&] {
    comm->all_reduce(data, stream).join(stream);
    synchronize(device());
  });
  INFO(f.text);
  CHECK(has(f.text, "different counts"));
  CHECK(has(f.text, "ncclAllReduce(count 4, float32, sum)"));
  CHECK(has(f.text, "ncclAllReduce(count 8, float32, sum)"));
  CHECK(has(f.text, "all_reduce"));  // heddle's word for it, whichever notices first: the stream, or who watches the wait
  comm->abort();
  control().barrier();
}

}  // namespace
}  // namespace heddle
