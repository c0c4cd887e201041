// What follows a commit: the LATEST hint, leftovers, reading back, deleting old checkpoints.
#include <algorithm>
#include <cstring>

#include "checkpoint/reader.h"
#include "checkpoint/save_writer.h"

namespace heddle {

// The commit stands, whatever goes wrong after it; and no rank may leave the others alone in the next exchange.
template <class Body>
void SaveWriter::housekeeping(Body body) {
  try {
    body();
  } catch (const std::exception& e) {
    const std::lock_guard lock(mutex_);
    ++stats_.retention_failures;
    try {
      if (options_.log) options_.log(concat("after the save of step ", job_.step, ": ", e.what()));
    } catch (...) {
    }
  }
}

void SaveWriter::after_commit() {
  const bool first = control_.rank() == 0;
  if (first) {
    housekeeping([&] {
      const std::lock_guard lock(mutex_);
      kept_.push_back({{job_.step, job_.incarnation}, shards_.size(), true, false, false});
      std::sort(kept_.begin(), kept_.end(), [](const Kept& a, const Kept& b) { return a.id < b.id; });
    });
    housekeeping([&] {
      if (run_.superseded(job_.incarnation)) return;
      Name line;
      checkpoint_name({job_.step, job_.incarnation}, line);
      const size_t length = std::strlen(line);
      line[length] = '\n';
      write_file_atomically(run_.fs(), run_.root(), "LATEST", {line, length + 1}, "LATEST");
      for (const RunDirectory::Leftover& leftover : leftovers_) run_.remove(leftover);
      leftovers_.clear();
    });
  }
  if (options_.scrub_every > 0 && stats().committed % static_cast<uint64_t>(options_.scrub_every) == 0) {
    housekeeping([&] { scrub(); });
  }
  if (first) housekeeping([&] { retain(); });
}

void SaveWriter::scrub() {
  const CheckpointId id{job_.step, job_.incarnation};
  const auto rank = static_cast<size_t>(control_.rank());
  FileSystem& fs = run_.fs();
  // Each rank its own shard. A device error is damage here: this checkpoint cannot be relied on.
  const auto read_back = [&]() -> std::string {
    try {
      Name name;
      shard_name(rank, shards_.size(), name);
      const Handle directory = open_directory(false);
      const std::string path = run_.path_of(id, name);
      const Handle file = open_regular(fs, directory.get(), name, path);
      fs.drop_cache(file.get());
      hash_.reset();
      for (uint64_t at = 0; at < image_.size(); at += kBlockBytes) {
        const size_t size = std::min<uint64_t>(kBlockBytes, image_.size() - at);
        read_exact(fs, file.get(), block_.data(), size, at, path);
        hash_.update(block_.data(), size);
      }
      if (hash_.finish() == shards_[rank].sha256) return {};
      return path + ": reads back differently from what was written";
    } catch (const Error& e) {
      return e.what();
    }
  };
  for (const std::string& damage : agree(control_, read_back, options_.exchange_limit)) {
    if (damage.empty()) continue;
    if (options_.log) options_.log(concat(damage, "; the checkpoint is moved to quarantine"));
    const std::lock_guard lock(mutex_);
    ++stats_.scrub_failures;
    error_ = damage;
    const auto it = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.id == id; });
    if (it != kept_.end()) {
      run_.quarantine(id);
      kept_.erase(it);
    }
    return;
  }
}

void SaveWriter::retain() {
  if (run_.superseded(job_.incarnation)) return;
  const std::lock_guard lock(mutex_);
  // The newest live ones stay, whoever saved them. Nothing goes before two of those are ones that this job has hashed: so many stand after every
  // deletion, whatever the older ones are worth.
  const int keep = std::max(2, options_.keep_last);
  int live = 0, verified = 0;
  CheckpointId oldest_kept;
  for (auto it = kept_.rbegin(); it != kept_.rend() && live < keep; ++it) {
    if (it->dead) continue;
    ++live;
    verified += it->verified;
    oldest_kept = it->id;
  }
  if (verified < 2) return;
  for (size_t i = 0; i < kept_.size();) {
    const Kept& k = kept_[i];
    const bool old = k.id < oldest_kept;
    const bool forever = !k.dead && (k.pinned || (options_.keep_every > 0 && k.id.step % options_.keep_every == 0));
    if (!(old || k.dead) || forever) {
      ++i;
      continue;
    }
    const int r = run_.remove(k.id, k.shards);
    if (r < 0) {
      ++stats_.retention_failures;
      if (options_.log) options_.log(concat("cannot delete ", run_.path_of(k.id), " (error ", -r, "); it is left for the next start"));
    }
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace heddle
