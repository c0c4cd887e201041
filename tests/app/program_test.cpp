// The program from outside: exit codes, what goes to which stream, what messages say.
#include <regex>

#include "tests/app/workplace.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

void check_width(const std::string& help) {
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK(line.size() <= 110);
  }
}

TEST_CASE("help and version go to standard output with code 0") {
  const Workplace w;
  for (const char* arguments : {"--help", "-h", "help"}) {
    const Result r = w.heddle(arguments);
    CHECK(r.code == 0);
    CHECK(r.err.empty());
    for (const char* command : {"tokenize", "pretrain", "supervise", "generate", "eval", "inspect", "bench", "doctor"})
      CHECK(has(r.out, std::string("\n  ") + command));
    CHECK(has(r.out, "Exit codes"));
    check_width(r.out);
  }
  CHECK(w.heddle("--version").out.rfind("heddle 0.", 0) == 0);
  for (const char* command : {"tokenize", "pretrain", "supervise", "generate", "eval", "inspect", "bench", "doctor"}) {
    INFO(command);
    const Result r = w.heddle(std::string(command) + " --help");
    CHECK(r.code == 0);
    CHECK(r.err.empty());
    CHECK(has(r.out, std::string("usage: heddle ") + command));
    CHECK(w.heddle(std::string("help ") + command).out == r.out);
    check_width(r.out);
  }
}

TEST_CASE("mistakes on the command line end with code 2 and a message on standard error") {
  const Workplace w;
  const auto refused = [&](const std::string& arguments, const std::string& part, const std::string& before = "") {
    const Result r = w.heddle(arguments, before);
    INFO(arguments << ": " << r.err);
    CHECK(r.code == 2);
    CHECK(r.out.empty());
    CHECK(has(r.err, part));
  };
  refused("", "usage: heddle COMMAND");
  refused("pretrian", "did you mean pretrain?");
  refused("pretrain --stepz 5", "did you mean --steps?");
  refused("pretrain --steps nan", "--steps");
  refused("pretrain --steps 1e30", "--steps");
  refused("pretrain --layers 1 --dim 100 --heads 3 --steps 1 --data x --out o", "--dim 102");
  refused("pretrain --config missing.toml", "missing.toml: No such file or directory; check --config or HEDDLE_CONFIG");
  refused("pretrain", "missing.toml: No such file or directory; check --config or HEDDLE_CONFIG", "HEDDLE_CONFIG=missing.toml");
  refused("pretrain --dry-run --layers 1 --heads 2 --dim 16", "or --vocab N");
  refused("pretrain --dry-run --vocab 100", "no model");
  refused("tokenize --input x --tokenizer bytes --out o --shard-tokens 1", "from 256 to 2147483647");
  refused("inspect x --verify --digest", "give one");
  refused("pretrain", "HEDDLE_STEPS?", "HEDDLE_STEPZ=1");
  refused("pretrain", "HEDDLE_LR", "HEDDLE_LR=fast");
  for (const char* count : {"repeats", "warmup-steps"}) {
    refused(std::string("bench nonsense --") + count + " 1000001", std::string("--") + count + " is from");
    refused(std::string("bench nonsense --") + count + " 1000000", "is not train-step");
  }
  refused("bench nonsense --repeats 0", "--repeats is from");
  refused("bench nonsense --warmup-steps 0 --repeats 1", "is not train-step");
  refused("generate", "no model");
  refused("generate run --prompt a --prompt-ids 1", "--prompt-ids");
  refused("eval run", "--data");
  refused("inspect", "nothing to look at");
  refused("doctor --everything", "--everything");
  std::ofstream(w.path / "bad.toml") << "# a comment\nlr = 1e-3\nlearning-rate = 3\n";
  refused("pretrain --config bad.toml", "bad.toml:3: unknown key");
  std::ofstream(w.path / "twice.toml") << "lr = 1\nlr = 2\n";
  refused("pretrain --config twice.toml", "twice.toml:2");
}

TEST_CASE("--print-config merges file, environment and flags, and its output is a config file") {
  const Workplace w;
  std::ofstream(w.path / "run.toml") << "lr = 1e-3\nsteps = 10\nseed = 7\nsample-prompt = \"a # b \\\"c\\\"\"\nsample-every = 5\n";
  const Result r = w.heddle("pretrain --config run.toml --lr 3e-3 --print-config", "HEDDLE_LR=2e-3 HEDDLE_STEPS=1k");
  CHECK(r.code == 0);
  CHECK(has(r.out, "\nlr = 0.003  # --lr\n"));
  CHECK(has(r.out, "\nsteps = 1024  # HEDDLE_STEPS\n"));
  CHECK(has(r.out, "\nseed = 7  # run.toml:3\n"));
  CHECK(has(r.out, "\nsample-prompt = \"a # b \\\"c\\\"\"  # run.toml:4\n"));
  std::ofstream(w.path / "again.toml") << r.out;
  const Result again = w.heddle("pretrain --print-config", "HEDDLE_CONFIG=again.toml");
  CHECK(again.code == 0);
  const auto values = [](const std::string& text) {
    std::istringstream lines(text);
    std::string kept;
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty() && line[0] != '#') kept += line.substr(0, line.rfind("  # ")) + "\n";
    }
    return kept;
  };
  CHECK(values(again.out) == values(r.out));
}

TEST_CASE("one of a thing is said in the singular") {
  const Workplace w;
  w.write("one.txt", "eighteen bytes, 1\n");
  const std::string model =
      " --device cpu --layers 1 --heads 1 --dim 16 --seq 16 --batch 1 --steps 1 --warmup 1 --threads 1 --no-tensorboard --save-every 1 ";
  const std::string train = "pretrain --data one/one_train_000000.bin --val one/one_train_000000.bin --out run" + model;
  const std::regex wrong("(^|[ (,])1 ([a-z][a-z-]*[a-rt-z]s)\\b", std::regex::ECMAScript | std::regex::multiline);
  for (const std::string& command :
       {std::string("tokenize --input one.txt --tokenizer bytes --out one"),
        std::string("tokenize --input one.txt --tokenizer bytes --val-fraction 0.5 --out two"), std::string("inspect one"),
        std::string("inspect one/one_train_000000.bin --verify"), std::string("inspect one --verify"), train + "--dry-run", train,
        train + "--resume never", train + "--dp 2", std::string("pretrain --out run --steps 2 --dry-run"), std::string("inspect run"),
        std::string("inspect run --details --verify"), std::string("eval run --data one/one_train_000000.bin"),
        std::string("eval run --data one/one_train_000000.bin --tokens 1"), std::string("generate run --prompt-ids 300"),
        std::string("bench save-stall --repeats 1 --warmup-steps 1 --vocab 300") +
            " --device cpu --layers 1 --heads 1 --dim 16 --seq 16 --batch 1 --threads 1"}) {
    const Result r = w.heddle(command);
    INFO(command << "\n" << r.out << r.err);
    CHECK(r.code <= 2);
    CHECK(!has(r.out, "\"write_ms\": 0.0,"));  // a save takes some time
    for (const std::string& text : {r.out, r.err}) {
      CHECK(text.find_first_of("\r\x1b") == text.npos);  // what is for terminals stays out of files
      std::smatch found;
      if (std::regex_search(text, found, wrong)) FAIL("'" << found[0] << "'");
    }
  }
}

TEST_CASE("files that are missing or wrong have their own codes") {
  const Workplace w;
  CHECK(w.heddle("inspect nowhere").code == 74);
  CHECK(has(w.heddle("inspect nowhere").err, "nowhere"));
  fs::create_directory(w.path / "empty");
  CHECK(w.heddle("inspect empty").code != 0);
  std::ofstream(w.path / "x.bin") << "not a shard";
  const Result shard = w.heddle("inspect x.bin");
  CHECK(shard.code == 65);
  CHECK(has(shard.err, "x.bin"));
  std::ofstream(w.path / "x.safetensors", std::ios::binary) << std::string("\x05\0\0\0\0\0\0\0{\"a\":", 13);
  CHECK(w.heddle("inspect x.safetensors").code == 65);
}

TEST_CASE("standard output that cannot be written is an I/O error") {
  const Workplace w;
  if (!fs::exists("/dev/full")) return;
  const std::string command = "'" HEDDLE_PROGRAM "' --help >/dev/full 2>'" + (w.path / "err.txt").string() + "'";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 74);
  CHECK(has(w.read("err.txt"), "standard output"));
}

TEST_CASE("what C's streams could not write is an I/O error too") {
  const Workplace w;
  if (!fs::exists("/dev/full")) return;
  const std::string command =
      "'" HEDDLE_PROGRAM "' pretrain --dry-run --layers 1 --heads 2 --dim 16 --vocab 100 >/dev/full 2>'" + (w / "err.txt") + "'";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 74);
  CHECK(has(w.read("err.txt"), "standard output"));
}

TEST_CASE("doctor describes this machine") {
  const Workplace w;
  const Result r = w.heddle("doctor", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1 OMP_NUM_THREADS=2");
  CHECK(r.code == 0);
  for (const char* part : {"Build", "version", "Processor", "model", "instructions", "logical CPUs", "memory", "working directory", "GiB free",
                           "OMPI_COMM_WORLD_SIZE", "OMP_NUM_THREADS", "OpenMP threads      2"}) {
    INFO(part);
    CHECK(has(r.out, part));
  }
}

}  // namespace
