#include "checkpoint/save_writer.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>

#include "checkpoint/fold.h"
#include "checkpoint/words.h"
#include "core/io/crc32c.h"
#include "core/io/json_reader.h"

namespace heddle {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// 20 digits with leading zeros, in place.
void write_padded(std::byte* to, uint64_t value) {
  for (int i = 19; i >= 0; --i, value /= 10) to[i] = static_cast<std::byte>('0' + value % 10);
}

constexpr size_t kStepAt = std::string_view("step ").size();
constexpr size_t kIncarnationAt = kStepAt + 20 + std::string_view(", incarnation ").size();
size_t piece_bytes(const Plan& plan, const HeldPiece& held) {
  const SavedTensor& tensor = plan.tensors[held.tensor];
  return static_cast<size_t>(volume(tensor.pieces[held.piece].box) * size_of(tensor.dtype));
}

constexpr size_t kTextReserve = size_t{256} << 10;  // for config and scalars, which grow a little over a run

}  // namespace

SaveWriter::SaveWriter(RunDirectory& run, Control& control, const CheckpointOptions& options) : run_(run), control_(control), options_(options) {}

SaveWriter::~SaveWriter() {
  if (!thread_.joinable()) return;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !busy_; });
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SaveWriter::prepare(const StateDict& like) {
  drain();
  prepared_ = false;
  plan_ = make_plan(like, control_);
  const auto rank = static_cast<size_t>(control_.rank());
  const SafetensorsHeader& layout = plan_.shards[rank];
  size_t copies = 0;
  for (const HeldPiece& held : plan_.held) copies += held.owned ? 0 : piece_bytes(plan_, held);
  const size_t bytes = layout.file_size + copies;
  memory_.reset();  // before there are two
  memory_ = options_.queued_copies.memory ? options_.queued_copies.memory(bytes) : std::shared_ptr<std::byte[]>(new std::byte[bytes]);
  std::memset(memory_.get(), 0, bytes);  // touches every page now
  image_ = {memory_.get(), layout.file_size};
  copies_ = {memory_.get() + layout.file_size, copies};
  const std::string header = write_safetensors_header(layout);
  std::memcpy(image_.data(), header.data(), header.size());
  label_at_ = header.find(shard_label(rank, static_cast<uint64_t>(control_.size()), 0, 0));
  block_.resize(kBlockBytes);
  replica_folds_.assign(plan_.replicas, 0);

  shards_.assign(static_cast<size_t>(control_.size()), {});
  for (size_t r = 0; r < shards_.size(); ++r) {
    shards_[r].bytes = plan_.shards[r].file_size;
    shards_[r].crc32c.assign(block_count(shards_[r].bytes), 0);
  }
  if (rank == 0) {
    tensor_text_.clear();
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      if (i > 0) tensor_text_ += ",\n";
      append_tensor(tensor_text_, plan_.tensors[i]);
    }
    ManifestParts parts;
    parts.environment = options_.environment;
    parts.shards = &shards_;
    parts.tensors = tensor_text_;
    manifest_text_.reserve(manifest_capacity(parts) + 12 * kTextReserve);
  }
  job_.config.reserve(kTextReserve);
  job_.scalars.reserve(kTextReserve);
  kept_.reserve(kept_.size() + 4096);
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  prepared_ = true;
}

void SaveWriter::check_text(const StateDict& state, const std::string& config) const {
  const auto check = [](const char* what, const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const size_t n = utf8_length(text, at);
      HEDDLE_CHECK(n > 0, "checkpoint", what, " is not valid UTF-8 at byte ", at);
      at += n;
    }
  };
  check("the configuration", config);
  check("the scalars", state.scalars);
  check("the environment", options_.environment);
}

void SaveWriter::take_snapshot(uint64_t incarnation, uint64_t step, const StateDict& state) {
  HEDDLE_CHECK(state.tensors.size() == plan_.held.size(), "checkpoint", "the state has ", state.tensors.size(), " tensors, prepare() saw ",
               plan_.held.size());
  std::byte* copy = copies_.data();
  for (const HeldPiece& held : plan_.held) {
    const StateDict::Entry& e = state.tensors[held.entry];
    const SavedTensor& tensor = plan_.tensors[held.tensor];
    const Box& box = tensor.pieces[held.piece].box;
    const auto bytes = static_cast<size_t>(e.data.bytes());
    HEDDLE_CHECK(e.name == tensor.name && e.data.dtype == tensor.dtype && e.box == box && e.data.contiguous() && e.data.numel() == volume(box),
                 "checkpoint", "tensor ", held.entry, " is \"", e.name, "\", not \"", tensor.name, "\" as prepare() saw it");
    std::byte* const to = held.owned ? image_.data() + held.offset : copy;
    if (!held.owned) copy += bytes;
    if (options_.queued_copies.queue) {
      options_.queued_copies.queue(to, e.data, bytes);
    } else if (options_.copy_out) {
      options_.copy_out(to, e.data, bytes);
    } else if (bytes > 0) {
      std::memcpy(to, e.data.data, bytes);
    }
  }
  write_padded(image_.data() + label_at_ + kStepAt, step);
  write_padded(image_.data() + label_at_ + kIncarnationAt, incarnation);
}

void SaveWriter::rethrow_locked() {
  if (fatal_) std::rethrow_exception(fatal_);
  if (options_.most_failures > 0 && stats_.failed_in_a_row >= static_cast<uint64_t>(options_.most_failures)) {
    fail("checkpoint", concat(stats_.failed_in_a_row, " saves in a row have failed, the last one: ", error_), ExitCode::io);
  }
}

void SaveWriter::save(uint64_t incarnation, uint64_t step, const StateDict& state, const std::string& config, const std::function<void()>& copied) {
  check_text(state, config);
  if (!prepared_) prepare(state);
  {
    std::unique_lock lock(mutex_);
    if (busy_) {
      ++stats_.blocked;
      const double begun = now();
      changed_.wait(lock, [&] { return !busy_; });
      stats_.blocked_seconds += now() - begun;
    }
    rethrow_locked();
    if (stats_.committed > 0 && committed_ == CheckpointId{step, incarnation}) {
      lock.unlock();
      if (copied) copied();
      return;
    }
  }
  const double begun = now();
  snapshot_error_ = nullptr;
  job_.arrived = {};
  job_.incarnation = incarnation;
  job_.step = step;
  job_.begun = begun;
  try {
    take_snapshot(incarnation, step, state);
    if (options_.queued_copies.queued) job_.arrived = options_.queued_copies.queued();
    job_.config = config;
    job_.scalars = state.scalars;
  } catch (const Error&) {
    if (alone()) throw;
    snapshot_error_ = std::current_exception();  // the other ranks are on their way into this save: fail it together
  } catch (const std::bad_alloc&) {
    snapshot_error_ = std::current_exception();  // this save fails; the job has what it needs to go on
  }
  {
    const std::lock_guard lock(mutex_);
    stats_.copy_seconds = now() - begun;
    busy_ = true;
  }
  changed_.notify_all();
  if (copied) copied();
}

void SaveWriter::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !busy_; });
}

void SaveWriter::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !busy_; });
  rethrow_locked();
}

void SaveWriter::set_catalog(std::vector<Kept> kept, std::vector<RunDirectory::Leftover> leftovers) {
  drain();
  const std::lock_guard lock(mutex_);
  kept_ = std::move(kept);
  std::sort(kept_.begin(), kept_.end(), [](const Kept& a, const Kept& b) { return a.id < b.id; });
  kept_.reserve(kept_.size() + 4096);
  leftovers_ = std::move(leftovers);
}

void SaveWriter::pin(uint64_t step, bool pinned) {
  const std::lock_guard lock(mutex_);
  for (Kept& k : kept_) {
    if (k.id.step == step && !k.dead) k.pinned = pinned;
  }
}

std::optional<std::string> SaveWriter::last_error() const {
  const std::lock_guard lock(mutex_);
  return error_.empty() ? std::nullopt : std::optional<std::string>(error_);
}

SaveStats SaveWriter::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void SaveWriter::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return busy_ || stop_; });
    if (!busy_) return;
    lock.unlock();
    run_job();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void SaveWriter::run_job() {
  bool committed = false;
  try {
    Handle directory;
    write_shards(directory);
    if (alone()) {
      commit(directory);
    } else {
      agree(
          control_,
          [&] {
            if (control_.rank() == 0) {
              take_descriptions();
              commit(directory);
            }
            return std::string();
          },
          options_.exchange_limit);
    }
    committed = true;
    const std::lock_guard lock(mutex_);
    committed_ = {job_.step, job_.incarnation};
    ++stats_.committed;
    stats_.failed_in_a_row = 0;
    stats_.last_step = job_.step;
    stats_.bytes = image_.size();
    stats_.write_seconds = now() - job_.begun;
    error_.clear();
  } catch (const std::exception& e) {
    const auto* error = dynamic_cast<const Error*>(&e);
    abandon();
    const std::lock_guard lock(mutex_);
    ++stats_.failed;
    ++stats_.failed_in_a_row;
    const bool hung = error != nullptr && error->code() == ExitCode::hung;
    if (hung || (error != nullptr && error->code() == ExitCode::in_use)) fatal_ = std::current_exception();
    try {
      const bool starved = dynamic_cast<const std::bad_alloc*>(&e) != nullptr;
      error_ = concat("save of step ", job_.step, " failed: ", starved ? "out of host memory" : e.what());
      if (options_.log) options_.log(error_);
    } catch (...) {
      error_ = "out of memory";  // fits without allocating
    }
    if (hung && options_.on_hung) options_.on_hung(*error);  // the training thread may be waiting for the same rank, for ever
  }
  if (committed) after_commit();
}

Handle SaveWriter::open_directory(bool create) {
  Name name;
  checkpoint_name({job_.step, job_.incarnation}, name);
  FileSystem& fs = run_.fs();
  if (create) {
    if (const int r = fs.make_directory(run_.checkpoints(), name); r < 0) fail_io("checkpoint", "make directory", name, r);
  }
  const int h = fs.open_directory(run_.checkpoints(), name);
  if (h < 0) fail_io("checkpoint", "open directory", name, h);
  return {fs, h};
}

void SaveWriter::fold_snapshot() {
  if (job_.arrived) job_.arrived();
  fold_ = 0;
  const std::byte* copy = copies_.data();
  for (const HeldPiece& held : plan_.held) {
    const SavedTensor& tensor = plan_.tensors[held.tensor];
    const std::byte* const data = held.owned ? image_.data() + held.offset : copy;
    if (!held.owned) copy += piece_bytes(plan_, held);
    const uint64_t fold = fold_piece(tensor.name, tensor.dtype, tensor.global, tensor.pieces[held.piece].box, data);
    if (held.owned) fold_ += fold;
    if (held.replica != HeldPiece::kSingle) replica_folds_[held.replica] = fold;
  }
}

void SaveWriter::write_shard(const Handle& directory) {
  FileSystem& fs = run_.fs();
  const auto rank = static_cast<size_t>(control_.rank());
  SavedShard& shard = shards_[rank];
  fold_snapshot();
  Name name;
  shard_name(rank, shards_.size(), name);
  const int h = fs.create_file(directory.get(), name);
  if (h < 0) fail_io("checkpoint", "create", name, h);
  Handle file(fs, h);
  int r = fs.allocate(h, image_.size());  // a full disk shows here, before anything is written
  while (r == -EINTR) r = fs.allocate(h, image_.size());
  if (r < 0) fail_io("checkpoint", "reserve space for", name, r);
  hash_.reset();
  for (uint64_t i = 0; i < shard.crc32c.size(); ++i) {
    const uint64_t begin = i * kBlockBytes, size = std::min<uint64_t>(kBlockBytes, image_.size() - begin);
    // From the snapshot, not read back: what a faulty path to the disk wrote must not vouch for itself.
    shard.crc32c[i] = crc32c(image_.data() + begin, size);
    hash_.update(image_.data() + begin, size);
    write_all(fs, h, image_.data() + begin, size, begin, name);
  }
  shard.sha256 = hash_.finish();
  // After a failed fsync the kernel counts the pages as clean; a second fsync would lie. So any error ends this save.
  if (r = fs.sync(h); r < 0) fail_io("checkpoint", "fsync", name, r);
  if (r = file.close(); r < 0) fail_io("checkpoint", "close", name, r);
  if (r = fs.sync(directory.get()); r < 0) fail_io("checkpoint", "fsync the directory of", name, r);
}

void SaveWriter::write_shards(Handle& directory) {
  if (alone()) {
    if (snapshot_error_) std::rethrow_exception(snapshot_error_);
    directory = open_directory(true);
    write_shard(directory);
    return;
  }
  agree(
      control_,
      [&] {
        if (snapshot_error_) std::rethrow_exception(snapshot_error_);
        if (control_.rank() == 0) directory = open_directory(true);
        return std::string();
      },
      options_.exchange_limit);
  descriptions_ = agree(
      control_,
      [&] {
        if (control_.rank() != 0) directory = open_directory(false);
        write_shard(directory);
        return describe_shard();
      },
      options_.exchange_limit);
}

std::string SaveWriter::describe_shard() const {
  const SavedShard& shard = shards_[static_cast<size_t>(control_.rank())];
  std::string out;
  append_number(out, fold_, ' ');
  out += hex(shard.sha256);
  out += ' ';
  for (const uint32_t crc : shard.crc32c) append_number(out, crc, ' ');
  for (const HeldPiece& held : plan_.held) {
    if (held.replica == HeldPiece::kSingle) continue;
    append_number(out, held.replica, ' ');
    append_number(out, replica_folds_[held.replica], ' ');
  }
  return out;
}

void SaveWriter::take_descriptions() {
  const std::vector<std::string>& texts = descriptions_;
  struct Replica {
    bool seen = false;
    uint64_t fold = 0;
    size_t rank = 0;
  };
  std::vector<Replica> replicas(plan_.replicas);
  fold_ = 0;
  for (size_t r = 0; r < texts.size(); ++r) {
    Words words(texts[r]);
    fold_ += words.number<uint64_t>();
    HEDDLE_CHECK(parse_hex(words.word(), shards_[r].sha256), "checkpoint", "rank ", r, " described its shard wrongly");
    for (uint32_t& crc : shards_[r].crc32c) crc = words.number<uint32_t>();
    while (!words.done()) {
      const auto index = words.number<uint64_t>(), fold = words.number<uint64_t>();
      HEDDLE_CHECK(index < replicas.size(), "checkpoint", "rank ", r, " described its shard wrongly");
      Replica& known = replicas[index];
      if (!known.seen) {
        known = {true, fold, r};
      } else if (known.fold != fold) {
        fail("checkpoint",
             concat("ranks ", known.rank, " and ", r, " hold different values of replicated piece ", index, "; the replicas have drifted apart"));
      }
    }
  }
}

void SaveWriter::commit(const Handle& directory) {
  FileSystem& fs = run_.fs();
  if (run_.superseded(job_.incarnation)) {
    fail("checkpoint", concat(run_.path(), ": a later job has taken over this run; incarnation ", job_.incarnation, " saves no more"),
         ExitCode::in_use);
  }
  ManifestParts parts;
  parts.step = job_.step;
  parts.incarnation = job_.incarnation;
  parts.fold = fold_;
  parts.environment = options_.environment;
  parts.config = job_.config;
  parts.scalars = job_.scalars;
  parts.shards = &shards_;
  parts.tensors = tensor_text_;
  write_manifest(parts, hash_, manifest_text_);
  HEDDLE_CHECK(manifest_text_.size() <= kMostManifestBytes, "checkpoint", "the manifest has ", manifest_text_.size(), " bytes, at most ",
               kMostManifestBytes, " can be read again");
  const int h = fs.create_file(directory.get(), kManifestTemporary);
  if (h < 0) fail_io("checkpoint", "create", kManifestTemporary, h);
  Handle file(fs, h);
  write_all(fs, h, manifest_text_.data(), manifest_text_.size(), 0, kManifestTemporary);
  if (const int r = fs.sync(h); r < 0) fail_io("checkpoint", "fsync", kManifestTemporary, r);
  if (const int r = file.close(); r < 0) fail_io("checkpoint", "close", kManifestTemporary, r);
  // The commit. It counts once both directories are on the disk.
  if (const int r = fs.rename(directory.get(), kManifestTemporary, directory.get(), kManifest); r < 0)
    fail_io("checkpoint", "rename to", kManifest, r);
  if (const int r = fs.sync(directory.get()); r < 0) fail_io("checkpoint", "fsync the directory of", kManifest, r);
  if (const int r = fs.sync(run_.checkpoints()); r < 0) fail_io("checkpoint", "fsync", "ckpt", r);
}

void SaveWriter::abandon() {
  // All ranks have stopped writing when this runs: the error reached them through one exchange.
  if (control_.rank() == 0) run_.remove({job_.step, job_.incarnation}, shards_.size());
}

}  // namespace heddle
