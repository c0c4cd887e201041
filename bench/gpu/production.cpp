#include "bench/gpu/production.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iomanip>
#include <numeric>
#include <sstream>

#include "kernels/api/check.h"
#include "tests/sim/proving_kernels.h"
#include "tests/support/difference.h"

namespace heddle::bench {
namespace {

// Loads that the reference of one output may cost, and elements.
struct Budget {
  double loads;
  int64_t elements;
};
Budget budget_of(Sizes sizes) {
  return sizes == Sizes::small ? Budget{2e6, int64_t{1} << 20} : Budget{1e10, int64_t{1} << 22};
}

// As many elements as the budget has room for, spread over the whole: a step that has no divisor in common with the rows' length meets every column.
Sample sample_of(const Output& output, Sizes sizes) {
  const Budget budget = budget_of(sizes);
  const int64_t n = output.view.numel();
  const auto affordable = static_cast<int64_t>(std::max(budget.loads / std::max(output.cost, 1.0), 64.0));
  Sample sample;
  sample.step = std::max<int64_t>(1, n / std::max<int64_t>(1, std::min(affordable, budget.elements)));
  const int64_t row = output.view.rank > 0 ? std::max<int64_t>(1, output.view.size(-1)) : 1;
  while (sample.step > 1 && std::gcd(sample.step, row) != 1) ++sample.step;
  sample.count = (n + sample.step - 1) / sample.step;
  return sample;
}

class DeviceDoubles {
 public:
  explicit DeviceDoubles(int64_t n) : n_(static_cast<size_t>(n)), data_(test::device_allocate(std::max<size_t>(n_, 1) * sizeof(double))) {}
  ~DeviceDoubles() { test::device_free(data_); }
  DeviceDoubles(const DeviceDoubles&) = delete;
  DeviceDoubles& operator=(const DeviceDoubles&) = delete;
  double* data() const { return reinterpret_cast<double*>(data_); }
  std::vector<double> fetch() const {
    std::vector<double> host(n_);
    test::copy_to_host(reinterpret_cast<std::byte*>(host.data()), data_, n_ * sizeof(double));
    return host;
  }

 private:
  size_t n_;
  std::byte* data_;
};

std::string place(const View& view, int64_t i) {
  std::string text;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    text = concat(i % view.shape[axis], text.empty() ? "" : ", ", text);
    i /= view.shape[axis];
  }
  return "(" + text + ")";
}

// "" or which elements of the output are wrong. `seconds`: what the reference would take for all elements, if not null.
std::string compare(const Output& output, Sizes sizes, double* seconds) {
  if (output.view.numel() == 0) return "";
  Sample sample = sample_of(output, sizes);
  const DeviceDoubles want_there(sample.count), magnitude_there(sample.count), got_there(sample.count);
  sample.want = want_there.data();
  sample.magnitude = magnitude_there.data();
  sample.got = got_there.data();
  if (seconds != nullptr) {
    const auto times = time_in_turn({[&] { output.reference(sample); }}, 1, false);
    *seconds += median(times[0]) * 1e-3 * static_cast<double>(sample.step);
  } else {
    output.reference(sample);
  }
  const std::vector<double> want = want_there.fetch(), magnitude = magnitude_there.fetch(), got = got_there.fetch();
  const test::Bound bound{output.view.dtype, output.terms};
  const double start = output.added ? Memory::kStart : 0;
  int64_t wrong = 0, worst = 0;
  double worst_ratio = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = want[i] + start, allowed = bound(w, magnitude[i] + start);
    if (got[i] == w || std::abs(got[i] - w) <= allowed) continue;
    const double ratio = std::isfinite(got[i] - w) ? std::abs(got[i] - w) / allowed : INFINITY;
    if (wrong++ == 0 || ratio > worst_ratio) {
      worst = static_cast<int64_t>(i);
      worst_ratio = ratio;
    }
  }
  if (wrong == 0) return "";
  const auto at = static_cast<size_t>(worst);
  return concat("wrong: ", wrong, " of ", want.size(), " elements of ", output.name, " looked at (every ", sample.step, ".); worst at ",
                place(output.view, worst * sample.step), ": got ", got[at], ", want ", want[at] + start, ", allowed ",
                bound(want[at] + start, magnitude[at] + start), "; ");
}

// A tile of 64 x 64 in the middle of the first output is left out; the first time of a repeat, one element.
void plant(const Prepared& prepared, Planted planted, int run) {
  const View& view = prepared.outputs[0].view;
  const int64_t columns = view.rank > 0 ? view.size(-1) : 1, rows = view.numel() / columns;
  if (planted == Planted::wrong_tile) {
    for (int64_t row = rows / 2; row < std::min(rows / 2 + 64, rows); ++row)
      blot(view, row * columns + columns / 2, std::min<int64_t>(64, columns / 2));
  }
  if (planted == Planted::unsteady && run == 2) blot(view, view.numel() / 3, 1);
  if (planted == Planted::slow) dawdle(0.5);
}

struct Timing {
  double best = 0, median = 0, peer = 0;  // seconds
};
constexpr int kRounds = 15, kSmallRounds = 2;

Timing timed(const Prepared& prepared, const ProductionOptions& options) {
  const bool small = options.sizes == Sizes::small;
  std::vector<std::function<void()>> work = {[&] {
    if (options.planted == Planted::slow) plant(prepared, options.planted, 0);
    prepared.run();
  }};
  if (prepared.peer) work.push_back(prepared.peer);
  const auto times = time_in_turn(work, small ? kSmallRounds : kRounds, !small);
  return {times[0].front() * 1e-3, median(times[0]) * 1e-3, prepared.peer ? median(times[1]) * 1e-3 : 0};
}

// "" or that the kernel takes longer than it may: than the reference, which nobody has tuned; twice as long as the peer; three times as long as a
// copy of the bytes, where there is no arithmetic to speak of. On the simulated machine only the reference counts, with room for a busy machine.
std::string too_slow(const ProductionCase& c, const Timing& timing, double reference, double copy, Sizes sizes) {
  const double taken = sizes == Sizes::small ? timing.best : timing.median;
  const auto limit = [&](const char* what, double seconds, double factor) {
    if (seconds <= 0 || taken <= factor * seconds) return std::string();
    return concat("slow: ", taken * 1e6, " us, ", taken / seconds, " times ", what, " (", seconds * 1e6, " us), may be ", factor, "; ");
  };
  if (sizes == Sizes::small) return limit("the reference", reference + 2e-2, 5);
  std::string text = limit("the reference", reference + 2e-5, 1);
  if (!c.chosen) return text;  // it is there for arguments that the first candidate does not take
  text += limit("cuBLASLt", timing.peer, 2);
  if (c.flops < 8 * c.bytes) text += limit("a copy of its bytes", copy + 1e-5, 3);
  return text;
}

void record(const ProductionCase& c, const Timing& timing, double reference, double copy, const std::string& path) {
  std::ostringstream line;
  const auto number = [&](double value, double unit) {
    line << '\t';
    if (value > 0) line << std::setprecision(4) << value * unit;
  };
  line << c.name;
  number(timing.median, 1e6);
  number(timing.best, 1e6);
  number(c.flops / timing.median, 1e-12);
  number(c.bytes / timing.median, 1e-12);
  number(timing.peer, 1e6);
  number(copy, 1e6);
  number(reference, 1e6);
  std::ofstream out(path, std::ios::app);
  if (out.tellp() == 0) out << kRecordHeader << '\n';
  out << line.str() << std::endl;
  HEDDLE_CHECK(out.good(), "acceptance", "cannot write ", path);
}

}  // namespace

std::string run_production(const ProductionCase& c, const ProductionOptions& options) {
  Prepared prepared = c.prepare();
  std::string text;
  double reference = 0;
  std::vector<Digest> first;
  for (int run = 0; run < options.repeats; ++run) {
    prepared.memory->reset();
    prepared.run();
    plant(prepared, options.planted == Planted::slow ? Planted::nothing : options.planted, run);
    for (size_t i = 0; i < prepared.outputs.size(); ++i) {
      const Output& output = prepared.outputs[i];
      const Digest now = digest(output.view);
      if (run == 0) {
        first.push_back(now);
        if (now.unwritten > 0 && !output.added) text += concat(output.name, ": ", now.unwritten, " elements were not written; ");
        text += compare(output, options.sizes, options.timed ? &reference : nullptr);
      } else if (now.hash != first[i].hash) {
        return text + concat("not the same bits: repeat ", run + 1, " of ", options.repeats, " differs in ", output.name);
      }
    }
  }
  text += prepared.after();
  text += prepared.memory->guards();
  if (!options.timed) return text;

  if (prepared.peer) {  // what is timed is right
    prepared.memory->reset();
    prepared.peer();
    if (!compare(prepared.outputs[0], options.sizes, nullptr).empty()) prepared.peer = nullptr;
  }
  const Timing timing = timed(prepared, options);
  const double copy = options.sizes == Sizes::small ? 0 : c.bytes / copy_rate();
  if (!options.record.empty()) record(c, timing, reference, copy, options.record);
  return text + too_slow(c, timing, reference, copy, options.sizes);
}

double time_production(const ProductionCase& c, const ProductionOptions& options) {
  Prepared prepared = c.prepare();
  prepared.peer = nullptr;
  prepared.memory->reset();
  return timed(prepared, options).median * 1e6;
}
void profile_production(const ProductionCase& c) {
  const Prepared prepared = c.prepare();
  prepared.memory->reset();
  prepared.run();
  synchronise();
}

}  // namespace heddle::bench
