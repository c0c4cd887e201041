#include "parallel/control.h"

#include <algorithm>
#include <cstring>

#include "kernels/api/check.h"
#include "parallel/communicator.h"

namespace heddle {
namespace {

class LocalControl final : public Control {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Control> split(int, int) override { return std::make_unique<LocalControl>(); }
  std::vector<std::string> gather_text(const std::string& mine, double) override { return {mine}; }
  std::unique_ptr<Communicator> communicator(Device, const CommunicatorOptions&) override { return local_communicator(); }
};

}  // namespace

std::unique_ptr<Control> local_control() {
  return std::make_unique<LocalControl>();
}

std::vector<double> Control::sum_in_rank_order(std::span<const double> mine) {
  std::vector<double> sums(mine.size(), 0.0), theirs(mine.size());
  for (const std::string& text : gather_text({reinterpret_cast<const char*>(mine.data()), mine.size_bytes()})) {
    HEDDLE_CHECK(text.size() == mine.size_bytes(), "sum", "a rank sent ", text.size() / sizeof(double), " numbers, this one ", mine.size());
    if (!text.empty()) std::memcpy(theirs.data(), text.data(), text.size());
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += theirs[i];
  }
  return sums;
}

int Control::vote_max(int mine) {
  int most = mine;
  for (const std::string& text : gather_text({reinterpret_cast<const char*>(&mine), sizeof mine})) {
    int theirs = 0;
    HEDDLE_CHECK(text.size() == sizeof theirs, "vote", "a rank sent ", text.size(), " bytes");
    std::memcpy(&theirs, text.data(), sizeof theirs);
    most = std::max(most, theirs);
  }
  return most;
}

}  // namespace heddle
