// The files of runs and data sets from outside: who may read them, what a start that comes to nothing leaves, copies made by hard links.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "tests/app/workplace.h"
#include "tests/support/program.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::has;
using heddle::test::Program;
using heddle::test::Result;
using heddle::test::Workplace;

const std::string kModel =
    " --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --total-batch-tokens 32 --threads 1 --no-progress --warmup 1"
    " --schedule constant";

struct Texts : Workplace {
  Texts() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
  }
  Result tokenize(const std::string& out, const std::string& more = "bytes", const std::string& before = "") const {
    return heddle("tokenize --input words.txt --document-separator blank-line --val-fraction 0.2 --out " + out + " --tokenizer " + more, before);
  }
  static std::string pretrain(const std::string& out, const std::string& more) {
    return "pretrain --data 'shards/*_train_*.bin' --out " + out + kModel + " " + more;
  }
  // Every file below `folder` with its content, every folder with none.
  std::map<std::string, std::string> files(const std::string& folder) const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(path / folder)) {
      const std::string name = fs::relative(entry.path(), path).string();
      all[name] = entry.is_directory() ? "a folder" : read(name);
    }
    return all;
  }
};

TEST_CASE("the umask decides the modes of every file and folder of a run and of a data set") {
  const Texts w;
  for (const int mask : {0000, 0022, 0027, 0077}) {
    char before[32];
    std::snprintf(before, sizeof before, "umask %04o;", static_cast<unsigned>(mask));
    INFO(before);
    for (const char* folder : {"shards", "run"}) fs::remove_all(w.path / folder);
    REQUIRE(w.tokenize("shards", "bytes", before).code == 0);
    const std::string train = Texts::pretrain("run", "--val 'shards/*_val_*.bin' --save-every 1 --sample-every 1 --sample-tokens 2 --tensorboard");
    for (const char* steps : {" --steps 2", " --steps 4"}) {  // a start and a start that goes on
      const Result r = w.heddle(train + steps, before);
      INFO(r.err);
      REQUIRE(r.code == 0);
    }
    size_t seen = 0;
    for (const char* folder : {"shards", "run"}) {
      for (const auto& [name, content] : w.files(folder)) {
        struct stat info {};
        REQUIRE(::stat((w / name).c_str(), &info) == 0);
        INFO(name);
        CHECK((info.st_mode & 07777) == ((S_ISDIR(info.st_mode) ? 0777u : 0666u) & ~static_cast<unsigned>(mask)));
        ++seen;
      }
    }
    CHECK(seen >= 25);
  }
}

TEST_CASE("a start that trains nothing leaves a run as it was") {
  const Texts w;
  REQUIRE(w.tokenize("shards").code == 0);
  REQUIRE(w.tokenize("other", "bpe:270").code == 0);
  const std::string shard = "shards/words_train_000000.bin", good = w.read(shard);
  REQUIRE(w.heddle(Texts::pretrain("run", "--steps 4 --save-every 2")).code == 0);
  const auto before = w.files("run");
  REQUIRE(before.count("run/inc/1"));
  const auto leaves_nothing = [&](const std::string& arguments, int code, const std::string& variables = "") {
    const Result r = w.heddle(arguments, variables);
    INFO("heddle " << arguments << "\n" << r.out << r.err);
    CHECK(r.code == code);
    const auto after = w.files("run");
    for (const auto& [name, content] : after) {
      INFO(name);
      CHECK(before.count(name) == 1);
    }
    CHECK(after == before);
  };
  for (const char* resume : {"", " --resume must"}) {
    leaves_nothing(Texts::pretrain("run", "--steps 4") + resume, 0);  // is done
    leaves_nothing(Texts::pretrain("run", "--steps 8 --seed 7") + resume, 78);
    leaves_nothing(Texts::pretrain("run", "--steps 8 --dim 32") + resume, 78);
    leaves_nothing(Texts::pretrain("run", "--steps 8 --tokenizer other/tokenizer.json") + resume, 78);
    leaves_nothing("pretrain --data 'other/*_train_*.bin' --out run --steps 8" + std::string(resume), 78);
    leaves_nothing("pretrain --data 'shards/nothing*' --out run --steps 8" + std::string(resume), 2);
    leaves_nothing(Texts::pretrain("run", "--steps 8 --val 'shards/nothing*'") + resume, 2);
    leaves_nothing(Texts::pretrain("run", "--steps 8 --dp 2") + resume, 2);
    leaves_nothing(Texts::pretrain("run", "--steps 8 --total-batch-tokens 33") + resume, 2);
  }
  leaves_nothing(Texts::pretrain("run", "--steps 8 --resume never"), 2);
  leaves_nothing(Texts::pretrain("run", "--steps 8"), 78, "HEDDLE_LR=0.5");
  w.write(shard, good.substr(0, good.size() - 2));
  leaves_nothing(Texts::pretrain("run", "--steps 8"), 65);
  w.write(shard, good.substr(0, good.size() - 2) + std::string("a\0", 2));  // another content under the same description
  fs::rename(w.path / "shards/dataset.json", w.path / "dataset.json");
  leaves_nothing(Texts::pretrain("run", "--steps 8"), 78);
  fs::rename(w.path / "dataset.json", w.path / "shards/dataset.json");
  w.write(shard, good);
  w.write("run/inc/1.base", "step 0\n");  // what comes to light while the run is opened
  const auto damaged = w.files("run");
  CHECK(w.heddle(Texts::pretrain("run", "--steps 8")).code == 65);
  CHECK(w.files("run") == damaged);
  w.write("run/inc/1.base", before.at("run/inc/1.base"));
  // And the next one goes on as the second start.
  REQUIRE(w.heddle(Texts::pretrain("run", "--steps 6")).code == 0);
  CHECK(fs::exists(w.path / "run/inc/2.base"));
  CHECK(!fs::exists(w.path / "run/inc/3"));
  CHECK(has(w.heddle("inspect run").out, "s6-i2"));
}

TEST_CASE("a copy of a run by hard links and its original go on apart from each other") {
  const Texts w;
  REQUIRE(w.tokenize("shards").code == 0);
  const std::string logs = "--save-every 2 --sample-every 1 --sample-tokens 2 --steps ";
  REQUIRE(w.heddle(Texts::pretrain("run", logs + "4")).code == 0);
  REQUIRE(std::system(("cp -al '" + w / "run" + "' '" + w / "copy" + "'").c_str()) == 0);
  const auto original = w.files("run");
  REQUIRE(w.heddle(Texts::pretrain("copy", logs + "8")).code == 0);
  CHECK(w.files("run") == original);
  REQUIRE(w.heddle(Texts::pretrain("run", logs + "6")).code == 0);
  const auto lines = [&](const std::string& name) {
    const std::string text = w.read(name);
    return std::count(text.begin(), text.end(), '\n');
  };
  CHECK(lines("copy/metrics.jsonl") == 8);
  CHECK(lines("run/metrics.jsonl") == 6);
  CHECK(w.read("copy/samples.txt").find("step 8, ") != std::string::npos);
  CHECK(w.read("run/samples.txt").find("step 7, ") == std::string::npos);
  CHECK(w.heddle("inspect run --verify").code == 0);
  CHECK(w.heddle("inspect copy --verify").code == 0);
  // Copied once more: whichever of the two starts first gets a LOCK of its own, and both train at a time.
  REQUIRE(std::system(("cp -al '" + w / "run" + "' '" + w / "second" + "'").c_str()) == 0);
  std::vector<std::unique_ptr<Program>> jobs;
  for (const char* out : {"second", "run"}) {
    std::vector<std::string> arguments = {HEDDLE_PROGRAM, "pretrain", "--data", w / "shards/words_train_000000.bin", "--out", w / out};
    std::istringstream words(kModel + " --save-every 1000000 --steps 10000000");
    for (std::string word; words >> word;) arguments.push_back(word);
    jobs.push_back(std::make_unique<Program>(arguments, w / (std::string(out) + ".log")));
    while (lines(std::string(out) + "/metrics.jsonl") < 12 && jobs.back()->running() && jobs.back()->age() < 60) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  for (const auto& job : jobs) {
    job->signal(SIGTERM);
    CHECK(job->wait(60) == 75);
  }
  INFO(w.read("second.log") << w.read("run.log"));
  CHECK(!has(w.read("run.log"), "in use"));
  // A job whose LOCK got a second name while it ran holds it; whoever is kept out by that is told what it may be.
  const int held = ::open((w / "run/LOCK").c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(::flock(held, LOCK_EX | LOCK_NB) == 0);
  fs::create_directory(w.path / "third");
  fs::create_hard_link(w.path / "run/LOCK", w.path / "third/LOCK");
  fs::copy(w.path / "run/ckpt", w.path / "third/ckpt", fs::copy_options::recursive);
  const Result r = w.heddle(Texts::pretrain("third", "--steps 20000000"));
  ::close(held);
  CHECK(r.code == 73);
  CHECK(has(r.err, "hard-linked as by cp -al"));
  CHECK(has(r.err, "delete third/LOCK"));
}

}  // namespace
