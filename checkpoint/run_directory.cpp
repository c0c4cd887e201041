#include "checkpoint/run_directory.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cinttypes>
#include <cstdio>

namespace heddle {
namespace {

Handle open_part(FileSystem& fs, int at, const char* name, const std::string& path, bool create) {
  if (create) {
    const int made = fs.make_directory(at, name);
    if (made < 0 && made != -EEXIST) fail_io("checkpoint", "make directory", path, made);
    if (made == 0) {
      if (const int r = fs.sync(at); r < 0) fail_io("checkpoint", "fsync the parent of", path, r);
    }
  }
  const int h = fs.open_directory(at, name);
  if (h == -ENOENT && !create) return {};
  if (h == -ELOOP || h == -ENOTDIR) {
    fail("checkpoint", concat(path, ": must be a directory, not a link or a file"), ExitCode::bad_data);
  }
  if (h < 0) fail_io("checkpoint", "open directory", path, h);
  return {fs, h};
}

std::vector<std::string> sorted_names(const FileSystem& fs, int handle, const std::string& path) {
  std::vector<std::string> names;
  if (const int r = fs.list(handle, names); r < 0) fail_io("checkpoint", "list", path, r);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

void checkpoint_name(const CheckpointId& id, Name& out) {
  std::snprintf(out, sizeof out, "s%" PRIu64 "-i%" PRIu64, id.step, id.incarnation);
}

void shard_name(uint64_t shard, uint64_t shards, Name& out) {
  std::snprintf(out, sizeof out, "shard-%" PRIu64 "-of-%" PRIu64 ".safetensors", shard, shards);
}

void incarnation_name(uint64_t incarnation, Name& out) {
  std::snprintf(out, sizeof out, "%" PRIu64, incarnation);
}

std::string text_of(const CheckpointId& id) {
  Name name;
  checkpoint_name(id, name);
  return name;
}

std::optional<uint64_t> parse_number(std::string_view digits) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value >= kNumberEnd) return std::nullopt;
  if (digits.size() > 1 && digits[0] == '0') return std::nullopt;
  return value;
}

std::optional<CheckpointId> parse_checkpoint_name(std::string_view name) {
  const size_t dash = name.find("-i");
  if (name.empty() || name[0] != 's' || dash == std::string_view::npos) return std::nullopt;
  const auto step = parse_number(name.substr(1, dash - 1)), incarnation = parse_number(name.substr(dash + 2));
  if (!step || !incarnation) return std::nullopt;
  return CheckpointId{*step, *incarnation};
}

RunDirectory::RunDirectory(FileSystem& fs, std::string path, bool create) : fs_(&fs), path_(std::move(path)) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  if (create) make_directories(fs, path_);
  const int h = fs.open_root(path_.c_str());
  if (h < 0) fail_io("checkpoint", "open run directory", path_, h);
  root_ = Handle(fs, h);
  inc_ = open_part(fs, h, "inc", path_ + "/inc", create);
  ckpt_ = open_part(fs, h, "ckpt", path_ + "/ckpt", create);
  quarantine_ = open_part(fs, h, "quarantine", path_ + "/quarantine", create);
  if (!inc_ || !ckpt_) fail("checkpoint", concat(path_, ": is no run directory, it has no inc/ or ckpt/"), ExitCode::bad_data);
}

std::string RunDirectory::path_of(const CheckpointId& id, std::string_view file) const {
  std::string path = path_ + "/ckpt/" + text_of(id);
  if (!file.empty()) path.append("/").append(file);
  return path;
}

void RunDirectory::take_lock() {
  constexpr int kTries = 5;
  const std::string path = path_ + "/LOCK";
  Handle replaced;  // held until its successor is: nobody gets in between
  for (int tries = 1;; ++tries) {
    const int h = fs_->open_lock(root_.get(), "LOCK");
    if (h < 0) fail_io("checkpoint", "open", path, h);
    Handle lock(*fs_, h);
    int r = fs_->lock(h);
    while (r == -EINTR) r = fs_->lock(h);
    FileInfo info;
    const bool known = fs_->info(h, info) == 0;
    if (r == -EWOULDBLOCK) {
      const bool shared = known && info.links > 1;
      fail("checkpoint",
           concat(path_, " is in use by another job; wait for it, stop it, or choose another --out",
                  shared ? concat(". LOCK is one file with that of another run, hard-linked as by cp -al: if only that run is in use, delete ", path)
                         : ""),
           ExitCode::in_use);
    }
    locked_ = r == 0;
    // Some network file systems have no locks; incarnations keep two jobs apart there.
    if (r < 0 && r != -ENOLCK && r != -EOPNOTSUPP && r != -ENOSYS && r != -EINVAL) fail_io("checkpoint", "lock", path, r);
    // What was locked must be this run's LOCK and no other's: one that is gone by now is looked for again, one that a copy of the run by hard links
    // shares is replaced.
    const Handle named(*fs_, locked_ && known ? fs_->open_file(root_.get(), "LOCK") : -EINVAL);
    FileInfo now;
    const bool gone = named.get() == -ENOENT || (named && fs_->info(named.get(), now) == 0 && now.inode != info.inode);
    if (tries == kTries || (!gone && info.links <= 1)) {
      lock_ = std::move(lock);
      return;
    }
    if (gone) continue;
    write_file_atomically(*fs_, root_.get(), "LOCK", "", path);
    replaced = std::move(lock);
  }
}

void RunDirectory::sweep() {
  if (!locked_) return;
  // NAME.tmp, or NAME.tmp with the number of the process behind it, of files that heddle keeps here.
  const auto is_leftover = [](std::string_view file, auto&& is_ours) {
    const size_t at = file.rfind(".tmp");
    return at != file.npos && file.find_first_not_of("0123456789", at + 4) == file.npos && is_ours(file.substr(0, at));
  };
  const auto is_file = [](std::string_view name) {
    constexpr std::string_view kNames[] = {"LATEST",         "LOCK",          "config.toml", "shards.txt",
                                           "tokenizer.json", "metrics.jsonl", "samples.txt", "bad_batches.jsonl"};
    return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
  };
  const auto is_base = [](std::string_view name) { return name.ends_with(".base") && parse_number(name.substr(0, name.size() - 5)); };
  for (const std::string& name : sorted_names(*fs_, root_.get(), path_)) {
    if (is_leftover(name, is_file)) fs_->unlink(root_.get(), name.c_str());
  }
  for (const std::string& name : sorted_names(*fs_, inc_.get(), path_ + "/inc")) {
    if (is_leftover(name, is_base)) fs_->unlink(inc_.get(), name.c_str());
  }
}

uint64_t RunDirectory::claim_incarnation() {
  uint64_t highest = 0;
  for (const std::string& name : sorted_names(*fs_, inc_.get(), path_ + "/inc")) {
    const std::string_view digits = std::string_view(name).substr(0, name.find('.'));
    if (const auto n = parse_number(digits)) highest = std::max(highest, *n);
  }
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    Name name;
    if (highest + 1 >= kNumberEnd) {
      incarnation_name(highest, name);
      fail("checkpoint",
           concat(path_, "/inc/", name, ": no start of heddle can have counted so far; move that file away, or restore inc/ from a copy"),
           ExitCode::bad_data);
    }
    const uint64_t n = ++highest;
    incarnation_name(n, name);
    const int h = fs_->create_file(inc_.get(), name);
    if (h == -EEXIST) continue;  // another job was quicker
    if (h < 0) fail_io("checkpoint", "create", path_ + "/inc/" + name, h);
    Handle handle(*fs_, h);
    if (const int r = handle.close(); r < 0) fail_io("checkpoint", "close", path_ + "/inc/" + name, r);
    if (const int r = fs_->sync(inc_.get()); r < 0) fail_io("checkpoint", "fsync", path_ + "/inc", r);
    return n;
  }
  fail("checkpoint", concat(path_, ": other jobs keep starting here"), ExitCode::in_use);
}

void RunDirectory::give_back_incarnation(uint64_t incarnation) {
  if (!locked_) return;
  Name name;
  std::snprintf(name, sizeof name, "%" PRIu64 ".base", incarnation);
  fs_->unlink(inc_.get(), name);
  incarnation_name(incarnation, name);
  fs_->unlink(inc_.get(), name);
  fs_->sync(inc_.get());
}

bool RunDirectory::superseded(uint64_t incarnation) const {
  // Incarnations are claimed one after the other, and only the newest is ever given back, so looking for the next is enough.
  Name name;
  incarnation_name(incarnation + 1, name);
  return fs_->exists(inc_.get(), name) == 0;
}

void RunDirectory::write_base(uint64_t incarnation, const Base& base) {
  Name name;
  std::snprintf(name, sizeof name, "%" PRIu64 ".base", incarnation);
  std::string text =
      "step " + std::to_string(base.from.step) + " incarnation " + std::to_string(base.from.incarnation) + " manifest " + hex(base.manifest) + "\n";
  text += "sha256 " + hex(sha256(text)) + "\n";
  write_file_atomically(*fs_, inc_.get(), name, text, path_ + "/inc/" + name);
}

std::vector<std::pair<uint64_t, Base>> RunDirectory::read_bases() const {
  constexpr size_t kMostBytes = 4096;
  std::vector<std::pair<uint64_t, Base>> bases;
  for (const std::string& name : sorted_names(*fs_, inc_.get(), path_ + "/inc")) {
    const size_t dot = name.find('.');
    if (dot == std::string::npos || name.substr(dot) != ".base") continue;
    const auto n = parse_number(std::string_view(name).substr(0, dot));
    if (!n) continue;
    const std::string path = path_ + "/inc/" + name;
    const std::string text = read_small_file(*fs_, inc_.get(), name.c_str(), path, kMostBytes);
    Base base;
    // Rebuilt from what was read and compared: nothing but the exact text passes.
    const std::string_view all = text;
    const size_t step = all.find("step "), inc = all.find(" incarnation "), manifest = all.find(" manifest "), end = all.find('\n');
    bool good = step == 0 && inc != all.npos && manifest != all.npos && inc < manifest && end != all.npos && manifest < end;
    if (good) {
      const auto from_step = parse_number(all.substr(5, inc - 5)), from_inc = parse_number(all.substr(inc + 13, manifest - inc - 13));
      good = from_step && from_inc && parse_hex(all.substr(manifest + 10, end - manifest - 10), base.manifest) &&
             all.substr(end + 1) == "sha256 " + hex(sha256(all.substr(0, end + 1))) + "\n";
      if (good) base.from = {*from_step, *from_inc};
    }
    if (!good) {
      fail("checkpoint",
           concat(path, ": is damaged, so which checkpoints are current is unknown; restore it from a copy, or delete it to trust the highest step"),
           ExitCode::bad_data);
    }
    bases.emplace_back(*n, base);
  }
  return bases;
}

RunDirectory::Listing RunDirectory::list() const {
  Listing out;
  for (const std::string& name : sorted_names(*fs_, ckpt_.get(), path_ + "/ckpt")) {
    const auto id = parse_checkpoint_name(name);
    if (!id) {
      out.foreign.push_back(name);
      continue;
    }
    // What is not a directory counts as committed, so that it is looked at, named and refused.
    const int h = fs_->open_directory(ckpt_.get(), name.c_str());
    const Handle directory(*fs_, h);
    if (h < 0 && h != -ELOOP && h != -ENOTDIR) fail_io("checkpoint", "open", path_of(*id), h);
    const int found = h < 0 ? 0 : fs_->exists(h, kManifest);
    if (found < 0 && found != -ENOENT) fail_io("checkpoint", "look for", path_of(*id, kManifest), found);
    (found == 0 ? out.committed : out.unfinished).push_back(*id);
  }
  std::sort(out.committed.begin(), out.committed.end());
  std::sort(out.unfinished.begin(), out.unfinished.end());
  return out;
}

uint64_t RunDirectory::count_shards(const CheckpointId& id) const {
  const Handle directory(*fs_, fs_->open_directory(ckpt_.get(), text_of(id).c_str()));
  if (!directory) return 1;
  for (const std::string& name : sorted_names(*fs_, directory.get(), path_of(id))) {
    const size_t of = name.find("-of-"), dot = name.rfind(".safetensors");
    if (name.rfind("shard-", 0) != 0 || of == std::string::npos || dot == std::string::npos || dot < of + 4) continue;
    if (const auto shards = parse_number(std::string_view(name).substr(of + 4, dot - of - 4)); shards && *shards <= kMostShards) return *shards;
  }
  return 1;
}

std::string RunDirectory::quarantine(const CheckpointId& id) {
  const std::string name = text_of(id);
  std::string target = name;
  for (int i = 1; fs_->exists(quarantine_.get(), target.c_str()) == 0; ++i) target = name + "." + std::to_string(i);
  if (const int r = fs_->rename(ckpt_.get(), name.c_str(), quarantine_.get(), target.c_str()); r < 0) {
    fail_io("checkpoint", "move to quarantine:", path_of(id), r);
  }
  // The new place first: a crash between the two leaves two names or one, never none.
  if (const int r = fs_->sync(quarantine_.get()); r < 0) fail_io("checkpoint", "fsync", path_ + "/quarantine", r);
  if (const int r = fs_->sync(ckpt_.get()); r < 0) fail_io("checkpoint", "fsync", path_ + "/ckpt", r);
  return target;
}

std::vector<RunDirectory::Leftover> RunDirectory::leftovers() const {
  std::vector<Leftover> out;
  if (!quarantine_) return out;
  for (const std::string& name : sorted_names(*fs_, quarantine_.get(), path_ + "/quarantine")) {
    const Handle directory(*fs_, fs_->open_directory(quarantine_.get(), name.c_str()));
    if (!directory || fs_->exists(directory.get(), kManifest) != -ENOENT) continue;
    out.push_back({name, sorted_names(*fs_, directory.get(), path_ + "/quarantine/" + name)});
  }
  return out;
}

void RunDirectory::remove(const Leftover& leftover) {
  {
    const Handle directory(*fs_, fs_->open_directory(quarantine_.get(), leftover.directory.c_str()));
    if (!directory) return;
    for (const std::string& file : leftover.files) fs_->unlink(directory.get(), file.c_str());
  }
  fs_->remove_directory(quarantine_.get(), leftover.directory.c_str());
}

int RunDirectory::remove(const CheckpointId& id, uint64_t shards) {
  Name name;
  checkpoint_name(id, name);
  int first = 0;
  const auto note = [&](int r) { first = first == 0 && r < 0 ? r : first; };
  {
    const int h = fs_->open_directory(ckpt_.get(), name);
    if (h < 0) return h;
    const Handle directory(*fs_, h);
    int r = fs_->rename(h, kManifest, h, kManifestRetired);
    if (r == -ENOENT) r = 0;
    if (r == 0) r = fs_->sync(h);
    if (r < 0) return r;  // still whole, or not surely gone: nothing else may be touched
    for (uint64_t i = 0; i < shards; ++i) {
      Name shard;
      shard_name(i, shards, shard);
      r = fs_->unlink(h, shard);
      if (r != -ENOENT) note(r);
    }
    r = fs_->unlink(h, kManifestTemporary);
    if (r != -ENOENT) note(r);
    r = fs_->unlink(h, kManifestRetired);
    if (r != -ENOENT) note(r);
  }
  note(fs_->remove_directory(ckpt_.get(), name));
  return first;
}

}  // namespace heddle
