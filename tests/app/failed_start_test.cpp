// Starts that come to nothing: refused before anything is made or allocated, by one message that says what helps. And ends that are no success.
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "tests/app/workplace.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::expect_refusal;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

const std::string kModel = " --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --threads 1 --no-tensorboard --no-progress";

// Short documents of made-up words and their shards in `folder`.
struct Shards : Workplace {
  explicit Shards(const std::string& folder = "shards") {
    std::string text;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    const Result r = heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --out '" + folder + "'");
    INFO(r.err);
    REQUIRE(r.code == 0);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      const std::string name = fs::relative(entry.path(), path).string();
      if (name != "out.txt" && name != "err.txt") all.push_back(name);
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  // Refused with this code and one message; not a file or folder more or less than before.
  std::string refused(const std::string& arguments, int code, const std::vector<std::string>& parts, const std::string& before = "") const {
    const std::vector<std::string> had = names();
    const Result r = heddle(arguments, before);
    expect_refusal(arguments, r, code, parts);
    CHECK(names() == had);
    return r.err;
  }
};

TEST_CASE("a start that fails leaves nothing behind, whatever was wrong") {
  const Shards w;
  const std::string data = "pretrain --data 'shards/*_train_*.bin' --out new";
  REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bpe:270 --document-separator blank-line --out other").code == 0);
  w.write("broken.json", "{");
  for (const bool there : {false, true}) {  // an empty folder, say one made beforehand for its quota, is no begun run
    if (there) fs::create_directory(w.path / "new");
    w.refused("pretrain --data 'shards/nothing*' --out new --steps 1" + kModel, 2, {"shards/nothing*"});
    w.refused(data + " --steps 1 --resume must" + kModel, 65, {"new holds no checkpoint"});
    w.refused(data + " --steps 1 --model nope", 2, {"nope"});
    w.refused(data + kModel, 2, {"no horizon"});
    w.refused(data + " --steps 1 --layers 1 --heads 3 --dim 16", 2, {"--heads 3"});
    w.refused(data + " --steps 1 --total-batch-tokens 33" + kModel, 2, {"--total-batch-tokens 33"});
    w.refused(data + " --steps 1 --kernel matmul=nope" + kModel, 2, {"nope"});
    w.refused(data + " --steps 1 --seq 5000 --batch 1 --layers 1 --heads 1 --dim 16", 2, {"lower --seq"});
    w.refused(data + " --steps 1 --vocab 100" + kModel, 2, {"100", "257"});
    w.refused(data + " --steps 1 --dp 2" + kModel, 2, {"--dp 2", "mpirun -np 2"});
    w.refused(data + " --steps 1 --tokenizer broken.json" + kModel, 65, {"broken.json"});
    w.refused(data + " --steps 1 --tokenizer other/tokenizer.json" + kModel, 78, {"257", "270"});
    w.refused(data + " --steps 1 --val 'shards/nothing*'" + kModel, 2, {"shards/nothing*"});
    w.refused(data + " --steps 1 --layers 1000 --heads 512 --dim 65536 --seq 16", 71, {"PiB"});
  }
  // A place where no directory can be made is found out first of all, not after the data was read.
  for (const char* place : {"words.txt", "words.txt/below/it"}) {
    w.refused(std::string("pretrain --data 'shards/nothing*' --steps 1 --out ") + place + kModel, 74, {"words.txt is not a directory", "--out"});
  }
  CHECK(w.heddle(data + " --steps 2" + kModel).code == 0);  // and a good one begins in the same place
  CHECK(has(w.heddle("inspect new --digest").out, "step 2"));
  // tokenize too: its folder is gone again.
  w.refused("tokenize --input words.txt --tokenizer bytes --val-fraction 0.5 --out fresh", 2,
            {"none of 1 document", "--document-separator blank-line makes more"});
  w.refused("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.001 --out fresh", 2,
            {"none of 34 documents; it takes 0.029"});
}

TEST_CASE("what needs more memory than there is, is refused before it is taken, and the advice helps") {
  const Shards w;
  const std::string data = "pretrain --data 'shards/*_train_*.bin' --out new --steps 1 --device cpu --precision fp32 --threads 1";
  // The model alone.
  const std::string model =
      w.refused(data + " --layers 1000 --heads 512 --dim 65536 --seq 16", 71, {"PiB", "GiB of memory are available", "a smaller model"});
  CHECK(has(model, "no --batch makes it fit"));
  // The batch: one of the named size passes the check, and the data is what is wrong then.
  const std::string sizes = " --layers 2 --heads 2 --dim 64 --seq 8192";
  const std::string batch = w.refused(data + sizes + " --batch 65536", 71, {"TiB are activations of --batch 65536 x --seq 8192"});
  const size_t at = batch.find("available. --batch ");
  REQUIRE(at != std::string::npos);
  const std::string fits = std::to_string(std::stoll(batch.substr(at + 19)));
  w.refused(data + sizes + " --batch " + fits, 2, {"lower --seq"});
  // A limit of this process counts, and --recompute is named where only that helps.
  const std::string deep = " --layers 64 --heads 1 --dim 64 --seq 8192 --batch 1";
  const std::string recompute = w.refused(data + deep, 71, {"available. --recompute needs"}, "ulimit -v 2000000;");
  w.refused(data + deep + " --recompute", 2, {"lower --seq"}, "ulimit -v 2000000;");
  // The ranks of one machine share its memory: what fits once need not fit a thousand times.
  w.refused(data + sizes + " --batch 1", 2, {"lower --seq"});
  w.refused(data + sizes + " --batch 1", 71, {"for the 1000000 ranks on this machine"}, "OMPI_COMM_WORLD_LOCAL_SIZE=1000000");
  // Whoever knows better may say so; then the allocator decides.
  CHECK_FALSE(has(w.refused(data + " --no-memory-check --layers 1000 --heads 512 --dim 65536 --seq 16", 71, {}), "are available"));
  w.refused("bench train-step --layers 1000 --heads 512 --dim 65536 --vocab 100 --threads 1", 71, {"[bench]", "TiB"});
  REQUIRE(w.heddle("pretrain --data 'shards/*_train_*.bin' --out run --steps 1" + kModel).code == 0);
  w.write("long.txt", std::string(800000, 'x'));
  REQUIRE(w.heddle("tokenize --input long.txt --tokenizer bytes --out long").code == 0);
  w.refused("eval run --data 'long/*.bin' --batch 65536", 71, {"[eval] --batch ", "smaller --batch"}, "ulimit -v 500000;");
  CHECK(w.heddle("eval run --data 'shards/*_val_*.bin' --batch 65536", "ulimit -v 500000;").code == 0);  // there are not so many
}

// Whatever a person keeps under a name that runs use, in a directory where no run has begun.
TEST_CASE("a run replaces no file that heddle did not write, follows no link and waits for no FIFO") {
  const Shards w;
  const std::string train = "pretrain --data 'shards/*_train_*.bin' --out new --steps 2 --sample-every 1 --sample-tokens 2" + kModel;
  fs::create_directory(w.path / "new");
  w.write("victim", "precious\n");
  for (const char* name : {"LOCK", "LATEST", "config.toml", "metrics.jsonl", "samples.txt", "shards.txt", "tokenizer.json", "bad_batches.jsonl"}) {
    INFO(name);
    const std::string file = std::string("new/") + name;
    fs::create_symlink(w / "victim", w.path / file);
    w.refused(train, 2, {file, "is a symbolic link", "move it away", "--out"}, "timeout -s KILL 60");
    fs::remove(w.path / file);
    fs::create_symlink(w / "nowhere", w.path / file);
    w.refused(train, 2, {file, "is a symbolic link"}, "timeout -s KILL 60");
    fs::remove(w.path / file);
    REQUIRE(::mkfifo((w / file).c_str(), 0600) == 0);
    w.refused(train, 2, {file, "is not a regular file"}, "timeout -s KILL 60");
    fs::remove(w.path / file);
    fs::create_directory(w.path / file);
    w.refused(train, 2, {file, "is not a regular file"});
    fs::remove(w.path / file);
  }
  CHECK(w.read("victim") == "precious\n");
  const std::vector<std::pair<std::string, std::string>> own = {{"config.toml", "steps = 10\n"},    {"metrics.jsonl", "{\"loss\": 1}\n"},
                                                                {"samples.txt", "my samples\n"},    {"LATEST", "news\n"},
                                                                {"shards.txt", "shards of milk\n"}, {"bad_batches.jsonl", "[1]\n"}};
  for (const auto& [name, text] : own) {
    INFO(name);
    w.write("new/" + name, text);
    w.refused(train, name == "bad_batches.jsonl" ? 65 : 2, {"new/" + name});
    CHECK(w.read("new/" + name) == text);
    fs::remove(w.path / ("new/" + name));
  }
  // Also when the run is told to read it.
  w.write("new/config.toml", "steps = 2\n");
  w.refused("pretrain --config new/config.toml --data 'shards/*_train_*.bin' --out new" + kModel, 2,
            {"new/config.toml", "was not written by heddle"});
  fs::remove(w.path / "new/config.toml");
  // What heddle wrote is taken for its own, wherever it comes from, and a run goes on over its own files.
  REQUIRE(w.heddle("pretrain --data 'shards/*_train_*.bin' --out old --steps 2 --sample-every 1 --sample-tokens 2" + kModel).code == 0);
  for (const char* name : {"config.toml", "metrics.jsonl", "samples.txt", "shards.txt", "tokenizer.json"}) {
    fs::copy(w.path / "old" / name, w.path / "new" / name);
  }
  REQUIRE(w.heddle(train).code == 0);
  const Result on = w.heddle(train + " --steps 4");
  INFO(on.out << on.err);
  CHECK(on.code == 0);
  const std::string samples = w.read("new/samples.txt");
  for (int step = 1; step <= 4; ++step) CHECK(has(samples, "step " + std::to_string(step) + ", "));
  // A link into a run that has begun is refused as well.
  fs::rename(w.path / "new/metrics.jsonl", w.path / "metrics.jsonl");
  fs::create_symlink(w / "victim", w.path / "new/metrics.jsonl");
  w.refused(train + " --steps 6", 2, {"new/metrics.jsonl", "symbolic link"});
  CHECK(w.read("victim") == "precious\n");
}

TEST_CASE("more threads than this process can have are refused before anything is made, however they are asked for") {
  const Shards w;
  const std::string train =
      "pretrain --data 'shards/*_train_*.bin' --out new --steps 1 --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2";
  w.refused(train, 2, {"OMP_NUM_THREADS=99999", "at most 4096", "lower or unset it"}, "OMP_NUM_THREADS=99999");
  w.refused(train + " --threads 99999", 2, {"--threads"});
  const std::string tokenize = "tokenize --input words.txt --tokenizer bytes --out more";
  w.refused(tokenize, 2, {"OMP_NUM_THREADS=99999"}, "OMP_NUM_THREADS=99999");
  w.refused(tokenize + " --threads 1000", 2, {"--threads 1000", "this process can have about"}, "ulimit -v 1500000;");
  // Threads take address space: a limit on it that leaves room for the program and some of them.
  w.refused(train + " --threads 1000", 2, {"--threads 1000", "this process can have about", "ulimit", "lower it"}, "ulimit -v 1500000;");
  w.refused(train, 2, {"OMP_NUM_THREADS=1000", "this process can have about"}, "ulimit -v 1500000; OMP_NUM_THREADS=1000");
  w.refused(train + " --threads 3", 2, {"--threads 3", "OMP_STACKSIZE=900000000G", "unset OMP_STACKSIZE"}, "OMP_STACKSIZE=900000000G");
  w.refused(train + " --threads 3", 2, {"--threads 3", "OMP_STACKSIZE=800M", "about 1 "}, "ulimit -v 1500000; OMP_STACKSIZE=800M");
  for (const char* fine : {"--help", "doctor", "inspect shards/words_train_000000.bin", "pretrain --print-config"}) {
    INFO(fine);
    const Result r = w.heddle(fine, "OMP_NUM_THREADS=99999");
    INFO(r.err);
    CHECK(r.code == 0);
    CHECK(!has(r.err, "libgomp"));
  }
  REQUIRE(w.heddle(train + " --threads 1").code == 0);
  w.refused("eval new --data 'shards/*_val_*.bin'", 2, {"OMP_NUM_THREADS=99999"}, "OMP_NUM_THREADS=99999");
  w.refused("generate new --prompt a", 2, {"OMP_NUM_THREADS=99999"}, "OMP_NUM_THREADS=99999");
}

TEST_CASE("a limit on the stack is kept to, or named: no command ends by a signal") {
  const Shards w;
  const std::string small = " --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --no-tensorboard --no-progress";
  REQUIRE(w.heddle("pretrain --data 'shards/*_train_*.bin' --out run --steps 1 --threads 2" + small).code == 0);
  int worked = 0;
  for (const int kilobytes : {64, 80, 96, 128, 160, 256, 512, 1024, 8192}) {
    for (const std::string& command :
         {std::string("--help"), std::string("inspect run --verify"), std::string("inspect shards --verify"),
          std::string("tokenize --input words.txt --tokenizer bpe:270 --out other"), std::string("generate run --prompt a --max-new-tokens 2"),
          std::string("eval run --data 'shards/*_val_*.bin' --threads 2"),
          "pretrain --data 'shards/*_train_*.bin' --out run --steps 1000000 --time-limit 0.001s --threads 2" + small}) {
      const Result r = w.heddle(command, "ulimit -s " + std::to_string(kilobytes) + ";");
      INFO("ulimit -s " << kilobytes << ": heddle " << command << "\nexit code " << r.code << "\n" << r.err);
      if (r.code == 2 && kilobytes < 1024) {
        CHECK(has(r.err, "ulimit -s"));
        CHECK(has(r.err, "heddle: ["));
      } else {
        CHECK((r.code == 0 || (r.code == 75 && command.rfind("pretrain", 0) == 0)));
        ++worked;
      }
    }
  }
  CHECK(worked >= 21);
}

// A process that is told of other ranks and finds none would train alone, next to others that do the same.
TEST_CASE("launchers' variables without a launcher are named") {
  const Shards w;
  const std::string train = "pretrain --data 'shards/*_train_*.bin' --out new --steps 1" + kModel;
  for (const auto& [variables, name] :
       std::vector<std::pair<std::string, std::string>>{{"PMI_SIZE=4 PMI_RANK=0", "PMI_SIZE"},
                                                        {"MPI_LOCALNRANKS=4 MPI_LOCALRANKID=0", "MPI_LOCALNRANKS"},
                                                        {"SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS"}}) {
    INFO(variables);
    w.refused(train, 2, {name, "of 4"}, variables);
  }
  const Result alone = w.heddle(train, "SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0");
  INFO(alone.out << alone.err);
  CHECK(alone.code == 0);
  CHECK(has(alone.out, "warning: SLURM_NTASKS is 4, but this process was started alone"));
  CHECK(!has(w.heddle(train + " --steps 2", "SLURM_JOB_ID=1 SLURM_NTASKS=1").out, "SLURM_NTASKS"));
}

TEST_CASE("signs of patterns in names of files and folders that exist mean themselves") {
  for (const char* folder : {"a[1]", "b*", "c?d", "e\\f", "g{h}"}) {
    INFO(folder);
    const Shards w(folder);
    const std::string at = folder;
    REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bytes --out a1").code == 0);  // what "a[1]" means as a pattern
    const Result r = w.heddle("pretrain --data '" + at + "/words_train_000000.bin' --val '" + at + "/*_val_*.bin' --out run --steps 1" + kModel);
    INFO(r.err);
    CHECK(r.code == 0);
    CHECK(fs::exists(w.path / "run/tokenizer.json"));
    CHECK(has(r.out, "bits per byte"));
    fs::rename(w.path / folder / "words_train_000000.bin", w.path / folder / "w[0]*.bin");
    CHECK(w.heddle("pretrain --data '" + at + "/w[0]*.bin' --no-doc-mask --vocab 257 --out other --steps 1" + kModel).code == 0);
  }
}

TEST_CASE("without a tokenizer nothing is printed per byte, and that is said") {
  const Shards w;
  fs::remove(w.path / "shards/tokenizer.json");
  const Result r = w.heddle("pretrain --data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' --out run --steps 2" + kModel);
  INFO(r.out << r.err);
  CHECK(r.code == 0);
  CHECK(has(r.out, "warning: there is no tokenizer.json beside the shards: bits per byte are not measured"));
  CHECK(has(r.out, "val loss "));
  CHECK(!has(r.out, "| bits per byte"));
  CHECK(!has(r.out, "nan"));
  CHECK(!has(w.read("run/metrics.jsonl"), "bits_per_byte"));
  const Result eval = w.heddle("eval run --data 'shards/*_val_*.bin'");
  CHECK(eval.code == 0);
  CHECK(has(eval.err, "run has no tokenizer.json: bits per byte and per word are not measured"));
  CHECK(!has(eval.out, "bits per"));
}

TEST_CASE("what a run prints fits into 80 columns, and a long run prints about fifty lines") {
  const Shards w;
  const Result r =
      w.heddle("pretrain --data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' --out run --steps 2000 --save-every 500 --eval-every 500" + kModel);
  INFO(r.out << r.err);
  REQUIRE(r.code == 0);
  int lines = 0;
  std::istringstream text(r.out);
  for (std::string line; std::getline(text, line);) {
    INFO(line);
    if (line.rfind("data: ", 0) != 0) CHECK(line.size() <= 80);  // what is left out of the data is a sentence
    lines += line.rfind("step ", 0) == 0;
  }
  CHECK(lines >= 50);
  CHECK(lines <= 60);
}

TEST_CASE("data that repeats is told once, in proportion") {
  const Shards w;
  for (const auto& [steps, said] :
       std::vector<std::pair<const char*, std::string>>{{"40", ""}, {"400", "\nmore than 4 epochs: "}, {"4000", "\nwarning: the data is seen "}}) {
    const Result r =
        w.heddle("pretrain --data 'shards/*_train_*.bin' --out run" + std::string(steps) + " --time-limit 0.001s --steps " + steps + kModel);
    INFO(r.out << r.err);
    CHECK(r.code == 75);
    for (const char* part : {"\nmore than 4 epochs: ", "\nwarning: the data is seen "}) CHECK(has(r.out, part) == (part == said));
  }
}

TEST_CASE("a console that cannot be written ends with 74, but the run is whole") {
  const Shards w;
  if (!fs::exists("/dev/full")) return;
  const std::string train = "pretrain --data 'shards/*_train_*.bin' --out run --steps 2" + kModel;
  const std::string command = "cd '" + w.path.string() + "' && '" HEDDLE_PROGRAM "' " + train + " >/dev/full 2>err.txt";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 74);
  CHECK(has(w.read("err.txt"), "standard output: No space left on device"));
  CHECK(has(w.heddle("inspect run --digest").out, "step 2 digest"));
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 74);  // also where only "already done" is to be said
  const std::string closed = "cd '" + w.path.string() + "' && { '" HEDDLE_PROGRAM "' " + train + "; echo $? >code.txt; } 2>err.txt | true";
  CHECK(std::system(closed.c_str()) == 0);
  CHECK(w.read("code.txt") == "0\n");  // somebody stopped listening
}

}  // namespace
