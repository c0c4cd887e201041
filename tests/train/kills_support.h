// Runs of the real program that are killed: their data, their command, and what a look at the run directory shows afterwards.
//
// How it is known that a kill fell inside a save: a save makes its directory first and renames its manifest last, so a dead job's directory
// without a manifest, left behind by the incarnation that was killed, is a save that the kill cut. Nothing in the program helps the test: the
// directory's creation is watched from outside (inotify), and the kill comes after a random part of a save's length.
#pragma once

#include <poll.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "checkpoint/run_directory.h"
#include "kernels/api/check.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"

namespace heddle::killed {

namespace fs = std::filesystem;
using test::Program;
using test::Scratch;
using test::slurp;

inline constexpr int kSaveEvery = 5;
inline constexpr double kPatience = 120;  // seconds for what takes a fraction of one

inline int environment_number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

class Session {
 public:
  Session(const Scratch& folder, int steps) : folder_(folder), steps_(steps) {
    std::mt19937 random(1);
    std::string text;
    for (int document = 0; document < 400; ++document) {
      for (int words = 2 + static_cast<int>(random() % 12); words > 0; --words) {
        for (int letters = 1 + static_cast<int>(random() % 7); letters > 0; --letters) text += static_cast<char>('a' + random() % 20);
        text += words > 1 ? ' ' : '\n';
      }
      text += '\n';
    }
    folder.write("words.txt", text);
    REQUIRE(complete({HEDDLE_PROGRAM, "tokenize", "--input", folder / "words.txt", "--tokenizer", "bytes", "--document-separator", "blank-line",
                      "--val-fraction", "0.1", "--out", folder / "shards"}) == 0);
  }

  std::vector<std::string> command(const std::string& run) const {
    return {HEDDLE_PROGRAM,
            "pretrain",
            "--out",
            folder_ / run,
            "--data",
            folder_ / "shards/*_train_*.bin",
            "--val",
            folder_ / "shards/*_val_*.bin",
            "--device",
            "cpu",
            "--precision",
            "fp32",
            "--layers",
            "2",
            "--heads",
            "4",
            "--dim",
            "64",
            "--seq",
            "32",
            "--batch",
            "2",
            "--total-batch-tokens",
            "64",
            "--lr",
            "0.003",
            "--warmup",
            "10",
            "--steps",
            std::to_string(steps_),
            "--save-every",
            std::to_string(kSaveEvery),
            "--eval-every",
            "50",
            "--eval-tokens",
            "200",
            "--threads",
            "1"};
  }
  int complete(const std::vector<std::string>& arguments) const { return Program(arguments, log()).wait(600); }
  std::string log() const { return folder_ / "log.txt"; }
  std::string log_tail() const {
    const std::string text = slurp(log());
    return text.substr(text.size() - std::min<size_t>(text.size(), 2000));
  }
  std::string digest(const std::string& run) const {
    const std::string out = folder_ / (run + ".digest");
    REQUIRE(Program({HEDDLE_PROGRAM, "inspect", folder_ / run, "--digest"}, out).wait(kPatience) == 0);
    return slurp(out);
  }
  // metrics.jsonl without what a clock measured.
  std::vector<std::string> metrics(const std::string& run) const {
    std::vector<std::string> lines;
    const std::string text = slurp(folder_ / (run + "/metrics.jsonl"));
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string line = text.substr(begin, end - begin);
      for (const char* clock : {"\"tokens_per_s\":", "\"step_ms\":"}) {
        const size_t at = line.find(clock);
        if (at != std::string::npos) line.erase(at, line.find_first_of(",}", at) - at);
      }
      lines.push_back(line);
    }
    return lines;
  }

 private:
  const Scratch& folder_;
  int steps_;
};

// What a look at the run directory shows after a kill.
struct Remains {
  uint64_t newest = 0;  // highest committed step
  uint64_t incarnation = 0;
  bool started = false;    // the job had decided where to begin
  bool in_save = false;    // its save has a directory and no manifest
  bool in_delete = false;  // an old checkpoint is half deleted: its manifest is retired
};

inline Remains look(const std::string& run) {
  Remains out;
  if (!fs::exists(run + "/ckpt")) return out;
  for (const auto& entry : fs::directory_iterator(run + "/inc")) {
    if (const auto n = parse_number(entry.path().filename().string())) out.incarnation = std::max(out.incarnation, *n);
  }
  out.started = fs::exists(concat(run, "/inc/", out.incarnation, ".base"));
  for (const auto& entry : fs::directory_iterator(run + "/ckpt")) {
    const auto id = parse_checkpoint_name(entry.path().filename().string());
    if (!id) continue;
    if (fs::exists(entry.path() / kManifest)) {
      out.newest = std::max(out.newest, id->step);
    } else if (fs::exists(entry.path() / kManifestRetired)) {
      out.in_delete = true;
    } else if (id->incarnation == out.incarnation) {
      out.in_save = true;
    }
  }
  return out;
}

inline uint64_t last_logged_step(const std::string& run) {
  const std::string text = slurp(run + "/metrics.jsonl");
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) return 0;
  const size_t previous = text.rfind('\n', end - 1);
  const std::string line = text.substr(previous == std::string::npos ? 0 : previous + 1);
  return std::stoull(line.substr(line.find("\"step\":") + 7));
}

// Tells when directories appear in `path`.
class Watch {
 public:
  explicit Watch(const std::string& path) : handle_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    REQUIRE(handle_ >= 0);
    REQUIRE(::inotify_add_watch(handle_, path.c_str(), IN_CREATE) >= 0);
  }
  ~Watch() { ::close(handle_); }
  // How many so far, after waiting for more for a few milliseconds.
  int seen() {
    pollfd wait{handle_, POLLIN, 0};
    ::poll(&wait, 1, 5);
    alignas(inotify_event) char buffer[4096];
    for (ssize_t n; (n = ::read(handle_, buffer, sizeof buffer)) > 0;) {
      for (ssize_t at = 0; at < n; at += static_cast<ssize_t>(sizeof(inotify_event) + reinterpret_cast<inotify_event*>(buffer + at)->len)) ++count_;
    }
    return count_;
  }

 private:
  int handle_, count_ = 0;
};

}  // namespace heddle::killed
