// Collectives over MPI on host memory, and the choice between one rank and many.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "parallel/communicator.h"

#ifdef HEDDLE_HAVE_MPI
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#endif

namespace heddle {
namespace {

#ifdef HEDDLE_HAVE_MPI

bool mpi_is_running() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiCommunicator() override {
    if (mpi_is_running()) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return "mpi"; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    MPI_Comm part;
    check("split", MPI_Comm_split(comm_, color, key, &part));
    return std::make_unique<MpiCommunicator>(part);
  }

  void all_reduce(View data, Stream) override {
    each_piece("all_reduce", data, [&](std::byte* p, int n) { return MPI_Allreduce(MPI_IN_PLACE, p, n, number(data.dtype), MPI_SUM, comm_); });
  }

  void reduce_scatter(View in, View out, Stream) override {
    HEDDLE_CHECK(in.numel() == out.numel() * size_ && in.dtype == out.dtype, "reduce_scatter", shape_text(in), " into ", shape_text(out), " on ",
                 size_, " ranks");
    require_dense("reduce_scatter", in), require_dense("reduce_scatter", out);
    check("reduce_scatter", MPI_Reduce_scatter_block(in.data, out.data, count(out), number(in.dtype), MPI_SUM, comm_));
  }

  void all_gather(View in, View out, Stream) override {
    HEDDLE_CHECK(out.numel() == in.numel() * size_ && in.dtype == out.dtype, "all_gather", shape_text(in), " into ", shape_text(out), " on ", size_,
                 " ranks");
    require_dense("all_gather", out);
    const int bytes = int_bytes("all_gather", in);
    const bool in_place = in.data == out.data + static_cast<int64_t>(rank_) * in.bytes();
    check("all_gather", MPI_Allgather(in_place ? MPI_IN_PLACE : in.data, bytes, MPI_BYTE, out.data, bytes, MPI_BYTE, comm_));
  }

  void broadcast(View data, int root, Stream) override {
    require_dense("broadcast", data);
    for (int64_t done = 0; done < data.bytes(); done += kPiece) {
      check("broadcast", MPI_Bcast(data.data + done, static_cast<int>(std::min(kPiece, data.bytes() - done)), MPI_BYTE, root, comm_));
    }
  }
  void send(View data, int to, Stream) override { check("send", MPI_Send(data.data, int_bytes("send", data), MPI_BYTE, to, 0, comm_)); }
  void recv(View data, int from, Stream) override {
    check("recv", MPI_Recv(data.data, int_bytes("recv", data), MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE));
  }
  void barrier() override { check("barrier", MPI_Barrier(comm_)); }

  void start_all_reduce(View data, Stream) override {
    each_piece("all_reduce", data, [&](std::byte* p, int n) {
      requests_.emplace_back();
      return MPI_Iallreduce(MPI_IN_PLACE, p, n, number(data.dtype), MPI_SUM, comm_, &requests_.back());
    });
  }
  void finish() override {
    if (!requests_.empty()) check("all_reduce", MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE));
    requests_.clear();
  }

  std::vector<std::string> gather_text(const std::string& mine) override {
    int length = static_cast<int>(mine.size());
    std::vector<int> lengths(static_cast<size_t>(size_)), offsets(static_cast<size_t>(size_));
    check("gather", MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, comm_));
    int total = 0;
    for (size_t i = 0; i < lengths.size(); ++i) offsets[i] = std::exchange(total, total + lengths[i]);
    std::string all(static_cast<size_t>(total), '\0');
    check("gather", MPI_Allgatherv(mine.data(), length, MPI_BYTE, all.data(), lengths.data(), offsets.data(), MPI_BYTE, comm_));
    std::vector<std::string> texts;
    for (size_t i = 0; i < lengths.size(); ++i) texts.push_back(all.substr(static_cast<size_t>(offsets[i]), static_cast<size_t>(lengths[i])));
    return texts;
  }

  // Over rank 0, by messages that can be waited for with a limit; a collective cannot be left.
  std::vector<std::string> gather_text_within(const std::string& mine, double seconds) override {
    const Deadline deadline(seconds);
    const auto missing = [&](const std::string& who) {
      fail("gather", concat("no answer within ", seconds, " s from ", who, ": hung, stopped or gone"), ExitCode::hung);
    };
    if (rank_ != 0) {
      send_within(mine, 0, deadline, [&] { missing("rank 0"); });
      const std::optional<Received> all = receive_within(0, deadline);
      if (!all) missing("rank 0, or from a rank that rank 0 waits for");
      return unpack(all->text);
    }
    std::vector<std::optional<std::string>> texts(static_cast<size_t>(size_));
    texts[0] = mine;
    for (int received = 1; received < size_; ++received) {
      std::optional<Received> one = receive_within(MPI_ANY_SOURCE, deadline);
      if (!one) {
        std::string ranks;
        for (int r = 1; r < size_; ++r) {
          if (!texts[static_cast<size_t>(r)]) ranks += concat(ranks.empty() ? "rank " : ", ", r);
        }
        missing(ranks);
      }
      texts[static_cast<size_t>(one->from)] = std::move(one->text);
    }
    std::vector<std::string> all;
    std::string packed;
    for (std::optional<std::string>& text : texts) {
      packed += concat(text->size(), " ", *text);
      all.push_back(std::move(*text));
    }
    for (int r = 1; r < size_; ++r) send_within(packed, r, deadline, [&] { missing(concat("rank ", r)); });
    return all;
  }

 private:
  static constexpr int64_t kPiece = int64_t{1} << 30;  // bytes: MPI counts are ints
  static constexpr int kTextTag = 1;

  class Deadline {
   public:
    explicit Deadline(double seconds) : end_(std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds)) {}
    // False when it has passed; sleeps a little, for what is waited for takes a disk's time.
    bool wait() const {
      if (std::chrono::steady_clock::now() > end_) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      return true;
    }

   private:
    std::chrono::time_point<std::chrono::steady_clock, std::chrono::duration<double>> end_;
  };
  struct Received {
    int from = 0;
    std::string text;
  };

  template <class GiveUp>
  void send_within(const std::string& text, int to, const Deadline& deadline, GiveUp give_up) {
    HEDDLE_CHECK(text.size() <= static_cast<size_t>(std::numeric_limits<int>::max()), "gather", text.size(), " bytes in one call");
    MPI_Request request;
    check("gather", MPI_Isend(text.data(), static_cast<int>(text.size()), MPI_CHAR, to, kTextTag, comm_, &request));
    for (int done = 0;;) {
      check("gather", MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done) return;
      if (!deadline.wait()) {
        MPI_Cancel(&request);  // the text is about to go out of scope
        MPI_Request_free(&request);
        give_up();
      }
    }
  }
  std::optional<Received> receive_within(int from, const Deadline& deadline) {
    MPI_Message message;
    MPI_Status status;
    for (int found = 0;;) {
      check("gather", MPI_Improbe(from, kTextTag, comm_, &found, &message, &status));
      if (found) break;
      if (!deadline.wait()) return std::nullopt;
    }
    int length = 0;
    check("gather", MPI_Get_count(&status, MPI_CHAR, &length));
    Received out{status.MPI_SOURCE, std::string(static_cast<size_t>(length), '\0')};
    check("gather", MPI_Mrecv(out.text.data(), length, MPI_CHAR, &message, MPI_STATUS_IGNORE));
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

  void check(std::string_view op, int code) const {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    fail(op, concat("MPI on rank ", rank_, " of ", size_, ": ", std::string(text, static_cast<size_t>(length))));
  }

  static MPI_Datatype number(DType dtype) {
    switch (dtype) {
      case DType::f32: return MPI_FLOAT;
      case DType::f64: return MPI_DOUBLE;
      case DType::i32: return MPI_INT32_T;
      default: fail("mpi", concat("sums of ", name_of(dtype), " values; f32, f64 and i32 are supported"));
    }
  }
  static int count(const View& v) {
    HEDDLE_CHECK(v.numel() <= std::numeric_limits<int>::max(), "mpi", v.numel(), " elements in one call");
    return static_cast<int>(v.numel());
  }
  static void require_dense(std::string_view op, const View& v) { HEDDLE_CHECK(v.contiguous(), op, "of a strided view ", shape_text(v)); }
  static int int_bytes(std::string_view op, const View& v) {
    require_dense(op, v);
    HEDDLE_CHECK(v.bytes() <= std::numeric_limits<int>::max(), op, v.bytes(), " bytes in one call");
    return static_cast<int>(v.bytes());
  }

  template <class Call>
  void each_piece(std::string_view op, const View& data, Call call) {
    require_dense(op, data);
    const int64_t n = data.numel(), size = size_of(data.dtype), piece = kPiece / size;
    for (int64_t done = 0; done < n; done += piece) check(op, call(data.data + done * size, static_cast<int>(std::min(piece, n - done))));
  }

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
};

#endif

}  // namespace

Launch launch_of_this_process() {
  struct Names {
    const char *ranks, *rank;
  };
  // Open MPI, PMI (MPICH, Intel), Intel on one machine.
  for (const Names& names :
       {Names{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}, {"MPI_LOCALNRANKS", "MPI_LOCALRANKID"}}) {
    const char *ranks = std::getenv(names.ranks), *rank = std::getenv(names.rank);
    if (ranks) return {true, std::atoi(ranks), rank ? std::atoi(rank) : 0, names.ranks};
  }
  // A task of srun; with --mpi=none it has no PMIX_RANK, and MPI will not find the others.
  constexpr const char* kTasks = "SLURM_STEP_NUM_TASKS";
  const char *ranks = std::getenv(kTasks), *pmix = std::getenv("PMIX_RANK"), *rank = pmix ? pmix : std::getenv("SLURM_PROCID");
  if (std::getenv("SLURM_STEP_ID") && rank && ranks && (pmix || std::atoi(ranks) > 1)) return {true, std::atoi(ranks), std::atoi(rank), kTasks};
  return {};
}

std::string unused_places() {
  const char *tasks = std::getenv("SLURM_NTASKS"), *job = std::getenv("SLURM_JOB_ID");
  if (!tasks || !job || std::atoi(tasks) <= 1 || launch_of_this_process().found) return {};
  return concat("SLURM_NTASKS is ", tasks, ", but this process was started alone and is the only rank; srun or mpirun starts them all");
}

std::unique_ptr<Communicator> world_communicator() {
  const auto [found, ranks, rank, variable] = launch_of_this_process();
  if (!found || ranks <= 1) return local_communicator();
#ifdef HEDDLE_HAVE_MPI
  if (!mpi_is_running()) {
    int provided = 0;
    // The checkpoint writer talks to its peers, over a communicator of its own, while the training thread waits in a collective. Taking turns
    // would not do: ranks whose turns fall to different threads would wait for one another.
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) fail("mpi", "MPI_Init_thread failed");
    if (provided < MPI_THREAD_MULTIPLE) {
      MPI_Finalize();
      fail("mpi", "this MPI library allows no calls from two threads at once (MPI_THREAD_MULTIPLE); use a build of it that does");
    }
    std::atexit([] {
      if (mpi_is_running()) MPI_Finalize();
    });
  }
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size == 1) {
    char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(library, &length);
    const std::string_view name = std::string_view(library, static_cast<size_t>(length));
    fail("mpi",
         concat(variable, " says that this is rank ", rank, " of ", ranks, ", but ", name.substr(0, name.find_first_of(",\n")),
                ", which this program was built with, finds no other: use its mpirun or srun --mpi=pmix, or unset ", variable, " to train alone"),
         ExitCode::usage);
  }
  MPI_Comm own;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  auto world = std::make_unique<MpiCommunicator>(own);
  set_error_rank(world->rank());
  return world;
#else
  fail("mpi", concat("started as one of ", ranks, " ranks, but this build has no MPI; configure with HEDDLE_MPI=ON"), ExitCode::usage);
#endif
}

void abort_world(int exit_code) {
#ifdef HEDDLE_HAVE_MPI
  int size = 1;
  if (!mpi_is_running()) return;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
#else
  (void)exit_code;
#endif
}

}  // namespace heddle
