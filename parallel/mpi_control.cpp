// The host plane over MPI.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/mpi_internal.h"
#include "parallel/nccl_communicator.h"
#include "parallel/pulse.h"

namespace heddle {

bool mpi_is_running() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

MpiGroup::MpiGroup(MPI_Comm comm) : comm_(comm) {
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
}
MpiGroup::~MpiGroup() {
  if (mpi_is_running()) MPI_Comm_free(&comm_);
}
MPI_Comm MpiGroup::duplicate() const {
  MPI_Comm copy;
  check("split", MPI_Comm_dup(comm_, &copy));
  return copy;
}
void MpiGroup::check(std::string_view op, int code) const {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(op, concat("MPI on rank ", rank_, " of ", size_, ": ", std::string(text, static_cast<size_t>(length))));
}

namespace {

class MpiControl final : public Control {
 public:
  explicit MpiControl(MPI_Comm comm) : group_(comm) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }

  std::unique_ptr<Control> split(int color, int key) override {
    MPI_Comm part;
    group_.check("split", MPI_Comm_split(group_.comm(), color, key, &part));
    return mpi_control(part);
  }
  std::unique_ptr<Communicator> communicator(Device device, const CommunicatorOptions& options) override {
    if (size() == 1) return local_communicator();
    if (device.type == DeviceType::cuda) return nccl_communicator(*this, device, options.patience, options);
    return mpi_communicator(group_.duplicate(), options);
  }

  std::vector<std::string> gather_text(const std::string& mine, double seconds) override {
    if (seconds > 0) return gather_within(mine, seconds);
    note_collective("gather");
    const Waiting waiting;
    HEDDLE_CHECK(mine.size() <= static_cast<size_t>(std::numeric_limits<int>::max()) / static_cast<size_t>(group_.size()), "gather", mine.size(),
                 " bytes in one call");
    int length = static_cast<int>(mine.size());
    std::vector<int> lengths(static_cast<size_t>(group_.size())), offsets(static_cast<size_t>(group_.size()));
    group_.check("gather", MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, group_.comm()));
    int total = 0;
    for (size_t i = 0; i < lengths.size(); ++i) offsets[i] = std::exchange(total, total + lengths[i]);
    std::string all(static_cast<size_t>(total), '\0');
    group_.check("gather", MPI_Allgatherv(mine.data(), length, MPI_BYTE, all.data(), lengths.data(), offsets.data(), MPI_BYTE, group_.comm()));
    std::vector<std::string> texts;
    for (size_t i = 0; i < lengths.size(); ++i) texts.push_back(all.substr(static_cast<size_t>(offsets[i]), static_cast<size_t>(lengths[i])));
    return texts;
  }

 private:
  // Over rank 0, by messages that can be waited for with a limit; a collective cannot be left.
  std::vector<std::string> gather_within(const std::string& mine, double seconds) {
    Deadline deadline(seconds);
    const auto missing = [&](const std::string& who, std::vector<int> ranks) {
      try {
        fail("gather", concat("no answer within ", seconds, " s from ", who, ": hung, stopped or gone"));
      } catch (const Error& e) {
        throw RanksMissing(e.what(), std::move(ranks));
      }
    };
    if (group_.rank() != 0) {
      send_within(mine, 0, deadline, [&] { missing("rank 0", {0}); });
      const std::optional<Received> all = receive_within(0, deadline);
      if (!all) missing("rank 0, or from a rank that rank 0 waits for", {0});
      return unpack(all->text);
    }
    std::vector<std::optional<std::string>> texts(static_cast<size_t>(group_.size()));
    texts[0] = mine;
    for (int received = 1; received < group_.size(); ++received) {
      std::optional<Received> one = receive_within(MPI_ANY_SOURCE, deadline);
      if (!one) {
        std::string names;
        std::vector<int> ranks;
        for (int r = 1; r < group_.size(); ++r) {
          if (texts[static_cast<size_t>(r)]) continue;
          names += concat(names.empty() ? "rank " : ", ", r);
          ranks.push_back(r);
        }
        missing(names, std::move(ranks));
      }
      texts[static_cast<size_t>(one->from)] = std::move(one->text);
    }
    std::vector<std::string> all;
    std::string packed;
    for (std::optional<std::string>& text : texts) {
      packed += concat(text->size(), " ", *text);
      all.push_back(std::move(*text));
    }
    for (int r = 1; r < group_.size(); ++r) send_within(packed, r, deadline, [&] { missing(concat("rank ", r), {r}); });
    return all;
  }

  static constexpr int kTextTag = 1;

  class Deadline {
   public:
    explicit Deadline(double seconds) : left_(seconds) {}
    // False when it has passed; sleeps a little, for what is waited for takes a disk's time. A longer sleep than a second was not its own: a job that
    // was stopped as a whole and goes on has time left.
    bool wait() {
      const Clock::time_point now = Clock::now();
      left_ -= std::min<std::chrono::duration<double>>(now - std::exchange(last_, now), std::chrono::seconds(1));
      if (left_.count() < 0) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      return true;
    }

   private:
    using Clock = std::chrono::steady_clock;
    std::chrono::duration<double> left_;
    Clock::time_point last_ = Clock::now();
  };
  struct Received {
    int from = 0;
    std::string text;
  };

  template <class GiveUp>
  void send_within(const std::string& text, int to, Deadline& deadline, GiveUp give_up) {
    HEDDLE_CHECK(text.size() <= static_cast<size_t>(std::numeric_limits<int>::max()), "gather", text.size(), " bytes in one call");
    MPI_Request request;
    group_.check("gather", MPI_Isend(text.data(), static_cast<int>(text.size()), MPI_CHAR, to, kTextTag, group_.comm(), &request));
    for (int done = 0;;) {
      group_.check("gather", MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done) return;
      if (!deadline.wait()) {
        MPI_Cancel(&request);  // the text is about to go out of scope
        MPI_Request_free(&request);
        give_up();
      }
    }
  }
  std::optional<Received> receive_within(int from, Deadline& deadline) {
    MPI_Message message;
    MPI_Status status;
    for (int found = 0;;) {
      group_.check("gather", MPI_Improbe(from, kTextTag, group_.comm(), &found, &message, &status));
      if (found) break;
      if (!deadline.wait()) return std::nullopt;
    }
    int length = 0;
    group_.check("gather", MPI_Get_count(&status, MPI_CHAR, &length));
    Received out{status.MPI_SOURCE, std::string(static_cast<size_t>(length), '\0')};
    group_.check("gather", MPI_Mrecv(out.text.data(), length, MPI_CHAR, &message, MPI_STATUS_IGNORE));
    return out;
  }
  static std::vector<std::string> unpack(std::string_view packed) {
    std::vector<std::string> all;
    while (!packed.empty()) {
      size_t length = 0;
      const auto [end, error] = std::from_chars(packed.data(), packed.data() + packed.size(), length);
      const auto begin = static_cast<size_t>(end - packed.data()) + 1;
      HEDDLE_CHECK(error == std::errc() && begin <= packed.size() && length <= packed.size() - begin, "gather", "rank 0 sent a malformed answer");
      all.emplace_back(packed.substr(begin, length));
      packed.remove_prefix(begin + length);
    }
    return all;
  }

  MpiGroup group_;
};

}  // namespace

std::unique_ptr<Control> mpi_control(MPI_Comm comm) {
  return std::make_unique<MpiControl>(comm);
}

}  // namespace heddle
