// The messages of a collective: first what everybody called, then the data.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/nccl/nccl_internal.h"

namespace heddle::sim::nccl {
namespace {

enum Tag : int { kHeaderTag = 1, kScatterTag = 2, kGatherTag = 3, kPairHeaderTag = 4, kPairTag = 5 };

constexpr size_t kPiece = size_t{1} << 30;

void check_mpi(int code) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  refuse(ncclSystemError, "MPI: ", std::string(text, static_cast<size_t>(length)));
}

// What one rank called, as the others see it.
struct Header {
  uint64_t sequence, count;
  int32_t kind, type, op, root;
  char text[512];
};

Header header_of(const CollectiveCall& call, uint64_t sequence) {
  Header header = {};
  header.sequence = sequence;
  header.count = call.count;
  header.kind = static_cast<int32_t>(call.kind);
  header.type = call.type;
  header.op = call.op;
  header.root = call.peer;
  const std::string text = concat("collective ", sequence, " is ", call.text(), ", ", call.site.text());
  std::memcpy(header.text, text.data(), std::min(text.size(), sizeof header.text - 1));
  return header;
}

template <class T>
Bytes bytes_from(const T& value) {
  Bytes bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

Bytes copy_in(const void* from, size_t offset, size_t bytes) {
  const auto* const begin = static_cast<const std::byte*>(from) + offset;
  return Bytes(begin, begin + bytes);
}

void copy_out(void* to, size_t offset, const std::byte* from, size_t bytes) {
  if (bytes == 0) return;
  std::byte* const at = static_cast<std::byte*>(to) + offset;
  std::memcpy(at, from, bytes);
  note_host_write(at, bytes);
}

void require_live(const void* pointer, size_t bytes, const char* role) {
  if (bytes > 0) cudart::memory().require_live(pointer, bytes, role);
}

// ---- one collective ----

class Collective final : public Exchange {
 public:
  Collective(CommRef comm, CollectiveCall call)
      : comm_(std::move(comm)), call_(std::move(call)), headers_(comm_->mpi), first_(comm_->mpi), second_(comm_->mpi) {
    sequence_ = ++comm_->sequence;
    element_ = bytes_of(call_.type);
    const Header header = header_of(call_, sequence_);
    for (int r = 0; r < comm_->size; ++r) {
      if (r == comm_->rank) continue;
      headers_.send(r, kHeaderTag, bytes_from(header));
      peers_[r] = &headers_.receive(r, kHeaderTag, sizeof(Header));
    }
  }

  bool advance() override {
    if (stage_ == Stage::headers) {
      if (!headers_.done()) return late(headers_);
      compare();
      begin_data();
      stage_ = Stage::first;
    }
    if (stage_ == Stage::first) {
      if (!first_.done()) return late(first_);
      after_first();
      stage_ = Stage::second;
    }
    if (!second_.done()) return late(second_);
    finish();
    return true;
  }

 private:
  enum class Stage : uint8_t { headers, first, second };

  bool late(Messages& messages) {
    if (!deadline_.passed()) return false;
    std::string ranks;
    for (int r : messages.missing()) ranks += concat(ranks.empty() ? "" : ", ", r);
    refuse(ncclRemoteError, comm_->name, ": rank ", ranks.empty() ? "?" : ranks, " did not come to collective ", sequence_, " within ",
           Deadline::seconds(), " s (HEDDLE_SIM_NCCL_TIMEOUT); rank ", comm_->rank, " called ", call_.text(), ", ", call_.site.text());
  }

  void compare() const {
    const Header mine = header_of(call_, sequence_);
    for (const auto& [rank, bytes] : peers_) {
      Header other;
      std::memcpy(&other, bytes->data(), sizeof other);
      const char* what = other.kind != mine.kind           ? "different calls"
                         : other.count != mine.count       ? "different counts"
                         : other.type != mine.type         ? "different data types"
                         : other.op != mine.op             ? "different operations"
                         : other.root != mine.root         ? "different roots"
                         : other.sequence != mine.sequence ? "different sequence numbers"
                                                           : nullptr;
      if (what) refuse(ncclInvalidUsage, comm_->name, ": ", what, ": on rank ", comm_->rank, " ", mine.text, "; on rank ", rank, " ", other.text);
    }
  }

  size_t total() const { return call_.count * (call_.kind == Kind::reduce_scatter ? static_cast<size_t>(comm_->size) : 1); }
  // Rank r reduces elements [begin(r), begin(r + 1)).
  size_t begin(int r) const { return total() * static_cast<size_t>(r) / static_cast<size_t>(comm_->size); }
  size_t share(int r) const { return begin(r + 1) - begin(r); }
  bool reduces() const { return call_.kind == Kind::all_reduce || call_.kind == Kind::reduce_scatter || call_.kind == Kind::reduce; }
  bool receives() const { return call_.kind != Kind::reduce || comm_->rank == call_.peer; }

  void begin_data() {
    const bool sends = call_.kind != Kind::broadcast || comm_->rank == call_.peer;
    const size_t out_elements = call_.count * (call_.kind == Kind::all_gather ? static_cast<size_t>(comm_->size) : 1);
    if (sends) require_live(call_.from, total() * element_, "sendbuff");
    if (receives()) require_live(call_.to, out_elements * element_, "recvbuff");
    if (sends) own_ = copy_in(call_.from, 0, total() * element_);
    parts_.assign(static_cast<size_t>(comm_->size), nullptr);
    for (int r = 0; r < comm_->size; ++r) {
      if (r == comm_->rank) continue;
      if (reduces()) {
        first_.send(r, kScatterTag, copy_in(own_.data(), begin(r) * element_, share(r) * element_));
        parts_[static_cast<size_t>(r)] = &first_.receive(r, kScatterTag, share(comm_->rank) * element_);
      } else {
        if (sends) first_.send(r, kScatterTag, own_);
        if (call_.kind == Kind::all_gather || r == call_.peer)
          parts_[static_cast<size_t>(r)] = &first_.receive(r, kScatterTag, call_.count * element_);
      }
    }
  }

  void after_first() {
    if (!reduces()) return;
    std::vector<const std::byte*> operands;
    for (int r = 0; r < comm_->size; ++r)
      operands.push_back(r == comm_->rank ? own_.data() + begin(r) * element_ : parts_[static_cast<size_t>(r)]->data());
    reduced_.resize(share(comm_->rank) * element_);
    const uint64_t seed = runtime_seed() ^ (sequence_ << 20) ^ static_cast<uint64_t>(comm_->rank);
    reduce(reduced_.data(), operands, share(comm_->rank), call_.type, call_.op, seed);
    if (call_.kind == Kind::reduce_scatter) return;
    parts_.assign(static_cast<size_t>(comm_->size), nullptr);
    for (int r = 0; r < comm_->size; ++r) {
      if (r == comm_->rank) continue;
      if (call_.kind == Kind::all_reduce || r == call_.peer) second_.send(r, kGatherTag, reduced_);
      if (receives()) parts_[static_cast<size_t>(r)] = &second_.receive(r, kGatherTag, share(r) * element_);
    }
  }

  void finish() {
    const auto self = static_cast<size_t>(comm_->rank);
    switch (call_.kind) {
      case Kind::reduce_scatter: return copy_out(call_.to, 0, reduced_.data(), reduced_.size());
      case Kind::broadcast: {
        const Bytes& from = comm_->rank == call_.peer ? own_ : *parts_[static_cast<size_t>(call_.peer)];
        return copy_out(call_.to, 0, from.data(), from.size());
      }
      case Kind::all_gather:
        for (size_t r = 0; r < parts_.size(); ++r) {
          const Bytes& from = r == self ? own_ : *parts_[r];
          copy_out(call_.to, r * call_.count * element_, from.data(), from.size());
        }
        return;
      default:
        for (int r = 0; receives() && r < comm_->size; ++r) {
          const Bytes& from = r == comm_->rank ? reduced_ : *parts_[static_cast<size_t>(r)];
          copy_out(call_.to, begin(r) * element_, from.data(), from.size());
        }
    }
  }

  static uint64_t runtime_seed() {
    static const uint64_t seed = options().seed * 0x9e3779b97f4a7c15ull;
    return seed;
  }

  CommRef comm_;
  CollectiveCall call_;
  Messages headers_, first_, second_;
  std::map<int, Bytes*> peers_;
  std::vector<Bytes*> parts_;  // by rank
  Bytes own_, reduced_;
  Deadline deadline_;
  Stage stage_ = Stage::headers;
  uint64_t sequence_ = 0;
  size_t element_ = 0;
};

// ---- sends and receives that go together ----

struct PairHeader {
  uint64_t count;
  int32_t type;
  char text[512];
};

class Pairs final : public Exchange {
 public:
  Pairs(CommRef comm, std::vector<CollectiveCall> calls) : comm_(std::move(comm)), calls_(std::move(calls)), headers_(comm_->mpi), data_(comm_->mpi) {
    for (const CollectiveCall& call : calls_) {
      if (call.peer == comm_->rank) continue;
      PairHeader header = {call.count, call.type, {}};
      const std::string text = concat(call.text(), ", ", call.site.text());
      std::memcpy(header.text, text.data(), std::min(text.size(), sizeof header.text - 1));
      headers_.send(call.peer, kPairHeaderTag + (call.kind == Kind::send ? 0 : 100), bytes_from(header));
      others_.push_back(&headers_.receive(call.peer, kPairHeaderTag + (call.kind == Kind::send ? 100 : 0), sizeof(PairHeader)));
    }
    match_self();
  }

  bool advance() override {
    if (!matched_) {
      if (!headers_.done()) return late(headers_);
      compare();
      start();
      matched_ = true;
    }
    if (!data_.done()) return late(data_);
    finish();
    return true;
  }

 private:
  bool late(Messages& messages) {
    if (!deadline_.passed()) return false;
    std::string open;
    const std::vector<int> missing = messages.missing();
    for (const CollectiveCall& call : calls_) {
      if (std::ranges::find(missing, call.peer) != missing.end()) open += concat(open.empty() ? "" : "; ", call.text(), ", ", call.site.text());
    }
    refuse(ncclRemoteError, comm_->name, ": rank ", comm_->rank, " waits for the other side of ", open, ", which did not come within ",
           Deadline::seconds(), " s (HEDDLE_SIM_NCCL_TIMEOUT)");
  }

  void match_self() {
    std::vector<const CollectiveCall*> sends, recvs;
    for (const CollectiveCall& call : calls_) {
      if (call.peer == comm_->rank) (call.kind == Kind::send ? sends : recvs).push_back(&call);
    }
    if (sends.size() != recvs.size())
      refuse(ncclInvalidUsage, comm_->name, ": rank ", comm_->rank, " has ", sends.size(), " sends to itself and ", recvs.size(),
             " receives from itself");
    for (size_t i = 0; i < sends.size(); ++i) {
      if (sends[i]->count * bytes_of(sends[i]->type) != recvs[i]->count * bytes_of(recvs[i]->type))
        refuse(ncclInvalidUsage, comm_->name, ": ", sends[i]->text(), " meets ", recvs[i]->text());
      to_self_.push_back({sends[i], recvs[i]});
    }
  }

  void compare() const {
    size_t i = 0;
    for (const CollectiveCall& call : calls_) {
      if (call.peer == comm_->rank) continue;
      PairHeader other;
      std::memcpy(&other, others_[i++]->data(), sizeof other);
      if (other.count * bytes_of(static_cast<ncclDataType_t>(other.type)) != call.count * bytes_of(call.type))
        refuse(ncclInvalidUsage, comm_->name, ": different sizes: on rank ", comm_->rank, " ", call.text(), ", ", call.site.text(), "; on rank ",
               call.peer, " ", other.text);
    }
  }

  void start() {
    for (const CollectiveCall& call : calls_) {
      const size_t bytes = call.count * bytes_of(call.type);
      if (call.kind == Kind::send)
        require_live(call.from, bytes, "sendbuff");
      else
        require_live(call.to, bytes, "recvbuff");
      if (call.peer == comm_->rank) continue;
      if (call.kind == Kind::send)
        data_.send(call.peer, kPairTag, copy_in(call.from, 0, bytes));
      else
        incoming_.push_back({&call, &data_.receive(call.peer, kPairTag, bytes)});
    }
    for (const auto& [send, recv] : to_self_) self_data_.push_back(copy_in(send->from, 0, send->count * bytes_of(send->type)));
  }

  void finish() {
    for (const auto& [call, bytes] : incoming_) copy_out(call->to, 0, bytes->data(), bytes->size());
    for (size_t i = 0; i < to_self_.size(); ++i) copy_out(to_self_[i].second->to, 0, self_data_[i].data(), self_data_[i].size());
  }

  CommRef comm_;
  std::vector<CollectiveCall> calls_;
  Messages headers_, data_;
  std::vector<Bytes*> others_;  // headers of the other sides, in the order of the calls
  std::vector<std::pair<const CollectiveCall*, Bytes*>> incoming_;
  std::vector<std::pair<const CollectiveCall*, const CollectiveCall*>> to_self_;
  std::vector<Bytes> self_data_;
  Deadline deadline_;
  bool matched_ = false;
};

// ---- the calls of a group, one after another ----

class Sequence final : public Exchange {
 public:
  Sequence(CommRef comm, std::vector<CollectiveCall> calls) : comm_(std::move(comm)), calls_(std::move(calls)), ticket_(comm_->issued++) {}
  // Dropped with a lost device: what comes later must not wait for it.
  ~Sequence() override { comm_->executed = std::max(comm_->executed, ticket_ + 1); }

  bool advance() override {
    if (comm_->aborted) return true;  // its kernels leave, whatever they have done
    if (comm_->executed != ticket_) return false;
    for (;;) {
      if (!current_ && !begin_next()) break;
      if (!current_->advance()) return false;
      current_.reset();
    }
    comm_->executed = ticket_ + 1;
    return true;
  }

 private:
  static bool is_pair(const CollectiveCall& call) { return call.kind == Kind::send || call.kind == Kind::recv; }

  bool begin_next() {
    if (next_ == calls_.size()) return false;
    if (!is_pair(calls_[next_])) {
      current_ = std::make_unique<Collective>(comm_, calls_[next_++]);
      return true;
    }
    std::vector<CollectiveCall> pairs;
    while (next_ < calls_.size() && is_pair(calls_[next_])) pairs.push_back(calls_[next_++]);
    current_ = std::make_unique<Pairs>(comm_, std::move(pairs));
    return true;
  }

  CommRef comm_;
  std::vector<CollectiveCall> calls_;
  uint64_t ticket_;
  size_t next_ = 0;
  std::unique_ptr<Exchange> current_;
};

}  // namespace

std::unique_ptr<Exchange> start_exchange(CommRef comm, std::vector<CollectiveCall> calls) {
  return std::make_unique<Sequence>(std::move(comm), std::move(calls));
}

// ---- messages ----

void Messages::send(int to, int tag, Bytes data) {
  auto message = std::make_unique<Message>(Message{std::move(data), {}, to, false});
  for (size_t at = 0; at < std::max<size_t>(message->data.size(), 1); at += kPiece) {
    const int n = static_cast<int>(std::min(kPiece, message->data.size() - at));
    message->requests.emplace_back();
    check_mpi(MPI_Isend(message->data.data() + at, n, MPI_BYTE, to, tag, comm_, &message->requests.back()));
  }
  messages_.push_back(std::move(message));
}

Bytes& Messages::receive(int from, int tag, size_t bytes) {
  auto message = std::make_unique<Message>(Message{Bytes(bytes), {}, from, true});
  for (size_t at = 0; at < std::max<size_t>(bytes, 1); at += kPiece) {
    const int n = static_cast<int>(std::min(kPiece, bytes - at));
    message->requests.emplace_back();
    check_mpi(MPI_Irecv(message->data.data() + at, n, MPI_BYTE, from, tag, comm_, &message->requests.back()));
  }
  messages_.push_back(std::move(message));
  return messages_.back()->data;
}

bool Messages::done() {
  bool all = true;
  for (const auto& message : messages_) {
    int done = 1;
    if (!message->requests.empty())
      check_mpi(MPI_Testall(static_cast<int>(message->requests.size()), message->requests.data(), &done, MPI_STATUSES_IGNORE));
    if (done)
      message->requests.clear();
    else
      all = false;
  }
  return all;
}

std::vector<int> Messages::missing() {
  std::set<int> ranks;
  for (const auto& message : messages_) {
    if (message->incoming && !message->requests.empty()) ranks.insert(message->peer);
  }
  return {ranks.begin(), ranks.end()};
}

Messages::~Messages() {
  // MPI may still read or write the buffers of work that was dropped: they are kept for the rest of the process.
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::unique_ptr<Message>>;
  int finalized = 0;
  MPI_Finalized(&finalized);
  for (auto& message : messages_) {
    if (message->requests.empty() || finalized) continue;
    for (MPI_Request& request : message->requests) {
      if (message->incoming && request != MPI_REQUEST_NULL) MPI_Cancel(&request);
    }
    const std::lock_guard lock(mutex);
    kept->push_back(std::move(message));
  }
}

}  // namespace heddle::sim::nccl
