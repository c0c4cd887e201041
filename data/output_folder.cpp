#include "data/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "data/file.h"
#include "data/shard.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

constexpr char kDataset[] = "dataset.json", kTokenizer[] = "tokenizer.json";
constexpr char kWork[] = ".heddle-tokenize", kMark[] = ".made-by-heddle";  // the hidden folder, and the empty file in it by which it is known

[[noreturn]] void refuse(const std::string& text) {
  fail("tokenize", text, ExitCode::usage);
}

// "{name}_train_000000.bin" or "{name}_val_000000.bin"; with an empty `name`, of any name.
bool is_shard_name(const std::string& file, const std::string& name) {
  for (const char* split : {"_train_", "_val_"}) {
    const size_t at = file.rfind(split);
    if (at == std::string::npos || at == 0 || (!name.empty() && file.substr(0, at) != name)) continue;
    const std::string rest = file.substr(at + std::strlen(split));
    if (rest.size() >= 10 && rest.substr(rest.size() - 4) == ".bin" &&
        std::all_of(rest.begin(), rest.end() - 4, [](unsigned char c) { return std::isdigit(c); })) {
      return true;
    }
  }
  return false;
}

bool is_plain_file(const std::string& path) {
  std::error_code unknown;
  return fs::is_regular_file(fs::symlink_status(path, unknown));
}

// Whether the file is what heddle wrote for this record.
bool is_ours(const std::string& path, const DatasetInfo::Shard& record) {
  if (!is_shard_name(record.file, "") || !is_plain_file(path)) return false;
  const auto size = static_cast<int64_t>(fs::file_size(path));
  return size == kShardHeaderBytes + 2 * record.tokens || size == kShardHeaderBytes + 4 * record.tokens;
}

// What an earlier process made here as its hidden folder; it may have ended before it could leave the mark.
bool is_our_work(const std::string& path) {
  return fs::is_directory(fs::symlink_status(path)) && (fs::is_empty(path) || is_plain_file(concat(path, "/", kMark)));
}

}  // namespace

void require_no_input_there(const std::string& folder, const std::vector<std::string>& inputs) {
  if (!fs::is_directory(folder)) return;
  std::map<std::pair<dev_t, ino_t>, std::string> ours;
  struct stat status;
  const auto add = [&](const fs::path& file) {
    if (::stat(file.c_str(), &status) == 0) ours.emplace(std::pair(status.st_dev, status.st_ino), file.string());
  };
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (file == kDataset || file == kTokenizer || is_shard_name(file, "")) add(entry.path());
  }
  if (const fs::path work = fs::path(folder) / kWork; fs::is_directory(fs::symlink_status(work))) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(work)) add(entry.path());
  }
  for (const std::string& input : inputs) {
    if (::stat(input.c_str(), &status) != 0) continue;  // told where it is opened
    const auto found = ours.find({status.st_dev, status.st_ino});
    if (found == ours.end()) continue;
    refuse(concat("--input ", input, " is ", found->second, ", which a data set in --out ", folder, " would replace; give another --out"));
  }
}

std::string shard_name(const std::string& name, const std::string& split, size_t index) {
  const std::string digits = std::to_string(index);
  return concat(name, "_", split, "_", std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0'), digits, ".bin");
}

OutputFolder::OutputFolder(const std::string& path, const std::string& name) : path_(path), work_(concat(path, "/", kWork)), old_(work_ + "/old") {
  made_ = fs::create_directories(path_);
  try {
    lock_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ < 0) fail("tokenize", concat(path, ": cannot open: ", std::strerror(errno)), ExitCode::io);
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      fail("tokenize", concat(path, ": another heddle tokenize is writing here"), ExitCode::in_use);
    }
    recover();
    find_earlier(name);
    fs::create_directory(work_);
    FileWriter(concat(work_, "/", kMark)).close();
    sync_directory(work_);
  } catch (...) {
    if (lock_ >= 0) ::close(lock_);
    ::rmdir(work_.c_str());  // neither goes unless it is empty
    if (made_) ::rmdir(path_.c_str());
    throw;
  }
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  try {
    remove_work();
  } catch (const std::exception&) {  // the next process sees to it
  }
  if (made_) fs::remove(path_, ignored);  // only when nothing came into it
  ::close(lock_);
}

// What a process that was killed left: the lock says that nobody writes here.
void OutputFolder::recover() {
  if (!fs::exists(fs::symlink_status(work_))) return;
  if (!is_our_work(work_)) refuse(concat(work_, ": not a folder that heddle tokenize made; move it away, or give another --out"));
  if (fs::is_directory(fs::symlink_status(old_)) && !fs::exists(path_ + "/" + kDataset)) {
    std::vector<std::string> fresh = {kTokenizer};
    if (const auto info = DatasetInfo::load(work_)) {
      for (const DatasetInfo::Shard& shard : info->shards) fresh.push_back(shard.file);
    }
    put_back(fresh);
  }
  remove_work();
}

// The mark goes last: what a removal leaves that does not reach its end is still known.
void OutputFolder::remove_work() {
  for (const fs::directory_entry& entry : fs::directory_iterator(work_)) {
    if (entry.path().filename() != kMark) fs::remove_all(entry.path());
  }
  fs::remove(concat(work_, "/", kMark));
  fs::remove(work_);
}

void OutputFolder::find_earlier(const std::string& name) {
  std::set<std::string> ours;
  if (const auto info = DatasetInfo::load(path_)) {
    earlier_ = {kDataset};
    earlier_tokenizer_ = info->tokenizer_fingerprint;
    for (const DatasetInfo::Shard& shard : info->shards) {
      if (!is_ours(path_ + "/" + shard.file, shard)) continue;
      ours.insert(shard.file);
      earlier_.push_back(shard.file);
    }
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
    const std::string file = entry.path().filename().string();
    if (!is_shard_name(file, name) || ours.count(file)) continue;
    refuse(concat(path_, "/", file, ": a shard of the name '", name,
                  "' that no dataset.json records as it is; move it away, or give another --out or --name"));
  }
}

void OutputFolder::check_tokenizer(const Tokenizer& tokenizer) {
  const std::string path = path_ + "/" + kTokenizer;
  if (!fs::exists(fs::symlink_status(path))) return;
  std::string there;
  try {
    if (is_plain_file(path)) there = Tokenizer::load(path).fingerprint();
  } catch (const Error&) {  // nothing that heddle wrote
  }
  if (!there.empty() && there == earlier_tokenizer_) {
    earlier_.emplace_back(kTokenizer);
  } else if (there != tokenizer.fingerprint()) {
    refuse(concat(path, ": not the tokenizer of a data set that heddle wrote here; move it away, or give another --out"));
  }
}

void OutputFolder::commit(const DatasetInfo& info, const Tokenizer& tokenizer) {
  const bool keep = fs::exists(path_ + "/" + kTokenizer) && std::count(earlier_.begin(), earlier_.end(), kTokenizer) == 0;
  std::vector<std::string> fresh;
  for (const DatasetInfo::Shard& shard : info.shards) fresh.push_back(shard.file);
  if (!keep) fresh.emplace_back(kTokenizer);
  tokenizer.save(work_ + "/" + kTokenizer);
  replace_file(work_ + "/" + kDataset, info.to_json());
  fs::create_directory(old_);
  sync_directory(work_);
  try {
    // dataset.json vouches for the shards: gone before the first of them changes, back after the last.
    for (const std::string& file : earlier_) rename_file(path_ + "/" + file, old_ + "/" + file);
    sync_directory(path_);
    for (const std::string& file : fresh) rename_file(work_ + "/" + file, path_ + "/" + file);
    sync_directory(path_);
    rename_file(work_ + "/" + kDataset, path_ + "/" + kDataset);
  } catch (...) {
    put_back(fresh);
    throw;
  }
  sync_directory(path_);
}

// Undoes a commit that did not reach its end: the new set's files that have moved already go, and all that lies in old_ comes back.
void OutputFolder::put_back(const std::vector<std::string>& fresh) {
  for (const std::string& file : fresh) {
    if (!fs::exists(work_ + "/" + file) && (file == kTokenizer || is_shard_name(file, ""))) fs::remove(path_ + "/" + file);
  }
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(old_)) files.push_back(entry.path().filename().string());
  std::sort(files.begin(), files.end(), [](const std::string& a, const std::string& b) { return (a == kDataset) < (b == kDataset); });
  for (const std::string& file : files) rename_file(old_ + "/" + file, path_ + "/" + file);
  sync_directory(path_);
}

}  // namespace heddle
