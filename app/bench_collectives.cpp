// How fast ranks exchange: every collective of a training step, from messages that wait for the wire's delay to ones that fill it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "app/bench.h"
#include "core/device.h"
#include "core/storage.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "parallel/communicator.h"
#include "parallel/control.h"
#include "parallel/nccl_communicator.h"
#include "parallel/pulse.h"
#include "parallel/watchdog.h"
#include "train/config/shape.h"
#include "train/report/console.h"

namespace heddle::app {
namespace {

// A buffer of floats on the device, and what the host knows of it.
struct Buffer {
  Buffer(Device of, int64_t count)
      : device(of), memory(allocate(of, static_cast<size_t>(count) * sizeof(float), MemoryTag::workspace, current_stream(of))), floats(count) {}
  View part(int64_t from, int64_t count) const { return make_view(memory->data() + static_cast<size_t>(from) * sizeof(float), DType::f32, {count}); }
  View whole() const { return part(0, floats); }
  void set(const std::function<float(int64_t)>& value) const {
    std::vector<float> host(static_cast<size_t>(floats));
    for (int64_t i = 0; i < floats; ++i) host[static_cast<size_t>(i)] = value(i);
    copy_bytes(memory->data(), device, host.data(), Device{}, host.size() * sizeof(float));
  }
  std::vector<float> get() const {
    std::vector<float> host(static_cast<size_t>(floats));
    copy_bytes(host.data(), Device{}, memory->data(), device, host.size() * sizeof(float));
    return host;
  }
  Device device;
  std::shared_ptr<Storage> memory;
  int64_t floats;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// One rank needs no library. On a GPU the library is asked all the same, where there is one: whether it works there is part of the question.
std::unique_ptr<Communicator> communicator(Control& control, Device device) {
  if (control.size() > 1 || device.type != DeviceType::cuda) return control.communicator(device);
  try {
    return nccl_communicator(control, device);
  } catch (const Error& e) {
    if (e.code() != ExitCode::no_device) throw;
    return control.communicator(device);
  }
}

// Whole numbers that tell ranks and places apart; sums of them are exact in fp32.
float value_of(int rank, int64_t i) {
  return static_cast<float>((i * 7 + rank * 13) % 101);
}

struct Collective {
  const char* name;
  // Of the bytes that a rank passes, how much crosses its link at least, n ranks (Thakur et al. 2005); what is divided by the time is a rate that
  // does not depend on n when the links are full.
  double (*bus)(double n);
  std::function<Work(const Buffer&, Communicator&, Stream)> run;
  // What element i of the buffer of `rank` is afterwards; empty: nothing is promised of it.
  std::function<bool(int rank, int n, int64_t count, int64_t i, float found)> right;
};

std::vector<Collective> collectives() {
  const auto sum = [](int n, int64_t i) {
    float all = 0;
    for (int r = 0; r < n; ++r) all += value_of(r, i);
    return all;
  };
  const auto mine = [](int rank, int n, int64_t count, int64_t i) { return i / (count / n) == rank; };
  return {
      {"all_reduce", [](double n) { return 2 * (n - 1) / n; }, [](const Buffer& b, Communicator& c, Stream s) { return c.all_reduce(b.whole(), s); },
       [sum](int, int n, int64_t, int64_t i, float found) { return found == sum(n, i); }},
      {"reduce_scatter", [](double n) { return (n - 1) / n; },
       [](const Buffer& b, Communicator& c, Stream s) {
         const int64_t part = b.floats / c.size();
         return c.reduce_scatter(b.whole(), b.part(part * c.rank(), part), {}, s);
       },
       [sum, mine](int rank, int n, int64_t count, int64_t i, float found) { return !mine(rank, n, count, i) || found == sum(n, i); }},
      {"all_gather", [](double n) { return (n - 1) / n; },
       [](const Buffer& b, Communicator& c, Stream s) {
         const int64_t part = b.floats / c.size();
         return c.all_gather(b.part(part * c.rank(), part), b.whole(), {}, s);
       },
       [](int, int n, int64_t count, int64_t i, float found) { return found == value_of(static_cast<int>(i / (count / n)), i); }},
      {"broadcast", [](double) { return 1.0; }, [](const Buffer& b, Communicator& c, Stream s) { return c.broadcast(b.whole(), 0, s); },
       [](int, int, int64_t, int64_t i, float found) { return found == value_of(0, i); }},
  };
}

}  // namespace

void bench_collectives(const BenchOptions& options) {
  const std::unique_ptr<Control> control = world_control();
  const Watchdog watchdog(*control);
  const int n = control->size(), rank = control->rank();
  const Device device = choose_device(options.config.device);
  const auto begun = std::chrono::steady_clock::now();
  const std::unique_ptr<Communicator> comm = communicator(*control, device);
  const double start = seconds_since(begun);
  if (rank == 0) {
    std::printf("%s on %s, %s: the slowest rank's median of %lld\n", counted(n, "rank").c_str(), name_of(device).c_str(),
                std::string(comm->name()).c_str(), static_cast<long long>(options.repeats));
    std::printf("%-15s %10s %12.1f\n", "init", "", start * 1e6);
    std::printf("%-15s %10s %12s %11s %11s\n", "collective", "size", "us", "GB/s", "bus GB/s");
  }
  for (const Collective& collective : collectives()) {
    for (int64_t bytes = 4096; bytes <= options.most_bytes; bytes *= 8) {
      const int64_t floats = std::max<int64_t>(bytes / 4 / n, 1) * n;
      const Buffer buffer(device, floats);
      const Stream stream = current_stream(device);
      const auto once = [&] {
        collective.run(buffer, *comm, stream).join(stream);
        synchronize(device);
      };
      buffer.set([&](int64_t i) { return value_of(rank, i); });
      once();
      const std::vector<float> found = buffer.get();
      int64_t wrong = -1;
      for (int64_t i = 0; i < floats && wrong < 0; ++i) {
        if (!collective.right(rank, n, floats, i, found[static_cast<size_t>(i)])) wrong = i;
      }
      // No rank goes on alone; the ranks that are wrong say so.
      const std::vector<std::string> all = control->gather_text(wrong < 0 ? "" : std::to_string(wrong));
      for (size_t r = 0; r < all.size(); ++r) {
        if (!all[r].empty())
          fail("bench", concat(collective.name, " of ", bytes_text(static_cast<double>(bytes)), ": wrong on rank ", r, " at element ", all[r]));
      }
      buffer.set([](int64_t) { return 0.0f; });  // sums of many repetitions stay finite
      for (int64_t i = 0; i < options.warmup; ++i) once();
      std::vector<double> times;
      for (int64_t i = 0; i < options.repeats; ++i) {
        control->barrier();
        mark_progress();
        const auto begin = std::chrono::steady_clock::now();
        once();
        times.push_back(seconds_since(begin));
      }
      double slowest = 0;
      for (const std::string& text : control->gather_text(std::to_string(median(times) * 1e9))) slowest = std::max(slowest, std::stod(text) * 1e-9);
      if (rank != 0) continue;
      const double size = static_cast<double>(floats) * 4, rate = size / slowest / 1e9;
      const auto gigabytes = [&](double factor) {  // one rank exchanges nothing
        char text[32];
        std::snprintf(text, sizeof text, "%.3f", rate * factor);
        return n > 1 ? std::string(text) : "n/a";
      };
      std::printf("%-15s %10s %12.1f %11s %11s\n", collective.name, bytes_text(size).c_str(), slowest * 1e6, gigabytes(1).c_str(),
                  gigabytes(collective.bus(n)).c_str());
      std::fflush(stdout);
    }
  }
  if (comm->name() != "nccl") return;
  // A communicator that is given up refuses its calls, and lets the device work.
  control->barrier();
  const auto giving_up = std::chrono::steady_clock::now();
  comm->abort();
  const double gave_up = seconds_since(giving_up);
  const Buffer buffer(device, 1024);
  buffer.set([](int64_t i) { return value_of(0, i); });
  if (buffer.get()[1023] != value_of(0, 1023)) fail("bench", "after abort the device does not keep what it is given");
  if (rank == 0) std::printf("%-15s %10s %12.1f\n", "abort", "", gave_up * 1e6);
}

}  // namespace heddle::app
