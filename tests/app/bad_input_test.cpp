// Bad files, bad options, bad disks: one clear error each, with its exit code, and what was there before is there afterwards.
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <vector>

#include "tests/app/workplace.h"
#include "tests/support/program.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::expect_refusal;
using heddle::test::has;
using heddle::test::Program;
using heddle::test::Result;
using heddle::test::Workplace;

const std::string kModel =
    " --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --total-batch-tokens 32 --eval-every 0 --threads 1"
    " --no-tensorboard --no-progress --warmup 1 --schedule constant";

// Two shards of made-up words, their tokenizer and dataset.json; `run` stopped at the end of step 6 of 6 with checkpoints of 2, 4 and 6.
struct Trained : Workplace {
  explicit Trained(bool train = true) {
    std::string text;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --shard-tokens 900 --out shards").code == 0);
    shard = "shards/words_train_000000.bin";
    REQUIRE(fs::exists(path / shard));
    if (!train) return;
    const Result r = heddle(pretrain());
    INFO(r.err);
    REQUIRE(r.code == 0);
    digest = heddle("inspect run --digest").out;
    REQUIRE(has(digest, "step 6 digest "));
  }
  static std::string pretrain(const std::string& more = "--steps 6") {
    return "pretrain --data 'shards/*_train_*.bin' --out run --save-every 2" + kModel + " " + more;
  }
  // Refused with this code; every part in one message on standard error; the run is what it was.
  void refused(const std::string& arguments, int code, const std::vector<std::string>& parts, const std::string& before = "") const {
    const Result r = heddle(arguments, before);
    expect_refusal(arguments, r, code, parts);
    if (!digest.empty()) CHECK(heddle("inspect run --digest").out == digest);
  }
  void put(const std::string& name, size_t at, const std::string& bytes) const {
    std::string content = read(name);
    content.replace(at, bytes.size(), bytes);
    write(name, content);
  }
  std::vector<std::string> checkpoints(const std::string& folder = "run/ckpt") const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path / folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string shard, digest;
};

TEST_CASE("shards: missing, truncated, of another format, with a token beyond the vocabulary") {
  const Trained w;
  const std::string good = w.read(w.shard), more = Trained::pretrain("--steps 8");
  w.refused("pretrain --data 'nowhere/*.bin' --out new --steps 1" + kModel, 2, {"nowhere/*.bin"});
  w.refused("pretrain --data shards --out new --steps 1" + kModel, 2, {"shards: a directory", "'shards/*.bin'"});
  w.refused("eval run --data shards/", 2, {"shards/: a directory", "'shards/*.bin'"});
  REQUIRE(::mkfifo((w / "pipe").c_str(), 0600) == 0);
  w.refused("pretrain --data pipe --out new --steps 1" + kModel, 2, {"pipe: not a regular file"}, "timeout -s KILL 60");
  w.refused("pretrain --config pipe", 2, {"pipe: is a pipe"}, "timeout -s KILL 60");
  w.refused("pretrain --config shards", 2, {"shards: is a directory"});
  w.refused("pretrain --data 'shards/nothing*.bin' --out new --steps 1" + kModel, 2, {"shards/nothing*.bin"});
  w.refused("pretrain --data shards/gone.bin --out new --steps 1" + kModel, 2, {"shards/gone.bin"});
  const std::map<std::string, std::pair<std::string, std::vector<std::string>>> cases = {
      {"cut short", {good.substr(0, good.size() - 100), {w.shard, "cut short", std::to_string(good.size() - 100)}}},
      {"half a token more", {good + "x", {w.shard, "bytes follow the last token"}}},
      {"only a header's beginning", {good.substr(0, 100), {w.shard, "100 bytes"}}},
      {"empty", {"", {w.shard}}},
      {"text", {std::string(5000, 'x'), {w.shard, "magic number", "offset 0"}}},
      {"another version", {good.substr(0, 4) + "\x09" + good.substr(5), {w.shard, "version 9", "offset 4"}}},
      {"a negative count", {good.substr(0, 8) + "\xff\xff\xff\xff" + good.substr(12), {w.shard, "offset 8"}}},
      {"a bit changed", {good.substr(0, 2000) + static_cast<char>(good[2000] ^ 2) + good.substr(2001), {w.shard, "SHA-256", "dataset.json"}}},
      // Token 300 at number 7: 2 bytes each behind a header of 1024.
      {"a token beyond", {good.substr(0, 1038) + "\x2c\x01" + good.substr(1040), {w.shard, "token 300", "offset 1038", "257"}}}};
  for (const auto& [what, change] : cases) {
    INFO(what);
    w.write(w.shard, change.first);
    w.refused(more, 65, change.second);
  }
  fs::remove(w.path / w.shard);
  w.refused(more, 78, {"words_train_000000.bin", "is missing"});
  w.write(w.shard, good);
  CHECK(w.heddle(more).code == 0);  // and with the right bytes again it goes on
}

TEST_CASE("data set and tokenizer: damaged, of another vocabulary") {
  const Trained w;
  const std::string more = Trained::pretrain("--steps 8"), dataset = w.read("shards/dataset.json"), tokenizer = w.read("shards/tokenizer.json");
  w.write("shards/dataset.json", dataset.substr(0, dataset.size() / 2));
  w.refused(more, 65, {"shards/dataset.json"});
  w.write("shards/dataset.json", "[]");
  w.refused(more, 65, {"shards/dataset.json: another program's file", "move it away"});
  w.write("shards/dataset.json", dataset);
  w.write("broken.json", tokenizer.substr(0, tokenizer.size() / 2));
  w.refused(more + " --tokenizer broken.json", 65, {"broken.json"});
  w.refused(more + " --tokenizer nowhere.json", 74, {"nowhere.json"});
  REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bpe:270 --document-separator blank-line --out other").code == 0);
  w.refused(more + " --tokenizer other/tokenizer.json", 78, {"run/tokenizer.json", "257", "270", "tokenizer"});
  w.refused("pretrain --data 'other/*_train_*.bin' --out run --steps 8", 78, {"dataset.json"});
  w.refused("eval run --data 'other/*_train_*.bin'", 78, {"dataset.json"});
  // Shards nobody describes, with tokens that the model does not have: the first one is named, here the end-of-text token that begins a shard.
  fs::remove(w.path / "other/dataset.json");
  fs::remove(w.path / "other/tokenizer.json");
  w.refused("eval run --data 'other/*_train_*.bin'", 65, {"words_train_000000.bin", "token 269", "offset 1024", "257"});
}

TEST_CASE("options: unknown, impossible, of another run") {
  const Trained w;
  w.refused(Trained::pretrain("--stepz 6"), 2, {"unknown flag --stepz", "did you mean --steps?"});
  w.refused(Trained::pretrain("--steps 6 --dim 17"), 78, {"dim: saved 16, given 17"});
  w.refused(Trained::pretrain("--steps 8 --seed 7"), 78, {"seed", "42", "7", "--out"});
  w.refused(Trained::pretrain("--steps 8 --layers 2 --dim 32"), 78, {"layers", "dim", "16", "32"});
  w.refused(Trained::pretrain("--steps 8"), 78, {"lr", "HEDDLE_LR", "pass --lr"}, "HEDDLE_LR=0.5");
  w.refused(Trained::pretrain("--steps 8 --resume never"), 2, {"run", "3 checkpoints", "--resume auto"});
  w.refused("pretrain --out new --resume must --data 'shards/*_train_*.bin' --steps 1" + kModel, 65, {"new", "no checkpoint"});
  w.refused("pretrain --data 'shards/*_train_*.bin' --out new --steps 1 --model gpt2-124n", 2, {"gpt2-124n", "did you mean gpt2-124m?"});
  w.refused("pretrain --data 'shards/*_train_*.bin' --out new --steps 1 --seq 5000 --layers 1 --heads 1 --dim 16", 2, {"5000", "--seq"});
  w.write("bad.toml", "seed = 1\nlayerz = 3\n");
  w.refused("pretrain --config bad.toml", 2, {"bad.toml:2", "layerz", "did you mean layers?"});
}

TEST_CASE("checkpoints: the newest damaged, all damaged, their records damaged") {
  Trained w;
  const std::string longer = Trained::pretrain("--steps 10");
  fs::copy(w.path / "run", w.path / "straight", fs::copy_options::recursive);
  const std::string straight = "pretrain --data 'shards/*_train_*.bin' --out straight --save-every 2" + kModel + " --steps 10";
  REQUIRE(w.heddle(straight).code == 0);
  const std::string want = w.heddle("inspect straight --digest").out;
  REQUIRE(w.checkpoints() == std::vector<std::string>{"s2-i1", "s4-i1", "s6-i1"});
  const auto spoil = [&](const std::string& checkpoint) {
    const std::string name = "run/ckpt/" + checkpoint + "/shard-0-of-1.safetensors", content = w.read(name);
    w.put(name, content.size() / 2, std::string(1, static_cast<char>(content[content.size() / 2] ^ 1)));
  };
  spoil("s6-i1");
  CHECK(w.heddle("inspect run --verify").code == 65);
  CHECK(has(w.heddle("inspect run --verify").out, "DAMAGED"));
  const Result fallen = w.heddle(longer);
  INFO(fallen.out << fallen.err);
  CHECK(fallen.code == 0);
  const std::string said = fallen.out + fallen.err;
  for (const char* part : {"s6-i1", "passed over", "shard-0-of-1.safetensors", "quarantine", "resumed at step 4", "resume: steps was 6, now 10",
                           "same program, machine and layout: bit for bit the run that was not stopped, but for the options changed above"}) {
    INFO(part);
    CHECK(has(said, part));
  }
  CHECK(w.heddle("inspect run --digest").out == want);
  CHECK(w.checkpoints("run/quarantine") == std::vector<std::string>{"s6-i1"});

  w.digest.clear();  // it cannot be read from here on
  const std::vector<std::string> left = w.checkpoints();
  for (const std::string& checkpoint : left) spoil(checkpoint);
  w.refused(Trained::pretrain("--steps 12"), 65, {"none of the 3 checkpoints", left[0], left[1], left[2], "restore"});
  CHECK(w.checkpoints() == left);
  w.refused("generate run --prompt a", 65, {"run"});
  w.refused("eval run --data 'shards/*_train_*.bin'", 65, {"run"});
  for (const std::string& checkpoint : left) spoil(checkpoint);  // the same bits back
  CHECK(w.heddle("inspect run --digest").out == want);
  w.write("run/inc/1.base", "step 0\n");
  w.refused(Trained::pretrain("--steps 12"), 65, {"1.base", "damaged"});
  fs::remove(w.path / "run/inc/1.base");
  w.write("run/bad_batches.jsonl", "{\"step\": 1}\n");
  w.refused(Trained::pretrain("--steps 12"), 65, {"bad_batches.jsonl:1", "first_sample"});
  fs::remove(w.path / "run/bad_batches.jsonl");
  CHECK(w.heddle(Trained::pretrain("--steps 12")).code == 0);
}

TEST_CASE("a second job on a run directory ends with 73 and the first does not notice") {
  const Trained w(false);
  std::vector<std::string> first = {HEDDLE_PROGRAM, "pretrain", "--data", w / w.shard, "--out", w / "run", "--steps", "100000"};
  std::istringstream words(kModel);
  for (std::string word; words >> word;) first.push_back(word);
  Program job(first, w / "first.log");
  while (!fs::exists(w.path / "run/metrics.jsonl") && job.age() < 60) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  w.refused(Trained::pretrain(), 73, {"run", "in use by another job", "--out"});
  w.refused(Trained::pretrain("--steps 6 --resume must"), 73, {"in use"});
  int code = 0;
  REQUIRE_FALSE(job.poll(code));
  job.signal(SIGUSR1);
  CHECK(job.wait(60) == 75);
  CHECK(w.heddle("inspect run --verify").code == 0);
}

// What `fill` leaves no room for: saves fail, training goes on, the third failure in a row ends the run with 74, and what was saved before stands.
void full_disk(const Trained& w, const std::string& before, const std::vector<std::string>& parts) {
  const std::vector<std::string> kept = w.checkpoints();
  const Result r = w.heddle(Trained::pretrain("--steps 20"), before);
  INFO("exit code " << r.code << "\n" << r.out << r.err);
  CHECK(r.code == 74);
  for (const std::string& part : parts) CHECK(has(r.out + r.err, part));
  CHECK(has(r.out + r.err, "save of step 8 failed"));
  CHECK(has(r.out + r.err, "save of step 12 failed"));
  CHECK(has(r.err, "3 saves in a row have failed"));
  CHECK(w.checkpoints() == kept);  // none gone, no half one left
  CHECK(w.heddle("inspect run --verify").code == 0);
  CHECK(w.heddle("inspect run --digest").out == w.digest);
  // With room again the run goes on as if nothing had been.
  CHECK(w.heddle(Trained::pretrain("--steps 10")).code == 0);
}

TEST_CASE("a limit on file sizes is met by saves: they fail one by one, the run ends with 74 and its old checkpoints") {
  const Trained w;
  full_disk(w, "ulimit -f 24;", {"File too large; a limit on the size of files stands in the way: raise `ulimit -f`"});
}

// Mounts for root only; elsewhere the file-system shim's tests (tests/checkpoint) and the limit above stand for them.
struct Mount {
  std::string at;
  bool mounted;
  Mount(const std::string& path, const std::string& options) : at(path) {
    fs::create_directories(at);
    mounted = ::mount("tmpfs", at.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~Mount() {
    if (mounted) ::umount2(at.c_str(), MNT_DETACH);
  }
};

TEST_CASE("a full disk: saves fail one by one, the run ends with 74 and its old checkpoints") {
  const Trained w;
  const Mount disk(w / "disk", "size=4m");
  if (!disk.mounted) {
    WARN("skipped: no right to mount a file system here");
    return;
  }
  fs::copy(w.path / "run", w.path / "disk/run", fs::copy_options::recursive);
  fs::remove_all(w.path / "run");
  fs::create_directory_symlink("disk/run", w.path / "run");
  const auto free = fs::space(w.path / "disk").available;
  w.write("disk/ballast", std::string(free - 40960, 'x'));  // room for logs, not for a checkpoint
  const std::vector<std::string> kept = w.checkpoints();
  const Result r = w.heddle(Trained::pretrain("--steps 20"));
  INFO("exit code " << r.code << "\n" << r.out << r.err);
  CHECK(r.code == 74);
  CHECK(has(r.out + r.err, "No space left on device"));
  CHECK(has(r.out + r.err, "free space"));
  CHECK(has(r.err, "3 saves in a row have failed"));
  CHECK(w.checkpoints() == kept);
  CHECK(w.heddle("inspect run --digest").out == w.digest);
  fs::remove(w.path / "disk/ballast");
  CHECK(w.heddle(Trained::pretrain("--steps 10")).code == 0);
}

TEST_CASE("a run directory that cannot be written, or is a file, is an error before any work") {
  const Trained w;
  w.write("file", "x");
  w.refused("pretrain --data 'shards/*_train_*.bin' --out file --steps 1" + kModel, 74, {"file"});
  w.refused("pretrain --data 'shards/*_train_*.bin' --out file/below --steps 1" + kModel, 74, {"file"});
  // Root writes through permissions, but not onto a file system mounted read-only.
  const Mount disk(w / "disk", "size=4m");
  if (disk.mounted) {
    fs::copy(w.path / "run", w.path / "disk/run", fs::copy_options::recursive);
    REQUIRE(::mount(nullptr, disk.at.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, "size=4m") == 0);
    w.refused("pretrain --data 'shards/*_train_*.bin' --out disk/run --steps 8 --save-every 2" + kModel, 74, {"disk/run", "Read-only file system"});
    CHECK(w.heddle("inspect disk/run --digest").out == w.digest);  // reading needs no writing
    CHECK(w.heddle("generate disk/run --prompt a --max-new-tokens 2").code == 0);
  } else if (::geteuid() != 0) {
    fs::permissions(w.path / "run", fs::perms::owner_read | fs::perms::owner_exec);
    w.refused(Trained::pretrain("--steps 8"), 74, {"run", "Permission denied"});
    fs::permissions(w.path / "run", fs::perms::owner_all);
  } else {
    WARN("partly skipped: root without the right to mount");
  }
}

TEST_CASE("out of memory names the flags that need less") {
  const Trained w;
  const std::string big = " --device cpu --layers 8 --heads 32 --dim 4096 --seq 16 --batch 2 --steps 1 --threads 1";
  w.refused("pretrain --data 'shards/*_train_*.bin' --out big --no-memory-check" + big, 71, {"--batch", "--recompute", "--seq"}, "ulimit -v 900000;");
  const Result r = w.heddle(Trained::pretrain("--steps 8"));
  CHECK(r.code == 0);
}

}  // namespace
