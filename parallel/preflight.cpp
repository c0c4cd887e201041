#include "parallel/preflight.h"

#include <chrono>
#include <thread>
#include <vector>

#include "core/tensor.h"
#include "kernels/api/check.h"
#include "parallel/launch.h"

namespace heddle {
namespace {

constexpr double kGrace = 10;  // seconds that a rank may say later than another what it has found out

// Small integers, different for each rank: sums of them are exact.
double number_of(int rank) {
  return rank + 2;
}

bool comes_to_pass(const Event& event, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!event.reached()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

// What this rank sees of the sum: for each rank 'y' or 'n', its number has arrived; "late"; or the words of an error.
std::string seen(Communicator& comm, Device device, double seconds) {
  std::vector<double> mine(static_cast<size_t>(comm.size()), 0.0);  // each rank has a place of its own
  mine[static_cast<size_t>(comm.rank())] = number_of(comm.rank());
  try {
    const Tensor numbers = Tensor::from(mine, {comm.size()}, DType::f32, device);
    const Stream stream = current_stream(device);
    comm.all_reduce(numbers.view(), stream).join(stream);
    Event done(device);
    done.record(stream);
    if (!comes_to_pass(done, seconds)) return "late";
    std::string verdict;
    const std::vector<double> sums = numbers.to_vector();
    for (int r = 0; r < comm.size(); ++r) verdict += sums[static_cast<size_t>(r)] == number_of(r) ? 'y' : 'n';
    return verdict;
  } catch (const Error& e) {
    return concat("error ", e.what());
  }
}

void add(std::string& list, const std::string& item, const char* between = ", ") {
  list += concat(list.empty() ? "" : between, item);
}

}  // namespace

void require_own_devices(Control& control, const std::string& uuid, Device device, double seconds) {
  const std::vector<std::string> all = control.gather_text(concat(uuid, "\n", name_of(device), " of ", host_name()), seconds);
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t j = i + 1; j < all.size(); ++j) {
      const size_t end = all[i].find('\n'), other_end = all[j].find('\n');
      if (all[i].substr(0, end) != all[j].substr(0, other_end)) continue;
      fail("nccl",
           concat("ranks ", i, " and ", j, " use the same GPU, ", all[i].substr(0, end), " (", all[i].substr(end + 1), "; ",
                  all[j].substr(other_end + 1),
                  "): each rank needs its own. Start no more ranks on a host than it has GPUs; with srun, --gpus-per-task=1 or no binding at all"),
           ExitCode::usage);
    }
  }
}

void preflight(Communicator& comm, Control& control, Device device, double seconds) {
  const std::string mine = seen(comm, device, seconds);
  std::vector<std::string> all;
  try {
    all = control.gather_text(mine, seconds + kGrace);  // which names who does not come
  } catch (...) {
    comm.abort();
    throw;
  }
  const int ranks = comm.size();
  std::vector<std::string> wrong_at(static_cast<size_t>(ranks));  // by whose number it is
  std::string late, errors;
  for (int r = 0; r < ranks; ++r) {
    const std::string& text = all[static_cast<size_t>(r)];
    if (text == "late") {
      add(late, concat("rank ", r));
    } else if (text.rfind("error ", 0) == 0) {
      add(errors, concat("rank ", r, ": ", text.substr(6)), "; ");
    } else {
      for (int of = 0; of < ranks && of < static_cast<int>(text.size()); ++of) {
        if (text[static_cast<size_t>(of)] == 'n') add(wrong_at[static_cast<size_t>(of)], std::to_string(r));
      }
    }
  }
  std::string wrong;
  for (int of = 0; of < ranks; ++of) {
    if (!wrong_at[static_cast<size_t>(of)].empty())
      add(wrong, concat("the number of rank ", of, " arrives wrong at rank ", wrong_at[static_cast<size_t>(of)]), "; ");
  }
  if (late.empty() && errors.empty() && wrong.empty()) return;
  comm.abort();
  std::string text = "the first all_reduce, of known numbers, failed: ";
  if (!wrong.empty()) text += wrong;
  if (!errors.empty()) text += concat(wrong.empty() ? "" : "; ", errors);
  if (!late.empty()) text += concat(wrong.empty() && errors.empty() ? "" : "; ", "not done within ", seconds, " s on ", late);
  fail(comm.name(), text, late.empty() ? ExitCode::runtime : ExitCode::hung);
}

}  // namespace heddle
